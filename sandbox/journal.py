"""The sandbox's journal: what was asked of it, and what it really served. The oracle of the fault tests.

Each attempt writes a `started` line before the first byte of its response, and an ended line when the outcome is known.
A later line of the same `n` replaces what the earlier one said. The line that says `complete` is on disk before the
final bytes of the response are sent: what a client has seen whole, the journal knows.
"""

import asyncio
import contextlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

STARTED = "started"
COMPLETE = "complete"
ABORTED_BY_CLIENT = "aborted_by_client"
FAILED_PREFIX = "failed:"

BUFFER_SECONDS = 0.2
"""How long a line may wait in memory when the journal is buffered (for benchmarks)."""
TAIL_BYTES = 1024 * 1024
"""How much of an existing journal is read to go on with its numbering."""


@dataclass(frozen=True, slots=True)
class JournalRecord:
    """One attempt: its started and ended lines merged."""

    n: int
    time: float
    protocol: str
    request_id: str | None
    """The gateway's, as it came in `x-crossmodel-request-id`."""
    model: str | None
    streamed: bool
    key_last4: str | None
    directives: str
    delivered: str
    """started, complete, aborted_by_client, or failed:<why>."""
    status: int | None
    ended_time: float | None
    usage: dict[str, int] | None
    """The last usage that went out, by disjoint components; None if none did."""
    bytes: int
    """Bytes of the body that were written to the connection."""
    text_chars: int
    deltas: int

    @property
    def is_complete(self) -> bool:
        return self.delivered == COMPLETE


def read_journal(path: Path | str) -> list[JournalRecord]:
    """Every attempt in order of `n`. A last line that a killed sandbox left half written is ignored."""
    fields_by_n: dict[int, dict[str, Any]] = {}
    if Path(path).exists():
        for fields in _whole_lines(Path(path).read_bytes()):
            fields_by_n.setdefault(fields["n"], {}).update(fields)
    return [
        JournalRecord(
            **{"ended_time": None, "status": None, "usage": None, "bytes": 0, "text_chars": 0, "deltas": 0} | fields
        )
        for _, fields in sorted(fields_by_n.items())
    ]


def _whole_lines(content: bytes) -> Iterator[dict[str, Any]]:
    """Only a line that a kill cut short is not JSON: the last one, or one that a restart then ended."""
    for line in content.splitlines():
        with contextlib.suppress(orjson.JSONDecodeError):
            yield orjson.loads(line)


class Journal:
    """Appends lines; `synced()` returns once everything appended before it is on disk, one fsync for all who wait."""

    def __init__(self, path: Path | None, *, fsync: bool = True, buffered: bool = False) -> None:
        self._descriptor = None if path is None else _open_to_append(path)
        self.last_n = 0 if path is None else _last_n(path)
        self._fsync = fsync and not buffered and path is not None
        self._buffered = buffered
        self._buffer: list[bytes] = []
        self._executor = ThreadPoolExecutor(1, "journal") if self._fsync else None
        self._waiting: list[asyncio.Future[None]] = []
        self._syncing = False

    @property
    def is_kept(self) -> bool:
        return self._descriptor is not None

    def next_n(self) -> int:
        self.last_n += 1
        return self.last_n

    def append(self, fields: dict[str, Any]) -> None:
        """Hand one line to the kernel, or to the buffer."""
        if self._descriptor is None:
            return
        line = orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE)
        if not self._buffered:
            os.write(self._descriptor, line)
            return
        if not self._buffer:
            asyncio.get_running_loop().call_later(BUFFER_SECONDS, self.flush)
        self._buffer.append(line)

    def flush(self) -> None:
        if self._buffer and self._descriptor is not None:
            os.write(self._descriptor, b"".join(self._buffer))
            self._buffer.clear()

    @property
    def must_sync(self) -> bool:
        """Whether `synced()` would wait at all."""
        return self._fsync

    async def synced(self) -> None:
        """Wait until all lines so far are on disk."""
        if not self._fsync:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        if not self._syncing:
            self._start_sync()
        await waiter

    def _start_sync(self) -> None:
        assert self._executor is not None  # noqa: S101  Only a syncing journal comes here.
        assert self._descriptor is not None  # noqa: S101
        self._syncing = True
        served, self._waiting = self._waiting, []
        sync = asyncio.get_running_loop().run_in_executor(self._executor, os.fdatasync, self._descriptor)
        sync.add_done_callback(lambda done: self._finish_sync(served, done))

    def _finish_sync(self, served: list["asyncio.Future[None]"], done: "asyncio.Future[None]") -> None:
        error = done.exception()
        for waiter in served:
            if waiter.done():
                continue
            if error is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(error)
        self._syncing = False
        if self._waiting:
            self._start_sync()

    def close(self) -> None:
        self.flush()
        if self._executor is not None:
            self._executor.shutdown()
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _open_to_append(path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        if size:
            file.seek(size - 1)
            if file.read(1) != b"\n":
                os.write(descriptor, b"\n")
    return descriptor


def _last_n(path: Path) -> int:
    """The highest number of an earlier run. Lines of one time are close together, so the end of the file is enough."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - TAIL_BYTES))
        tail = file.read()
    if size > TAIL_BYTES:
        tail = tail.partition(b"\n")[2]
    return max((fields["n"] for fields in _whole_lines(tail)), default=0)
