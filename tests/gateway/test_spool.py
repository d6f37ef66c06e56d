"""The gateway's own record of usage events, on a real disk: torn lines, full disks, dead and living processes."""

import os
import resource
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway import spool as spool_module
from gateway.spool import (
    Spool,
    SpooledEvent,
    SpoolFullError,
    SpoolUnusableError,
    decode_line,
    read_all,
    read_segment,
)
from tests.support.live_stack import ROOT


def event(number: int, *, size: int = 0) -> SpooledEvent:
    raw = b'{"v":1,"text":"%b"}' % (b"x" * size)
    return SpooledEvent(f"{number:032x}", 7, 70, 1_000 + number, 20_000, bool(number % 2), raw)


def open_spool(folder: Path, *, max_bytes: int = 10**9, retention_seconds: float = 3600.0) -> Spool:
    return Spool(folder, max_bytes=max_bytes, retention_seconds=retention_seconds)


def files(folder: Path, suffix: str) -> list[Path]:
    return sorted(folder.glob("*" + suffix))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Let no file of this process grow past `size`: as on a full disk, the last write is cut short, the next fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, previous)


def test_a_line_says_all_that_close_needs_again() -> None:
    for number in range(4):
        assert decode_line(event(number, size=number).encode().rstrip(b"\n")) == event(number, size=number)


@pytest.mark.parametrize("line", [b"", b"[]", b"{}", b"[1,2,3]", b'["a",1,2,3,4,false', b"null"])
def test_a_line_that_is_none(line: bytes) -> None:
    with pytest.raises(ValueError, match=r".*"):
        decode_line(line)


def test_what_a_process_left_behind_is_adopted_once(folder: Path) -> None:
    first = open_spool(folder)
    for number in range(3):
        first.append(event(number))
    first.close()
    second, third = open_spool(folder), open_spool(folder)
    assert list(second.adopt()) == [event(number) for number in range(3)]
    assert list(third.adopt()) == []
    assert second.unconfirmed_bytes > 0
    for number in range(3):
        second.confirm(f"{number:032x}")
    assert second.unconfirmed_bytes == 0
    assert (files(folder, ".jsonl"), len(files(folder, ".done"))) == ([], 1)
    assert list(read_all(folder)) == [event(number) for number in range(3)]


def test_what_a_living_process_writes_is_left_to_it(folder: Path) -> None:
    alive = open_spool(folder)
    alive.append(event(1))
    assert list(open_spool(folder).adopt()) == []
    alive.append(event(2))
    assert list(read_all(folder)) == [event(1), event(2)]


