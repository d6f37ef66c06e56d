// A request of the list opens in the panel beside it; Escape closes it, j and k go to the next and the one before.
const panel = document.getElementById("peek");
const body = document.getElementById("peek-body");
let opened = null;

function close() {
  if (panel.hidden) return;
  panel.hidden = true;
  body.replaceChildren();
  mark(null);
}

function mark(link) {
  document.querySelector("tr.is-peeked")?.classList.remove("is-peeked");
  opened = link?.id ?? null;
  link?.closest("tr").classList.add("is-peeked");
}

// A click that opens a new tab or window stays the browser's.
document.addEventListener("click", (event) => {
  const opensElsewhere = event.ctrlKey || event.metaKey || event.shiftKey;
  if (opensElsewhere && event.target.closest("#request-rows .row-link")) event.stopPropagation();
}, true);

// The row is marked at once, so that the next j goes on from it, and what was asked for before is not waited for.
document.addEventListener("htmx:beforeRequest", (event) => {
  if (event.detail.target === body) mark(event.detail.requestConfig.elt);
});

document.addEventListener("htmx:afterSwap", (event) => {
  if (event.detail.target === body) {
    const link = event.detail.requestConfig.elt;
    document.getElementById("peek-open").href = link.href;
    panel.hidden = false;
    panel.scrollTop = 0;
  } else if (opened) {
    mark(document.getElementById(opened));
  }
});

// A page that cannot be put into the panel is opened as a page.
document.addEventListener("htmx:responseError", (event) => {
  if (event.detail.target === body) location.assign(event.detail.requestConfig.elt.href);
});

document.getElementById("peek-close").addEventListener("click", () => {
  const link = opened && document.getElementById(opened);
  close();
  link?.focus();
});

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea")) return;
  if (event.key === "Escape") close();
  if (panel.hidden || !["j", "k"].includes(event.key)) return;
  const links = [...document.querySelectorAll("#request-rows .row-link")];
  const next = links[links.findIndex((link) => link.id === opened) + (event.key === "j" ? 1 : -1)];
  if (next) {
    next.click();
    next.scrollIntoView({ block: "nearest" });
  }
});
