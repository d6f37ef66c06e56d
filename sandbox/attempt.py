"""One attempt at the sandbox, from its first line in the journal to its last."""

import time
from typing import Any

from sandbox.directives import NO_DIRECTIVES, Directives
from sandbox.journal import ABORTED_BY_CLIENT, COMPLETE, FAILED_PREFIX, STARTED, Journal
from sandbox.usage import Usage

SENT = "sent"


class Attempt:
    """Counts what was really written, and tells the journal."""

    __slots__ = (
        "_ended",
        "_journal",
        "bytes_written",
        "deltas",
        "directives",
        "hanging",
        "n",
        "request_id",
        "status",
        "text_chars",
        "usage",
    )

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._ended: str | None = None
        self.n = journal.next_n()
        self.request_id = f"req_sandbox_{self.n}"
        self.directives: Directives = NO_DIRECTIVES
        self.hanging: str | None = None
        self.status: int | None = None
        self.usage: Usage | None = None
        self.bytes_written = 0
        self.text_chars = 0
        self.deltas = 0

    def start(
        self, *, protocol: str, model: str | None, streamed: bool, gateway_request_id: str | None, key_last4: str | None
    ) -> None:
        """Write the first line. Comes before the first byte of any response."""
        if self._journal.is_kept:
            self._journal.append(
                {
                    "n": self.n,
                    "time": time.time(),
                    "protocol": protocol,
                    "request_id": gateway_request_id,
                    "model": model,
                    "streamed": streamed,
                    "key_last4": key_last4,
                    "directives": str(self.directives),
                    "delivered": STARTED,
                }
            )

    def end(self, delivered: str) -> None:
        """Write what came of it, before the final bytes: a client that has them all finds them in the journal."""
        self._ended = delivered
        if self._journal.is_kept:
            self._journal.append(self._ended_fields(delivered))

    def sent(self) -> None:
        """The final bytes are written: nothing can change the outcome any more."""
        self._ended = SENT

    def abandon(self, *, client_left: bool) -> None:
        """The response stops where it is, because the client left or the sandbox is being stopped.

        A `complete` that was journaled but whose last bytes did not go out is taken back by this line.
        """
        if self._ended is not None and self._ended != COMPLETE:
            return
        if self.hanging is not None:
            self.end(FAILED_PREFIX + self.hanging)
        else:
            self.end(ABORTED_BY_CLIENT if client_left else FAILED_PREFIX + "stopped")

    def _ended_fields(self, delivered: str) -> dict[str, Any]:
        return {
            "n": self.n,
            "ended_time": time.time(),
            "status": self.status,
            "delivered": delivered,
            "usage": None if self.usage is None else self.usage.components(),
            "bytes": self.bytes_written,
            "text_chars": self.text_chars,
            "deltas": self.deltas,
        }
