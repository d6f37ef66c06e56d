"""`python -m bench.upstream`: an upstream that costs next to nothing, so that what is measured is the gateway.

It answers every POST with the same reply: streamed when the body says so, in paced deltas; late when asked to be.
"""

import argparse
import asyncio
import time
from collections.abc import Iterator, Sequence
from typing import Any, cast

import orjson
import uvloop

READY_LINE = "upstream ready"
WORDS = "Speed is the absence of work that nobody asked for, and so it is found by taking away. "
INPUT_TOKENS, OUTPUT_TOKENS = 250, 200
STREAM_DELTAS = 40
MAX_HEAD_BYTES = 16 * 1024
STAMP = WORDS[:20].encode()  # Where a delta says when it was written, where it does.
MESSAGE: dict[str, Any] = {
    "id": "msg_upstream",
    "type": "message",
    "role": "assistant",
    "model": "upstream",
    "stop_reason": "end_turn",
    "stop_sequence": None,
}
USAGE = {
    "input_tokens": INPUT_TOKENS,
    "output_tokens": OUTPUT_TOKENS,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 0,
}


def whole_reply() -> bytes:
    content = [{"type": "text", "text": WORDS * 10}]
    body = orjson.dumps({**MESSAGE, "content": content, "usage": USAGE})
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def stream_parts(deltas: int = STREAM_DELTAS, together: int = 1) -> Iterator[bytes]:
    """Yield what is written at each tick: head and first events, some deltas together, the end. HTTP chunks."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    start = {**MESSAGE, "content": [], "stop_reason": None, "usage": {**USAGE, "output_tokens": 1}}
    block = {"type": "text", "text": ""}
    yield head + _chunk(
        _event("message_start", {"message": start})
        + _event("content_block_start", {"index": 0, "content_block": block})
    )
    delta = {"index": 0, "delta": {"type": "text_delta", "text": STAMP.decode()}}
    for _ in range(deltas // together):
        yield _chunk(_event("content_block_delta", delta) * together)
    end = {"delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": USAGE}
    last = _event("content_block_stop", {"index": 0}) + _event("message_delta", end) + _event("message_stop", {})
    yield _chunk(last) + b"0\r\n\r\n"


def _event(name: str, fields: dict[str, object]) -> bytes:
    return f"event: {name}\ndata: ".encode() + orjson.dumps({"type": name, **fields}) + b"\n\n"


def _chunk(content: bytes) -> bytes:
    return f"{len(content):x}\r\n".encode() + content + b"\r\n"


class Connection(asyncio.Protocol):
    """Requests come one at a time on a connection; each is whole once its content-length is here."""

    whole = whole_reply()

    def __init__(self, *, delay_seconds: float, pace_seconds: float, parts: Sequence[bytes], stamps: bool) -> None:
        self._parts = parts
        self._stamps = stamps
        self._delay_seconds = delay_seconds
        self._pace_seconds = pace_seconds
        self._received = bytearray()
        self._length = 0  # Of the request that is being received, once its head is here.
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None

    def data_received(self, data: bytes) -> None:
        # Nothing is copied or searched twice: a large body would hold up everybody else's replies.
        self._received += data
        if not self._length:
            head, separator, _ = bytes(self._received[:MAX_HEAD_BYTES]).partition(b"\r\n\r\n")
            self._length = len(head) + len(separator) + content_length(head) if separator else 0
        if not self._length or len(self._received) < self._length:
            return
        is_streamed = b'"stream":true' in self._received
        self._received, self._length = bytearray(), 0
        if is_streamed:
            self._stream(0)
        elif self._delay_seconds:
            asyncio.get_running_loop().call_later(self._delay_seconds, self._write, self.whole)
        else:
            self._write(self.whole)

    def _stream(self, number: int) -> None:
        part = self._parts[number]
        self._write(part.replace(STAMP, b"%020d" % time.monotonic_ns()) if self._stamps else part)
        if number + 1 < len(self._parts):
            asyncio.get_running_loop().call_later(self._pace_seconds, self._stream, number + 1)

    def _write(self, content: bytes) -> None:
        if self._transport is not None:
            self._transport.write(content)


def content_length(head: bytes) -> int:
    """Return the length that a request's or reply's head names, 0 without one."""
    _, found, rest = head.lower().partition(b"content-length:")
    return int(rest.partition(b"\r\n")[0]) if found else 0


async def serve(options: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    parts = tuple(stream_parts(options.deltas, options.together))
    server = await loop.create_server(
        lambda: Connection(delay_seconds=options.delay, pace_seconds=options.pace, parts=parts, stamps=options.stamps),
        "127.0.0.1",
        options.port,
        backlog=4096,
    )
    print(READY_LINE, flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before a whole reply")
    parser.add_argument("--pace", type=float, default=0.01, help="seconds between the deltas of a stream")
    parser.add_argument("--deltas", type=int, default=STREAM_DELTAS, help="of a stream")
    parser.add_argument("--together", type=int, default=1, help="deltas that are written at once")
    parser.add_argument("--stamps", action="store_true", help="each delta says when it was written, in ns")
    uvloop.run(serve(parser.parse_args()))
