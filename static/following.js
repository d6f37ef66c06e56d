// Says why a page that follows what happens does so no more, and whether it will by itself.
const NOT_ALLOWED = [403, 404];
const reasons = document.querySelectorAll("#following [data-why]");

function tell(why) {
  for (const reason of reasons) reason.hidden = reason.dataset.why !== why;
}

// Of what was clicked, the click is told; of what is asked every few seconds, the list.
const whyOf = (event) => (event.detail.requestConfig.triggeringEvent?.type === "click" ? "unopened" : "lost");

document.addEventListener("htmx:sendError", (event) => tell(whyOf(event)));
document.addEventListener("htmx:timeout", (event) => tell(whyOf(event)));
document.addEventListener("htmx:responseError", (event) => {
  const { status } = event.detail.xhr;
  tell(status === 401 ? "signed-out" : NOT_ALLOWED.includes(status) ? "closed" : whyOf(event));
});
document.addEventListener("htmx:afterRequest", (event) => {
  if (event.detail.successful && !event.detail.xhr.getResponseHeader("HX-Trigger")) tell("");
});
document.addEventListener("following-ended", () => tell("ended"));
