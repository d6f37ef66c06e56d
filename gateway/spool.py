"""The gateway's own record of usage events: appended before Redis gets them, kept until Postgres surely has them.

A spool is a folder of segments, files of one JSON line per event. It is claimed by the one gateway that runs on it, for
as long as that lives. The living process that writes a segment holds a lock on it; a segment without a lock was left
behind by a process that died, and is adopted by the next one that starts.
A line is one write() to the page cache: it survives the death of the process; Redis' own log survives that of the
machine.
"""

import contextlib
import fcntl
import logging
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import orjson

from billing.admission.hold import Hold
from billing.pricing.cost import Usage
from billing.usage_event import MAX_COST_NANOS, InvalidEventError, decode_event

MAX_SEGMENT_BYTES = 16 * 1024 * 1024
MAX_SEGMENT_SECONDS = 600.0
MAX_EVENT_BYTES = 1024 * 1024
MAX_ID = 2**63 - 1
MAX_DAY = 100_000  # The year 2243.
# A segment's lines that cannot be told to Redis are kept beside it under REJECTED_SUFFIX until a person has looked.
NEW_SUFFIX, OPEN_SUFFIX, DONE_SUFFIX, REJECTED_SUFFIX = ".new", ".jsonl", ".done", ".rejected"
CLAIM_FILE = "claim"  # Locked by the gateway that runs on the folder, whose process id it holds.
MAX_CLAIM_BYTES = 20
REQUEST_ID = re.compile(r"[0-9a-f]{32}")

logger = logging.getLogger(__name__)


class SpoolFullError(Exception):
    """More bytes wait for confirmation than the spool may hold, or the disk refuses writes. Nothing may be admitted."""


class SpoolUnusableError(Exception):
    """No gateway can run on this folder: another one does, or it cannot be written. The text is for the operator."""


class SpooledEvent(NamedTuple):
    """All that CLOSE needs to be told again. Amounts in nano-dollars."""

    request_id: str
    organization_id: int
    key_id: int
    cost_nanos: int
    day: int
    is_release: bool
    event: bytes

    def as_hold(self) -> Hold:
        """Return the hold to close it with: what it reserved is known to Redis, if it is known at all."""
        return Hold(self.request_id, self.organization_id, self.key_id, 0, 0, 0, b"", day=self.day)

    def used_tokens(self) -> tuple[int, int]:
        """Return the input and output tokens that CLOSE takes in place of what was reserved; (0, 0) if unreadable."""
        try:
            event = decode_event(self.event)
        except InvalidEventError:
            return 0, 0
        return Usage.of(event).prompt_tokens, event.output_tokens

    def encode(self) -> bytes:
        head = orjson.dumps(
            [self.request_id, self.organization_id, self.key_id, self.cost_nanos, self.day, self.is_release]
        )
        return head[:-1] + b"," + self.event + b"]\n"


def decode_line(line: bytes) -> SpooledEvent:
    """Return the event on one line of a segment. Raises ValueError for one that no gateway of ours wrote to its end."""
    values = orjson.loads(line)
    if not isinstance(values, list) or len(values) != 7:
        raise ValueError("not a line of a spool")
    request_id, organization_id, key_id, cost_nanos, day, is_release, event = values
    if not isinstance(request_id, str) or not REQUEST_ID.fullmatch(request_id):
        raise ValueError("the request id is not valid")
    for name, value, least, most in (
        ("organization id", organization_id, 1, MAX_ID),
        ("key id", key_id, 1, MAX_ID),
        ("cost", cost_nanos, 0, MAX_COST_NANOS),
        ("day", day, 0, MAX_DAY),
    ):
        if type(value) is not int or not least <= value <= most:
            raise ValueError(f"the {name} is not valid")
    if type(is_release) is not bool or not isinstance(event, dict):
        raise ValueError("the event is not valid, or the line does not say whether it is a release")
    return SpooledEvent(request_id, organization_id, key_id, cost_nanos, day, is_release, _encode_event(event))


def _encode_event(event: dict[str, object]) -> bytes:
    try:
        encoded = orjson.dumps(event)
    except TypeError as error:  # Nested deeper than it can be written again.
        raise ValueError(str(error)) from None
    if len(encoded) > MAX_EVENT_BYTES:
        raise ValueError(f"the event has {len(encoded)} bytes")
    return encoded


