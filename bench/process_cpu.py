"""CPU time and memory of running processes, from /proc."""

import os
from collections.abc import Iterable
from pathlib import Path

NANOS_PER_MS = 1_000_000
PROC = Path("/proc")
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def cpu_ms(pid: int, *, with_children: bool = False) -> float:
    """Return the CPU time, user and system, that all living threads of a process have used, in milliseconds.

    From schedstat, which counts nanoseconds; a thread that has ended is no longer in it. Children count with all that
    they have used, also those that have ended.
    """
    pids = {pid} | (descendants(pid) if with_children else set())
    living = sum(_thread_nanos(path) for each in pids for path in PROC.glob(f"{each}/task/*/schedstat"))
    return living / NANOS_PER_MS + (sum(_ended_children_ms(each) for each in pids) if with_children else 0.0)


def pss_mib(pids: Iterable[int]) -> float:
    """Return the memory of these processes in MiB; pages that several share are counted once among them."""
    return sum(_pss_kib(pid) for pid in pids) / 1024


def descendants(pid: int) -> set[int]:
    """Return the living processes that this one started, directly or not."""
    parents: dict[int, int] = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if fields[0] != "Z":
                parents[int(entry.name)] = int(fields[1])
    found: set[int] = set()
    newest = {pid}
    while newest:
        newest = {child for child, parent in parents.items() if parent in newest} - found
        found |= newest
    return found


def _ended_children_ms(pid: int) -> float:
    try:
        fields = (PROC / str(pid) / "stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return (int(fields[13]) + int(fields[14])) * 1000 / TICKS_PER_SECOND  # cutime and cstime


def _thread_nanos(schedstat: Path) -> int:
    try:
        return int(schedstat.read_text().split()[0])
    except OSError:
        return 0  # It ended between the listing and now.


def _pss_kib(pid: int) -> int:
    try:
        lines = (PROC / str(pid) / "smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
