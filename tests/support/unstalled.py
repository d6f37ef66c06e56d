"""Measures how long something takes, without the time in which tasks waited for a processor that others used."""

import re
import time
from pathlib import Path

PRESSURE = Path("/proc/pressure/cpu")


class UnstalledTime:
    """Runs from its making. Where the kernel keeps no account of stalls, it is the time of a clock."""

    def __init__(self) -> None:
        self._began = _now()

    @property
    def seconds(self) -> float:
        return _now() - self._began


def _now() -> float:
    try:
        pressure = PRESSURE.read_text()
    except OSError:
        return time.monotonic()
    [stalled_microseconds] = re.findall(r"^some .* total=(\d+)$", pressure, re.MULTILINE)
    return time.monotonic() - int(stalled_microseconds) / 1e6
