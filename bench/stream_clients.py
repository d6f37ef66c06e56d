"""`python -m bench.stream_clients`: reads many streams at once, and says as one JSON line how late their events came.

With `--probe` it also asks for a path that does not exist, again and again over a connection of its own: how long the
answer takes is how long anybody waits for a turn.
"""

import argparse
import asyncio
import re
import time
from contextlib import suppress
from pathlib import Path
from typing import cast

import orjson
import uvloop

STAMP = re.compile(rb"\d{20}")
OPENED_AT_ONCE = 50
OPENING_PAUSE_SECONDS = 0.05
PROBE = b"GET /v1/nothing HTTP/1.1\r\nhost: localhost\r\n\r\n"
PROBE_PAUSE_SECONDS = 0.02


class Reader(asyncio.Protocol):
    def __init__(self, request: bytes, delays: list[int]) -> None:
        self._request = request
        self._delays = delays
        self._tail = b""
        self.done = asyncio.get_running_loop().create_future()
        self.bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        self.bytes += len(data)
        self._delays += [now - int(stamp) for stamp in STAMP.findall(data)]
        self._tail = (self._tail + data)[-5:]
        if self._tail == b"0\r\n\r\n" and not self.done.done():
            self.done.set_result(None)
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)


async def run(port: int, requests: list[bytes], *, streams: int, probe: bool) -> dict[str, object]:
    loop = asyncio.get_running_loop()
    delays: list[int] = []
    waits: list[float] = []
    prober = loop.create_task(_probe(port, waits)) if probe else None
    readers: list[Reader] = []
    started = time.perf_counter()
    for number in range(streams):
        request = requests[number % len(requests)]
        _, reader = await loop.create_connection(lambda request=request: Reader(request, delays), "127.0.0.1", port)  # type: ignore[misc]
        readers.append(reader)
        if number % OPENED_AT_ONCE == OPENED_AT_ONCE - 1:
            await asyncio.sleep(OPENING_PAUSE_SECONDS)
    await asyncio.gather(*(reader.done for reader in readers))
    took = time.perf_counter() - started
    if prober is not None:
        prober.cancel()
        with suppress(asyncio.CancelledError):
            await prober
    return {
        "seconds": took,
        "events": len(delays),
        "bytes": sum(reader.bytes for reader in readers),
        "delay_ms": [value / 1e6 for value in _percentiles(sorted(delays))],
        "probe_ms": [value * 1000 for value in _percentiles(sorted(waits))],
    }


def _percentiles(values: "list[int] | list[float]") -> list[float]:
    """Return p50, p99 and the largest."""
    return [values[len(values) // 2], values[len(values) * 99 // 100], values[-1]] if values else []


async def _probe(port: int, waits: list[float]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while True:
        started = time.perf_counter()
        writer.write(PROBE)
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)
        await reader.readexactly(int(length[1]) if length else 0)
        waits.append(time.perf_counter() - started)
        await asyncio.sleep(PROBE_PAUSE_SECONDS)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--streams", type=int, required=True)
    parser.add_argument("--requests", type=Path, required=True, help="JSON list of requests, used in turn")
    parser.add_argument("--probe", action="store_true")
    options = parser.parse_args()
    texts = [text.encode() for text in orjson.loads(options.requests.read_bytes())]
    print(orjson.dumps(uvloop.run(run(options.port, texts, streams=options.streams, probe=options.probe))).decode())
