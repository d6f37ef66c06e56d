// A single key chooses a period: the letter that stands beside it, unless somebody is typing.
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea, [contenteditable]")) return;
  const link = document.querySelector(`a[data-key="${CSS.escape(event.key.toUpperCase())}"]`);
  if (link) location.assign(link.href);
});
