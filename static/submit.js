// A form is sent once: the answer to the first of two clicks would be lost, and with it what is shown only once.
const AGAIN_MS = 3000; // A form whose answer is a file, or that the network lost, can be sent again.
const sent = new WeakSet();
addEventListener("submit", event => {
  if (event.defaultPrevented || event.target.method !== "post") return;
  if (sent.has(event.target)) event.preventDefault();
  sent.add(event.target);
  setTimeout(() => sent.delete(event.target), AGAIN_MS);
});
