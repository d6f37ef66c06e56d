"""A customer's endpoint: a real HTTP server that answers as it is told and keeps what it got."""

import socketserver
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"
BROKEN = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 5\r\n\r\nsorry"
GONE = b"HTTP/1.1 410 Gone\r\ncontent-length: 0\r\n\r\n"
ELSEWHERE = b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/elsewhere\r\ncontent-length: 0\r\n\r\n"


@dataclass(frozen=True)
class Received:
    line: str
    headers: dict[str, str]
    body: bytes


class _Listener(socketserver.ThreadingTCPServer):
    allow_reuse_address = True


class WebhookServer:
    """`answer` is what every request gets: bytes, or a function that writes them. `received` is what came."""

    def __init__(self, answer: bytes | Callable[[Callable[[bytes], None]], None] = OK) -> None:
        self.answer = answer
        self.received: list[Received] = []
        outer = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                line = self.rfile.readline().decode().strip()
                headers = {}
                while header := self.rfile.readline().decode().strip():
                    name, _, value = header.partition(":")
                    headers[name.lower()] = value.strip()
                body = self.rfile.read(int(headers.get("content-length", 0)))
                outer.received.append(Received(line, headers, body))
                try:
                    if callable(outer.answer):
                        outer.answer(self._write)
                    else:
                        self._write(outer.answer)
                except OSError:
                    pass  # The sender has had enough.

            def _write(self, content: bytes) -> None:
                self.wfile.write(content)
                self.wfile.flush()

        self._handler = Handler
        self._server = self._listen(0)
        self.port = int(self._server.server_address[1])
        self.url = f"http://127.0.0.1:{self.port}/hook?a=b"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let nobody listen any more."""
        self._server.shutdown()
        self._server.server_close()

    def reopen(self) -> None:
        """Listen again, after close(), where it listened before."""
        self._server = self._listen(self.port)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def _listen(self, port: int) -> socketserver.ThreadingTCPServer:
        server = _Listener(("127.0.0.1", port), self._handler)
        server.daemon_threads = True
        return server


def drip(write: Callable[[bytes], None]) -> None:
    """A byte now and then: each in time, all of them never."""
    write(b"HTTP/1.1 200 OK\r\nx: ")
    for _ in range(1_000):
        write(b"x")
        time.sleep(0.05)


def silence(write: Callable[[bytes], None]) -> None:
    time.sleep(30)


def flood(write: Callable[[bytes], None]) -> None:
    """An answer without an end."""
    write(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        write(b"y" * 65_536)
