"""Which process does a job, and whether it still lives: told from its machine alone."""

import os
import socket
from collections.abc import Mapping
from pathlib import Path

NAMESPACE = Path("/proc/self/ns/pid")
START_TIME = 21  # The place of `starttime` in /proc/PID/stat, counted from the first; see proc(5).

Process = Mapping[str, object]


def this_process() -> dict[str, object]:
    """Return what tells this process from every other, also from one that gets its number later."""
    pid = os.getpid()
    return {"place": _place(), "pid": pid, "began": _start_time(pid)}


def is_of_here(process: Process) -> bool:
    """Say whether this machine can know how it is."""
    return process.get("place") == _place()


def is_gone(process: Process) -> bool:
    """Say whether a process has ended, as far as this machine can know: of others it never says so."""
    pid = process.get("pid")
    if not is_of_here(process) or not isinstance(pid, int):
        return False
    return _start_time(pid) != process.get("began")


def _place() -> str:
    """Return the machine and, where there are several, the container: numbers of processes mean something in one."""
    try:
        namespace = str(NAMESPACE.readlink())
    except OSError:
        namespace = ""
    return f"{socket.gethostname()} {namespace}".strip()


def _start_time(pid: int) -> str:
    """Return when a process began, in ticks since the machine did; "" where there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return text.rpartition(")")[2].split()[START_TIME - 2]  # The name, which may hold anything, is the second.
