"""The content blocks of a Messages stream in order: one at a time, numbered without gaps. Pure.

Some servers of the protocol (llama.cpp) begin a block before they close the last, leave one open at the end, or number
them with gaps. Where it is plain what is meant, it is put in order; a piece of a block that is closed is a fault. An
event without a number is of the block that is open, or begins one.
"""

from typing import Any

from gateway.protocol.errors import UpstreamProtocolError

MAX_CONTENT_BLOCKS = 100_000
# A delta says what its block is, where that needs nothing else to begin with.
STARTS_BY_DELTA: dict[object, dict[str, str]] = {
    "text_delta": {"type": "text", "text": ""},
    "thinking_delta": {"type": "thinking", "thinking": "", "signature": ""},
}


class BlockOrder:
    """Each method returns the events that go before the one it is asked about. Raises UpstreamProtocolError."""

    __slots__ = ("_known", "count", "open_index")

    def __init__(self) -> None:
        self.open_index: int | None = None  # The upstream's.
        self.count = 0
        self._known: set[int] = set()  # The upstream's numbers that were given.

    @property
    def number(self) -> int:
        """The number of the block that began last, as the client knows it."""
        return self.count - 1

    def start(self, payload: dict[str, Any]) -> list[dict[str, Any]]:
        index = _index_of(payload)
        if index is None:
            index = -1 - self.count  # No number of an upstream's.
        before = self.close()
        if self.count >= MAX_CONTENT_BLOCKS:
            raise UpstreamProtocolError(f"more than {MAX_CONTENT_BLOCKS} blocks")
        self._known.add(index)
        self.open_index = index
        self.count += 1
        return before

    def delta(self, payload: dict[str, Any], delta: dict[str, Any]) -> list[dict[str, Any]]:
        index = _index_of(payload)
        if self.open_index is not None and index in (self.open_index, None):
            return []
        block = STARTS_BY_DELTA.get(delta.get("type"))
        if block is None or index in self._known:
            raise UpstreamProtocolError(f"content_block_delta for block {index}, which is not open")
        before = self.start(payload)
        start = {"type": "content_block_start", "index": self.number, "content_block": dict(block)}
        return [*before, start]

    def stop(self, payload: dict[str, Any]) -> bool:
        """Return whether the open block ends; False where it was closed already, or never began."""
        if self.open_index is None or _index_of(payload) not in (self.open_index, None):
            return False
        self.open_index = None
        return True

    def close(self) -> list[dict[str, Any]]:
        """Close what is still open."""
        if self.open_index is None:
            return []
        self.open_index = None
        return [{"type": "content_block_stop", "index": self.number}]


def _index_of(payload: dict[str, Any]) -> int | None:
    """Return the upstream's number of a block; None where it gives none that is one."""
    index = payload.get("index")
    return index if type(index) is int and index >= 0 else None
