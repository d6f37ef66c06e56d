"""Sends the sandbox payment provider's events to the seller: signed, in order if it can, and again until it is heard.

For tests of a seller it can lose, double, delay or turn round what it sends, as networks and real providers do.
"""

import hashlib
import hmac
import threading
import time
import urllib.error
import urllib.request

from sandbox.payments_store import Store

SIGNATURE_HEADER = "sandbox-signature"
SEND_SECONDS = 10.0
POLL_SECONDS = 0.1
EVENTS_AT_ONCE = 20
FIRST_RETRY_SECONDS = 1.0
MOST_RETRY_SECONDS = 300.0
MAX_ATTEMPTS = 100
LATE_SECONDS = 3.0
DISORDERS = ("", "lose", "double", "late", "reverse")


class Sender:
    """A thread that sends what is due. `disorder` is one of DISORDERS."""

    def __init__(self, store: Store, *, url: str, secret: str) -> None:
        self._store = store
        self.url = url
        self._secret = secret
        self.disorder = ""
        self._is_stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="webhooks", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._is_stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout=SEND_SECONDS + 1)

    def _run(self) -> None:
        while not self._is_stopping.wait(POLL_SECONDS):
            if self.url:
                self.send_due()

    def send_due(self) -> None:
        due = self._store.due_events(EVENTS_AT_ONCE)
        for event_id, body, attempts in reversed(due) if self.disorder == "reverse" else due:
            if self._is_stopping.is_set():
                return
            if self.disorder == "lose":
                self._store.note_delivery(event_id, status="lost on purpose", next_at=None)
                continue
            if self.disorder == "late" and not attempts:
                self._store.note_delivery(event_id, status="late on purpose", next_at=time.time() + LATE_SECONDS)
                continue
            statuses = [self._send(body.encode()) for _ in range(2 if self.disorder == "double" else 1)]
            is_heard = all(status.startswith("2") for status in statuses)
            wait = min(FIRST_RETRY_SECONDS * 2**attempts, MOST_RETRY_SECONDS)
            next_at = None if is_heard or attempts + 1 >= MAX_ATTEMPTS else time.time() + wait
            self._store.note_delivery(event_id, status=statuses[-1], next_at=next_at)

    def _send(self, body: bytes) -> str:
        headers = {"content-type": "application/json", SIGNATURE_HEADER: sign(body, self._secret, int(time.time()))}
        request = urllib.request.Request(self.url, body, headers)  # noqa: S310  Whoever starts the sandbox names it.
        try:
            with urllib.request.urlopen(request, timeout=SEND_SECONDS) as response:  # noqa: S310
                return str(response.status)
        except urllib.error.HTTPError as error:
            error.close()
            return str(error.code)
        except OSError as error:
            return f"{type(error).__name__}"


def sign(body: bytes, secret: str, at: int) -> str:
    """Return the header of a message: `t=<seconds>,v1=<HMAC-SHA-256 of "t.body">`."""
    digest = hmac.new(secret.encode(), str(at).encode() + b"." + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"
