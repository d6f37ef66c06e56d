// A menu closes on Escape, which gives the focus back to what opened it, and when something else is clicked or focused.
for (const menu of document.querySelectorAll("details.menu")) {
  const close = () => { menu.open = false; };
  // The focus need not be in it: a click on its name moves none in Safari.
  document.addEventListener("keydown", event => {
    if (event.key === "Escape" && menu.open) {
      close();
      menu.querySelector("summary").focus();
    }
  });
  menu.addEventListener("focusout", event => { if (event.relatedTarget && !menu.contains(event.relatedTarget)) close(); });
  document.addEventListener("click", event => { if (!menu.contains(event.target)) close(); });
}