@dataclass(slots=True)
class Segment:
    path: Path
    descriptor: int
    opened_at: float = field(default_factory=time.monotonic)
    size: int = 0
    unconfirmed: set[str] = field(default_factory=set)
    is_closed: bool = False


class Spool:
    """Appends are plain blocking writes: measured at 2 us, less than handing them to a thread would cost."""

    def __init__(self, folder: Path, *, max_bytes: int, retention_seconds: float) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._retention_seconds = retention_seconds
        self._segments: dict[Path, Segment] = {}
        self._segment_of: dict[str, Segment] = {}
        self._current: Segment | None = None
        self._broken: str = ""
        self._claim: int | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise SpoolUnusableError(_unusable(folder, error)) from error

    def claim(self) -> None:
        """Keep every other gateway from this folder until close(), or this process' death. Raises SpoolUnusableError.

        Two on one folder would each count only what it wrote itself against the spool's limit.
        """
        try:
            descriptor = os.open(self._folder / CLAIM_FILE, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise SpoolUnusableError(_unusable(self._folder, error)) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, MAX_CLAIM_BYTES).decode("ascii", "replace").strip() or "of unknown id"
            os.close(descriptor)
            raise SpoolUnusableError(
                f"Another gateway (process {holder}) runs on the spool folder {self._folder}. Stop it first, or set"
                " CROSSMODEL_DATA to another folder."
            ) from None
        self._claim = descriptor
        with contextlib.suppress(OSError):  # A full disk: the lock stands all the same.
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)

    def check_room(self) -> None:
        """Raise SpoolFullError while nothing more may be admitted."""
        if self._broken:
            self._probe()
        if self._broken:
            raise SpoolFullError(self._broken)
        if self.unconfirmed_bytes > self._max_bytes:
            raise SpoolFullError(f"{self.unconfirmed_bytes} bytes of usage events wait for confirmation.")

    @property
    def unconfirmed_bytes(self) -> int:
        return sum(segment.size for segment in self._segments.values() if segment.unconfirmed)

    def append(self, event: SpooledEvent) -> bool:
        """Write the event, and say whether it is written. A disk that refuses is noted and stops admission; the caller
        goes on to tell Redis.
        """
        line = event.encode()
        try:
            segment = self._writable_segment()
            if os.write(segment.descriptor, line) != len(line):
                # The rest of it must not become the beginning of the next line.
                os.ftruncate(segment.descriptor, segment.size)
                raise OSError("a line was written in part")
        except OSError as error:
            self._broken = f"The spool cannot be written: {error}"
            logger.error("%s", self._broken)
            return False
        segment.size += len(line)
        segment.unconfirmed.add(event.request_id)
        self._segment_of[event.request_id] = segment
        return True

    def confirm(self, request_id: str) -> None:
        """Note that Postgres has the event."""
        segment = self._segment_of.pop(request_id, None)
        if segment is None:
            return
        segment.unconfirmed.discard(request_id)
        if segment.is_closed and not segment.unconfirmed:
            self._finish(segment)

    def reject(self, event: SpooledEvent) -> None:
        """Keep an event that Redis will never take where a person finds it."""
        path = self._folder / f"{os.getpid()}{REJECTED_SUFFIX}"
        try:
            path.touch(mode=0o600)
            with path.open("ab") as file:
                file.write(event.encode())
        except OSError as error:
            logger.error("The event of request %s cannot be set aside: %s", event.request_id, error)

    def adopt(self) -> Iterator[SpooledEvent]:
        """Yield the events of segments that dead processes left behind; each counts as unconfirmed from then on."""
        for path in sorted(self._folder.glob("*" + OPEN_SUFFIX)):
            if path in self._segments:
                continue
            descriptor = _lock_left_behind(path)
            if descriptor is None:
                continue
            events = list(read_segment(path))
            _set_rejected_aside(path)
            segment = Segment(path, descriptor, size=path.stat().st_size, is_closed=True)
            segment.unconfirmed = {event.request_id for event in events}
            self._segments[path] = segment
            self._segment_of.update((event.request_id, segment) for event in events)
            if not events:
                self._finish(segment)
            yield from events

    def tidy(self) -> None:
        """Close a segment that has lived long enough, and drop confirmed ones that are past the retention.

        Whatever the disk refuses is tried again later: heartbeats, which call this, must not end with it.
        """
        if self._current is not None and time.monotonic() - self._current.opened_at > MAX_SEGMENT_SECONDS:
            self._close_current()
        oldest = time.time() - self._retention_seconds
        try:
            done = list(self._folder.glob("*" + DONE_SUFFIX))
        except OSError as error:
            logger.warning("The spool folder cannot be listed now: %s", error)
            return
        for path in done:
            try:
                if path.stat().st_mtime < oldest:
                    path.unlink()
            except OSError as error:
                logger.warning("The segment %s cannot be dropped yet: %s", path.name, error)

    def close(self) -> None:
        self._close_current()
        for segment in list(self._segments.values()):
            os.close(segment.descriptor)
        self._segments.clear()
        if self._claim is not None:
            os.close(self._claim)
            self._claim = None

    def _writable_segment(self) -> Segment:
        if self._current is not None and self._current.size >= MAX_SEGMENT_BYTES:
            self._close_current()
        if self._current is None:
            path = self._folder / f"{time.time_ns()}-{os.getpid()}{OPEN_SUFFIX}"
            # Locked before it has its name: a process that starts now would take it for one left behind.
            unnamed = path.with_suffix(NEW_SUFFIX)
            descriptor = os.open(unnamed, os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_RDWR, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            unnamed.rename(path)
            self._current = self._segments[path] = Segment(path, descriptor)
        return self._current

    def _close_current(self) -> None:
        segment, self._current = self._current, None
        if segment is not None:
            segment.is_closed = True
            if not segment.unconfirmed:
                self._finish(segment)

    def _finish(self, segment: Segment) -> None:
        self._segments.pop(segment.path, None)
        try:
            segment.path.rename(segment.path.with_suffix(DONE_SUFFIX))
        except OSError as error:  # It keeps its name, and the next gateway that starts finds it settled.
            logger.warning("The segment %s cannot be marked as done: %s", segment.path.name, error)
        os.close(segment.descriptor)

    def _probe(self) -> None:
        probe = self._folder / f"probe-{os.getpid()}"
        try:
            probe.write_bytes(b"probe")
            probe.unlink()
            self._close_current()
        except OSError as error:
            self._broken = f"The spool cannot be written: {error}"
        else:
            self._broken = ""


def _unusable(folder: Path, error: OSError) -> str:
    return f"The spool folder {folder} cannot be used ({error.strerror}); set CROSSMODEL_DATA to another folder."


def _lock_left_behind(path: Path) -> int | None:
    """Return the descriptor of a segment that is ours from now on; None when another process has it, or had it."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return None  # Adopted and finished since it was listed.
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    if not path.exists():
        os.close(descriptor)
        return None
    return descriptor


def read_segment(path: Path) -> Iterator[SpooledEvent]:
    """Yield the events of a segment; what is none is passed over, and holds up no other."""
    for line, event in _read_lines(path):
        if event is not None:
            yield event
        elif line is not None:
            logger.error("A line of %s is not a usage event; it is skipped.", path.name)
        else:
            logger.warning("The last line of %s is cut short; the process that wrote it did not finish it.", path.name)


def _read_lines(path: Path) -> Iterator[tuple[bytes | None, SpooledEvent | None]]:
    """Yield each line with its event. A whole line may have none; what is cut short at the end has neither."""
    *lines, last = path.read_bytes().split(b"\n")
    for line in lines:
        if line:
            yield line, _event_on(line)
    if last:
        event = _event_on(last)
        yield (last if event is not None else None), event


def _event_on(line: bytes) -> SpooledEvent | None:
    try:
        return decode_line(line)
    except ValueError:
        return None


def _set_rejected_aside(path: Path) -> None:
    """Keep the lines that are no events in a file of their own: the segment itself is deleted after its time."""
    rejected = [line for line, event in _read_lines(path) if line is not None and event is None]
    if not rejected:
        return
    aside = path.with_suffix(REJECTED_SUFFIX)
    try:
        aside.write_bytes(b"".join(line + b"\n" for line in rejected))
        aside.chmod(0o600)
    except OSError as error:
        logger.error("%d lines of %s cannot be set aside: %s", len(rejected), path.name, error)
    else:
        logger.error("%d lines of %s are not usage events; they are in %s.", len(rejected), path.name, aside)


def read_all(folder: Path) -> Iterator[SpooledEvent]:
    """Yield every event that the spool still keeps, confirmed ones too: what a restored Postgres is replayed from."""
    for path in sorted([*folder.glob("*" + OPEN_SUFFIX), *folder.glob("*" + DONE_SUFFIX)]):
        yield from read_segment(path)
