// Names what django-unfold leaves without a name of its own: parts that scroll, and the column of boxes that delete.
window.addEventListener("load", () => {
  document.querySelectorAll(".simplebar-content-wrapper").forEach((part, number) => {
    part.setAttribute("aria-label", part.closest("#nav-sidebar") ? "Menu" : `Part ${number + 1} of the page`);
  });
  document.querySelectorAll("thead th").forEach((heading) => {
    if (!heading.childElementCount && !heading.textContent.trim()) {
      heading.textContent = "Delete";
    }
  });
});