def test_a_process_that_was_killed_leaves_its_segment(folder: Path) -> None:
    program = textwrap.dedent(
        """
        import os, signal, sys
        from pathlib import Path
        from gateway.spool import Spool, SpooledEvent
        spool = Spool(Path(sys.argv[1]), max_bytes=10**9, retention_seconds=3600.0)
        for number in range(100):
            spool.append(SpooledEvent(f"{number:032x}", 7, 70, 5, 20_000, False, b"{}"))
        os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    done = subprocess.run([sys.executable, "-c", program, str(folder)], cwd=ROOT, check=False, timeout=20)
    assert done.returncode == -signal.SIGKILL
    assert [each.request_id for each in open_spool(folder).adopt()] == [f"{number:032x}" for number in range(100)]


def test_a_folder_is_of_one_gateway_until_it_ends(folder: Path) -> None:
    first, second = open_spool(folder), open_spool(folder)
    first.claim()
    with pytest.raises(SpoolUnusableError) as refused:
        second.claim()
    assert str(refused.value) == (
        f"Another gateway (process {os.getpid()}) runs on the spool folder {folder}. Stop it first, or set"
        " CROSSMODEL_DATA to another folder."
    )
    first.close()
    second.claim()


def test_a_gateway_that_was_killed_claims_nothing(folder: Path) -> None:
    program = (
        "import os, signal, sys; from pathlib import Path; from gateway.spool import Spool;"
        "Spool(Path(sys.argv[1]), max_bytes=1, retention_seconds=1.0).claim(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(folder)], cwd=ROOT, check=False, timeout=20)
    assert done.returncode == -signal.SIGKILL
    open_spool(folder).claim()
    assert (folder / "claim").read_text() == f"{os.getpid()}\n"


def test_a_folder_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SpoolUnusableError, match=r"/file/spool cannot be used \(Not a directory\)"):
        open_spool(tmp_path / "file" / "spool")


def test_a_torn_last_line_is_passed_over(folder: Path) -> None:
    first = open_spool(folder)
    first.append(event(1))
    first.append(event(2))
    first.close()
    [path] = files(folder, ".jsonl")
    path.write_bytes(path.read_bytes()[:-10])
    assert list(open_spool(folder).adopt()) == [event(1)]


def test_damage_in_the_middle_costs_one_line(folder: Path) -> None:
    first = open_spool(folder)
    for number in range(3):
        first.append(event(number))
    first.close()
    [path] = files(folder, ".jsonl")
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([lines[0], b"\x00\xff" * 20, lines[2], b""]))
    assert list(read_segment(path)) == [event(0), event(2)]


POISON = (
    b'[["a"],7,70,5,20000,false,{}]',
    b'["%032x",7,70,5,20000,false,"text"]' % 1,
    b'["%032x",7,70,5,20000,false,[]]' % 1,
    b'["%032x",7,70,-5,20000,false,{}]' % 1,
    b'["%032x",7,70,5.0,20000,false,{}]' % 1,
    b'["%032x",7,70,1e300,20000,false,{}]' % 1,
    b'["%032x",7,70,999999999999999999,20000,false,{}]' % 1,
    b'["%032x","7",70,5,20000,false,{}]' % 1,
    b'["%032x",true,70,5,20000,false,{}]' % 1,
    b'["%032x",0,70,5,20000,false,{}]' % 1,
    b'["%032x",7,null,5,20000,false,{}]' % 1,
    b'["%032x",7,70,5,-1,false,{}]' % 1,
    b'["%032x",7,70,5,20000,0,{}]' % 1,
    b'["not an id",7,70,5,20000,false,{}]',
    b'["%032x",7,70,5,20000,false,%b0%b]' % (1, b'{"a":' * 500, b"}" * 500),
    b'["%032x",7,70,5,20000,false,{"a":"%b"}]' % (1, b"x" * 1024 * 1024),
    b"[" * 2000,
    b'{"request_id":1}',
    b"null",
    b"17",
)


def test_lines_of_the_wrong_kind_are_set_aside_under_a_name(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder.mkdir()
    lines = [event(0).encode().rstrip(), *POISON, event(2).encode().rstrip(), b""]
    (folder / "1-1.jsonl").write_bytes(b"\n".join(lines))
    heir = open_spool(folder)
    assert list(heir.adopt()) == [event(0), event(2)]
    assert (folder / "1-1.rejected").read_bytes().splitlines() == list(POISON)
    assert f"{len(POISON)} lines of 1-1.jsonl are not usage events; they are in" in caplog.text
    heir.close()
    again = open_spool(folder)  # As often as gateways start: the same lines, once.
    assert list(again.adopt()) == [event(0), event(2)]
    assert (folder / "1-1.rejected").read_bytes().splitlines() == list(POISON)
    for number in (0, 2):
        again.confirm(f"{number:032x}")
    assert (files(folder, ".jsonl"), [path.name for path in files(folder, ".done")]) == ([], ["1-1.done"])
    assert list(open_spool(folder).adopt()) == []


def test_a_disk_that_fills_up_stops_admission_and_tears_no_line(folder: Path) -> None:
    line_bytes = len(event(1, size=500).encode())
    spool = open_spool(folder)
    with files_of_at_most(2 * line_bytes + 100):
        for number in range(2):
            spool.append(event(number, size=500))
            spool.check_room()
        spool.append(event(2, size=500))  # Cut short by the disk.
        spool.append(event(3, size=10))  # Would fit into what is left.
        [path] = files(folder, ".jsonl")
        assert [each.request_id for each in read_segment(path)][:2] == [event(0).request_id, event(1).request_id]
    # Nothing of the line that was cut short stands before the next one.
    assert all(each in (event(0, size=500), event(1, size=500), event(3, size=10)) for each in read_segment(path))
    assert event(3, size=10) in list(read_segment(path))


def test_a_disk_that_refuses_stops_admission_until_it_takes_again(folder: Path) -> None:
    spool = open_spool(folder)
    spool.append(event(1))
    spool.check_room()
    with files_of_at_most(1):
        spool.append(event(2))
        with pytest.raises(SpoolFullError, match="cannot be written"):
            spool.check_room()
        with pytest.raises(SpoolFullError, match="cannot be written"):
            spool.check_room()
    spool.check_room()
    spool.append(event(3))
    assert event(3) in list(read_all(folder))


def test_too_much_that_waits_stops_admission_until_it_is_confirmed(folder: Path) -> None:
    spool = open_spool(folder, max_bytes=2_000)
    for number in range(4):
        spool.append(event(number, size=600))
    with pytest.raises(SpoolFullError, match="wait for confirmation"):
        spool.check_room()
    for number in range(4):
        spool.confirm(f"{number:032x}")
    spool.check_room()


def test_segments_end_by_size_and_are_dropped_after_their_retention(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_module, "MAX_SEGMENT_BYTES", 1_000)
    spool = open_spool(folder, retention_seconds=100.0)
    for number in range(6):
        spool.append(event(number, size=500))
    assert len(files(folder, ".jsonl")) == 3
    for number in range(4):
        spool.confirm(f"{number:032x}")
    assert (len(files(folder, ".jsonl")), len(files(folder, ".done"))) == (1, 2)
    old, young = files(folder, ".done")
    os.utime(old, (time.time() - 101, time.time() - 101))
    spool.tidy()
    assert files(folder, ".done") == [young]
    # What nobody has confirmed is kept however old it is.
    [unconfirmed] = files(folder, ".jsonl")
    os.utime(unconfirmed, (0, 0))
    spool.tidy()
    assert unconfirmed.exists()


def test_a_segment_that_lived_long_enough_is_closed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "MAX_SEGMENT_SECONDS", 0.0)
    spool = open_spool(folder)
    spool.append(event(1))
    spool.confirm(event(1).request_id)
    spool.tidy()
    assert len(files(folder, ".done")) == 1
    spool.append(event(2))
    assert len(files(folder, ".jsonl")) == 1


def test_a_disk_that_refuses_more_than_writes_ends_no_heartbeat(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On one that has become read-only nothing can be dropped or renamed; a folder that is away stands for it here."""
    monkeypatch.setattr(spool_module, "MAX_SEGMENT_SECONDS", 0.0)
    spool = open_spool(folder, retention_seconds=0.0)
    spool.append(event(1))
    spool.append(event(2))
    spool.confirm(event(1).request_id)
    (folder / "1-1.done").mkdir()  # What is no file cannot be unlinked.
    os.utime(folder / "1-1.done", (0, 0))
    spool.tidy()
    away = folder.rename(folder.with_name("away"))
    spool.tidy()
    spool.confirm(event(2).request_id)
    assert spool.unconfirmed_bytes == 0
    away.rename(folder)
    assert list(open_spool(folder).adopt()) == [event(1), event(2)], "whoever starts next asks Postgres for them"


def test_others_cannot_read_it(folder: Path) -> None:
    spool = open_spool(folder)
    spool.append(event(1))
    assert folder.stat().st_mode & 0o777 == 0o700
    assert files(folder, ".jsonl")[0].stat().st_mode & 0o777 == 0o600


def test_confirming_what_is_unknown_changes_nothing(folder: Path) -> None:
    spool = open_spool(folder)
    spool.append(event(1))
    spool.confirm("f" * 32)
    assert spool.unconfirmed_bytes == len(event(1).encode())
