"""`python -m bench.load`: sends the same POST over many keep-alive connections, and says how it went as one JSON line.

Each connection sends its next request when its last is answered. It reads no more of an answer than where it ends.
"""

import argparse
import asyncio
import time
from collections import Counter
from pathlib import Path
from typing import cast

import orjson
import uvloop

from bench.upstream import content_length

CONNECT_AT_ONCE = 500


class Load:
    """What all connections share: how many requests are left to send, and what came back."""

    def __init__(self, total: int) -> None:
        self.left = total
        self.missing = total
        self.statuses: Counter[str] = Counter()
        self.seconds: list[float] = []
        self.first_errors: dict[str, str] = {}
        self.done = asyncio.Event()

    def note(self, status: str, seconds: float) -> None:
        self.statuses[status] += 1
        self.seconds.append(seconds)
        self.missing -= 1
        if not self.missing:
            self.done.set()


class Client(asyncio.Protocol):
    def __init__(self, load: Load, request: bytes) -> None:
        self._load = load
        self._request = request
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._sent_at = 0.0
        self._waits = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._waits:
            self._end("broken")

    def send_next(self) -> None:
        if not self._load.left or self._transport is None:
            return
        self._load.left -= 1
        self._waits = True
        self._sent_at = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._received = self._received + data if self._received else data
        head_end = self._received.find(b"\r\n\r\n")
        if head_end < 0:
            return
        head = self._received[:head_end]
        if b"chunked" in head:
            is_whole = self._received.endswith(b"0\r\n\r\n")
        else:
            is_whole = len(self._received) - head_end - 4 >= content_length(head)
        if is_whole:
            status = head[9:12].decode()
            if status != "200":
                self._load.first_errors.setdefault(status, self._received.decode(errors="replace"))
            self._received = b""
            self._end(status)

    def _end(self, status: str) -> None:
        self._waits = False
        self._load.note(status, time.perf_counter() - self._sent_at)
        self.send_next()


async def run(port: int, requests: list[bytes], *, connections: int, total: int) -> dict[str, object]:
    loop = asyncio.get_running_loop()
    load = Load(total)
    clients: list[Client] = []
    while len(clients) < connections:
        batch = [
            loop.create_connection(
                lambda number=number: Client(load, requests[number % len(requests)]),  # type: ignore[misc]
                "127.0.0.1",
                port,
            )
            for number in range(len(clients), min(len(clients) + CONNECT_AT_ONCE, connections))
        ]
        clients += [protocol for _, protocol in await asyncio.gather(*batch)]
    started = time.perf_counter()
    for client in clients:
        client.send_next()
    await load.done.wait()
    took = time.perf_counter() - started
    load.seconds.sort()
    return {
        "requests": total,
        "seconds": took,
        "per_second": total / took,
        "statuses": dict(load.statuses),
        "first_errors": load.first_errors,
        "p50_ms": load.seconds[total // 2] * 1000,
        "p99_ms": load.seconds[total * 99 // 100] * 1000,
        "cpu_seconds": time.process_time(),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--connections", type=int, required=True)
    parser.add_argument("--total", type=int, required=True)
    parser.add_argument("--requests", type=Path, required=True, help="JSON list of requests, used in turn")
    options = parser.parse_args()
    texts = orjson.loads(options.requests.read_bytes())
    result = uvloop.run(
        run(options.port, [text.encode() for text in texts], connections=options.connections, total=options.total)
    )
    print(orjson.dumps(result).decode())
