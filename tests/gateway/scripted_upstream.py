"""An upstream that sends the very bytes that a test wrote down: what no provider, and no sandbox, would send."""

import json
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

READ_BYTES = 64 * 1024
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\n%bconnection: close\r\n\r\n"
STREAM_HEAD = HEAD % (b"text/event-stream", b"")

# The events of a whole stream.
MESSAGE: dict[str, Any] = {
    "id": "msg_theirs",
    "type": "message",
    "role": "assistant",
    "model": "theirs",
    "content": [],
    "stop_reason": None,
    "stop_sequence": None,
    "usage": {"input_tokens": 7, "output_tokens": 1},
}
START = ("message_start", json.dumps({"type": "message_start", "message": MESSAGE}).encode())
BLOCK = ("content_block_start", b'{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}')
DELTA = ("content_block_delta", b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hi"}}')
STOP_BLOCK = ("content_block_stop", b'{"type":"content_block_stop","index":0}')
END = (
    "message_delta",
    b'{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":5}}',
)
STOP = ("message_stop", b'{"type":"message_stop"}')
COMPLETE = (START, BLOCK, DELTA, STOP_BLOCK, END, STOP)


def whole(body: bytes, *, status: str = "200 OK", headers: bytes = b"") -> bytes:
    """Return an answer with a JSON body."""
    length = b"content-length: %d\r\n" % len(body)
    return (HEAD % (b"application/json", headers + length)).replace(b"200 OK", status.encode(), 1) + body


def streamed(*events: tuple[str, bytes]) -> bytes:
    """Return an answer with these events."""
    return STREAM_HEAD + b"".join(b"event: %b\ndata: %b\n\n" % (name.encode(), data) for name, data in events)


class ScriptedUpstream:
    """Answers each request with `script`, then closes. Requests are kept as they came.

    A script is bytes, or pieces of them with seconds of silence in between.
    """

    def __init__(self) -> None:
        self.script: bytes | Sequence[bytes | float] = b""
        self.requests: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with connection, suppress(OSError):
                    connection.settimeout(5)
                    self.requests.append(self._read_request(connection))
                    self._perform(connection)

    def _perform(self, connection: socket.socket) -> None:
        for part in [self.script] if isinstance(self.script, bytes) else self.script:
            if isinstance(part, bytes):
                connection.sendall(part)
            else:
                time.sleep(part)

    @staticmethod
    def _read_request(connection: socket.socket) -> bytes:
        received = b""
        while b"\r\n\r\n" not in received:
            received += connection.recv(READ_BYTES)
        head, _, body = received.partition(b"\r\n\r\n")
        lines = [line.partition(b":") for line in head.lower().split(b"\r\n")]
        length = sum(int(value) for name, _, value in lines if name == b"content-length")
        while len(body) < length:
            body += connection.recv(READ_BYTES)
        return head + b"\r\n\r\n" + body

    def close(self) -> None:
        # Wakes the thread out of accept().
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)


@contextmanager
def scripted_upstream() -> Iterator[ScriptedUpstream]:
    upstream = ScriptedUpstream()
    try:
        yield upstream
    finally:
        upstream.close()
