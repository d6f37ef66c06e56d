"""A `make run` of a test's own: in a folder of its own, on a port of its own, ended with the test."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from crossmodel_site.embedded import find_free_port
from crossmodel_site.environment import read_env_file

ROOT = Path(__file__).resolve().parent.parent.parent
READY_LINE = "Ctrl-C stops everything."
READY_SECONDS = 90.0
STOP_SECONDS = 60.0


class LocalRun:
    """Runs the launcher as a person would: nothing of the tests' environment reaches it.

    with LocalRun(tmp_path / "var") as run:
        run.demo["CROSSMODEL_API_KEY"], run.port, run.processes() ...
    """

    def __init__(self, folder: Path, *, variables: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.port = find_free_port()
        self.environment = clean_environment(
            {"CROSSMODEL_DATA": str(folder), "PORT": str(self.port), **(variables or {})}
        )
        self.lines: list[str] = []
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> Self:
        """Return once the screen is complete. Raises RuntimeError with what was printed when it never is."""
        self.lines.clear()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "crossmodel_site.local"],
            cwd=ROOT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        threading.Thread(target=self._read_lines, args=(self._process,), daemon=True).start()
        deadline = time.monotonic() + READY_SECONDS
        while not any(line.startswith(READY_LINE) for line in self.lines):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("The local run did not start:\n" + self.text)
            time.sleep(0.05)
        return self

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def demo(self) -> dict[str, str]:
        return read_env_file(self.folder / "demo.env")

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def processes(self) -> dict[str, int]:
        """Return the ids of its processes by what they are: gateway, pages, worker and so on."""
        words = {
            "gateway": "--timeout-graceful-shutdown",
            "pages": "--uds",
            "worker": "crossmodel_site worker",
            "beat": "crossmodel_site beat",
            "sandbox": "-m sandbox --",
            "Postgres": "/postgres -D",
            "Redis": "redis-server",
        }
        children = {pid: _command(pid) for pid in descendants(self.pid)}
        return {name: pid for name, word in words.items() for pid, command in children.items() if word in command}

    def manage(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a management command as in a second terminal: only the data folder tells it where the servers are."""
        return subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=ROOT,
            env=clean_environment({"CROSSMODEL_DATA": str(self.folder)}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def stop(self, number: int = signal.SIGINT) -> int:
        """Send the signal and return the exit code."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(number)
        return self._process.wait(STOP_SECONDS)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _read_lines(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self.lines.append(line.rstrip("\n"))


def start_and_fail(folder: Path, variables: dict[str, str]) -> str:
    """Run the launcher with settings that cannot work. Returns the one line that it complained with."""
    before = processes_in(folder)
    answer = subprocess.run(
        [sys.executable, "-m", "crossmodel_site.local"],
        cwd=ROOT,
        env=clean_environment({"CROSSMODEL_DATA": str(folder), "PORT": str(find_free_port()), **variables}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert answer.returncode == 1, answer.stdout + answer.stderr
    # The Postgres of a run that goes on starts and ends processes of its own as it likes.
    assert {pid for pid in processes_in(folder) - before if parent_of(pid) not in {0, *before}} == set()
    complaint, end = answer.stderr.split("\n", 1)
    assert end == ""
    return complaint


def processes_in(folder: Path) -> set[int]:
    """Return the processes that work in the folder, as its servers do."""
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "cwd").readlink().is_relative_to(folder):
                found.add(int(entry.name))
        except OSError:
            continue
    return found


def clean_environment(variables: dict[str, str]) -> dict[str, str]:
    """Return an environment that names no server, no provider's key and no setting but the given."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "SSL_CERT_FILE") if name in os.environ}
    return {**kept, **variables}


def descendants(pid: int) -> set[int]:
    """Return the running processes that this one started, directly or not."""
    parents = {
        int(entry.name): parent
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and (parent := parent_of(int(entry.name)))
    }
    found: set[int] = set()
    newest = {pid}
    while newest:
        newest = {child for child, parent in parents.items() if parent in newest} - found
        found |= newest
    return found


def parent_of(pid: int) -> int:
    """Return the process that started a running one; 0 when it runs no more."""
    try:
        state, parent, *_ = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0
    return 0 if state == "Z" else int(parent)


def wait_until_gone(pids: set[int], *, seconds: float = 20.0) -> set[int]:
    """Return those of the processes that still run after so long; empty as soon as none does."""
    deadline = time.monotonic() + seconds
    while (left := {pid for pid in pids if _is_running(pid)}) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def _is_running(pid: int) -> bool:
    try:
        return not re.search(r"^State:\s+Z", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    except OSError:
        return False


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""
