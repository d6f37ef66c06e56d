"""A sandbox in a process of its own, which a test holds on to."""

import json
import os
import signal
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sandbox.journal import JournalRecord, read_journal
from sandbox.server import READY_PREFIX

START_SECONDS = 15.0
STOP_SECONDS = 5.0
CONTROL_SECONDS = 5.0
ROOT = Path(__file__).resolve().parent.parent.parent


class SandboxServer:
    """A sandbox in a process of its own; it ends with this one, even when this one is killed.

    with SandboxServer(journal=path) as sandbox:
        sandbox.control("status=529", times=2)
        ... requests to sandbox.url ...
        records = sandbox.journal()
    """

    def __init__(
        self,
        *,
        journal: Path | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        fsync: bool = True,
        fast: bool = False,
    ) -> None:
        self._journal_path = journal
        self._host = host
        self._port = port
        self._fsync = fsync
        self._fast = fast
        self._process: subprocess.Popen[str] | None = None
        self.url = ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        return self._running().pid

    def start(self) -> None:
        """Start it and wait until it serves. After a stop or kill it comes back at the same address, with the same
        journal. Raises RuntimeError with its own words if it does not start."""
        command = [
            sys.executable,
            "-m",
            "sandbox",
            "--host",
            self._host,
            "--port",
            str(self._port),
            "--stop-with-stdin",
        ]
        if self._journal_path is not None:
            command += ["--journal", str(self._journal_path)]
        if not self._fsync:
            command.append("--no-fsync")
        if self._fast:
            command.append("--fast")
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        # Its errors go where ours go, so that a test's output shows them.
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        self._process = process
        assert process.stdout is not None
        timer = threading.Timer(START_SECONDS, process.kill)
        timer.start()
        line = process.stdout.readline()
        timer.cancel()
        if not line.startswith(READY_PREFIX):
            process.kill()
            process.wait()
            raise RuntimeError(f"the sandbox did not start: {line.strip() or 'it said nothing'}")
        self.url = line.removeprefix(READY_PREFIX).split()[0]
        self._port = int(self.url.rpartition(":")[2])

    def stop(self) -> None:
        """End it in order: running responses are cut off, and journaled so."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it with kill -9."""
        self._end(signal.SIGKILL)

    def control(self, directives: str, *, times: int | None = None, model: str | None = None, every: int = 1) -> None:
        """Set a behaviour for the next `times` requests, or until cleared."""
        self._post_control({"directives": directives, "times": times, "model": model, "every": every})

    def clear(self) -> None:
        """Forget every behaviour."""
        self._post_control({"clear": True})

    def journal(self) -> list[JournalRecord]:
        """What it served so far."""
        if self._journal_path is None:
            raise RuntimeError("this sandbox keeps no journal")
        return read_journal(self._journal_path)

    def _running(self) -> "subprocess.Popen[str]":
        if self._process is None:
            raise RuntimeError("the sandbox is not running")
        return self._process

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()

    def _post_control(self, fields: dict[str, Any]) -> None:
        request = urllib.request.Request(  # noqa: S310  The address is our own sandbox's.
            f"{self.url}/sandbox/control", json.dumps(fields).encode(), {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=CONTROL_SECONDS) as response:  # noqa: S310
            response.read()
