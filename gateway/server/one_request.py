"""What a parser finds, up to the end of one request."""

from typing import Protocol


class Finder(Protocol):
    """What is told of a request, as httptools tells it."""

    def on_message_begin(self) -> None: ...
    def on_url(self, url: bytes) -> None: ...
    def on_header(self, name: bytes, value: bytes) -> None: ...
    def on_headers_complete(self) -> None: ...
    def on_body(self, body: bytes) -> None: ...
    def stop_reading(self) -> None: ...
    def on_message_complete(self) -> None: ...


class OneRequest:
    """Passes on what a parser finds up to the end of one request, and nothing of what follows it."""

    def __init__(self, protocol: Finder) -> None:
        self._protocol = protocol
        self._is_over = False

    def on_message_begin(self) -> None:
        if not self._is_over:
            self._protocol.on_message_begin()

    def on_url(self, url: bytes) -> None:
        if not self._is_over:
            self._protocol.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._is_over:
            self._protocol.on_header(name, value)

    def on_headers_complete(self) -> None:
        if not self._is_over:
            self._protocol.on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if not self._is_over:
            self._protocol.on_body(body)

    def on_message_complete(self) -> None:
        if not self._is_over:
            self._is_over = True
            self._protocol.stop_reading()
            self._protocol.on_message_complete()
