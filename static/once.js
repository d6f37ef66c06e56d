// What is shown once is gone when the page is left: a browser may keep pages to go back to.
for (const element of document.querySelectorAll("[data-once]")) {
  addEventListener("pagehide", () => element.replaceChildren());
  addEventListener("pageshow", event => { if (event.persisted) location.replace(element.dataset.once); });
}
