"""An answer that came before the end of its request, held back until that is read, where a proxy stands between.

Who speaks to us itself may have the answer at once, and goes on with the connection when it has sent its body. A proxy
cannot pass that on: nginx tells its client that the connection stays open, closes it because a body was under way, and
the next request of that client is lost with it.
"""

from typing import Protocol

MAX_HELD_BYTES = 1024 * 1024  # What is longer goes on its way: nobody answers so much without having read the request.


class Writable(Protocol):
    """A transport, as far as answers need one."""

    def write(self, data: bytes) -> None: ...
    def close(self) -> None: ...
    def is_closing(self) -> bool: ...


class Reading(Protocol):
    """A request whose body may be under way."""

    more_body: bool


class HeldAnswer:
    """Stands where the transport of one request would."""

    def __init__(self, transport: Writable, request: Reading) -> None:
        self.transport = transport
        self.is_closing = transport.is_closing
        self._request = request
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._closes = False

    def write(self, data: bytes) -> None:
        if not self._request.more_body:
            self.let_go()
            self.transport.write(data)
            return
        self._held.append(data)
        self._held_bytes += len(data)
        if self._held_bytes > MAX_HELD_BYTES:
            self.let_go()

    def close(self) -> None:
        if self._held:
            self._closes = True
        else:
            self.transport.close()

    def let_go(self) -> bool:
        """Write what is held, and close where that was wanted. Returns whether there was anything."""
        held, self._held, self._held_bytes = self._held, [], 0
        if held:
            self.transport.write(b"".join(held))
        if self._closes:
            self._closes = False
            self.transport.close()
        return bool(held)
