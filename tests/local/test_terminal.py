"""A local run started in a terminal ends when the terminal is closed, however `make` was started there."""

import contextlib
import os
import select
import signal
import sys
import time
from pathlib import Path

import pytest

from crossmodel_site.embedded import find_free_port
from tests.support.local_run import READY_LINE, ROOT, clean_environment, descendants, wait_until_gone

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

START_SECONDS = 90.0
STOP_SECONDS = 30.0
# Waits for its child and does not pass SIGHUP on to it, as make does not.
PARENT = """
import contextlib, signal, subprocess, sys
signal.signal(signal.SIGHUP, lambda *_: None)
with contextlib.suppress(KeyboardInterrupt):
    subprocess.call(sys.argv[1:])
"""


@pytest.mark.parametrize("way", ["Ctrl-C", "closed"])
def test_ends_everything(tmp_path: Path, way: str) -> None:
    environment = clean_environment({"CROSSMODEL_DATA": str(tmp_path / "var"), "PORT": str(find_free_port())})
    pid, terminal = os.forkpty()
    if pid == 0:
        os.chdir(ROOT)
        command = [sys.executable, "-c", PARENT, sys.executable, "-m", "crossmodel_site.local"]
        os.execve(sys.executable, command, environment)  # noqa: S606
    shown = b""
    try:
        deadline = time.monotonic() + START_SECONDS
        while READY_LINE.encode() not in shown and time.monotonic() < deadline:
            shown += read_terminal(terminal)
        started = descendants(pid)
        assert len(started) >= 7, shown.decode()
        if way == "Ctrl-C":
            os.write(terminal, b"\x03")
            deadline = time.monotonic() + STOP_SECONDS
            while wait_until_gone(started, seconds=0.1) and time.monotonic() < deadline:
                read_terminal(terminal)
        else:
            os.close(terminal)
        assert wait_until_gone(started, seconds=STOP_SECONDS) == set()
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def read_terminal(terminal: int) -> bytes:
    """Return what was shown since the last call; a terminal that nobody writes to any more shows nothing."""
    if select.select([terminal], [], [], 0.2)[0]:
        with contextlib.suppress(OSError):
            return os.read(terminal, 65536)
    return b""
