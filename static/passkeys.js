// Says on the page that no passkey came: allauth tells only the browser's own console.
document.addEventListener("allauth.error", event => {
  event.preventDefault();
  document.getElementById("passkey-error")?.remove();
  const told = document.createElement("p");
  told.id = "passkey-error";
  told.className = "notice notice-error";
  told.role = "alert";
  told.textContent = event.detail.exception.name === "InvalidStateError"
    ? "This device has a passkey for this account already."
    : "No passkey came: it was cancelled, took too long, or the device has none that fits. Try again.";
  document.querySelector("main h1").after(told);
});
