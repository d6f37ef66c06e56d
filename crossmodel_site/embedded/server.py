"""What the embedded Postgres and Redis have in common: a folder, a port, a password, a process and its log."""

import secrets
import signal
import subprocess
import time
from pathlib import Path

from crossmodel_site.embedded.errors import ServerError
from crossmodel_site.embedded.ports import find_free_port, port_is_taken

HOST = "127.0.0.1"
START_TIMEOUT_SECONDS = 60.0
STOP_TIMEOUT_SECONDS = 20.0
POLL_SECONDS = 0.02
PASSWORD_BYTES = 24
MAX_LOG_BYTES = 4 * 1024 * 1024
LOG_LINES_SHOWN = 3


class Server:
    """A server process on a loopback port. Its data, password and log live in `folder` and outlive the process.

    `durable=False` gives up what a power failure or kill -9 would lose, for tests that want speed.
    """

    name = "server"
    stop_signal = signal.SIGTERM
    folder_mode = 0o700

    def __init__(self, folder: Path, *, port: int | None = None, durable: bool = True) -> None:
        self.folder = folder.resolve()
        self.port = port or find_free_port()
        self.durable = durable
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def log_path(self) -> Path:
        return self.folder / f"{self.name.lower()}.log"

    @property
    def url(self) -> str:
        """Where clients reach it, password included. Known before it starts, the same after every restart."""
        raise NotImplementedError

    @property
    def pid(self) -> int:
        """The process id of the running server. Raises ServerError when it was not started."""
        if self.process is None:
            raise ServerError(f"{self.name} was not started.")
        return self.process.pid

    def start(self) -> None:
        """Return once the server answers; its data is made at the first start. Raises ServerError.

        Whatever a kill -9 left behind does not hinder it.
        """
        if self.is_running():
            raise ServerError(f"{self.name} in {self.folder} is running already.")
        self._make_folder()
        self.prepare()
        if port_is_taken(self.port):
            raise ServerError(f"{self.name} cannot listen: port {self.port} is taken by another program.")
        self._trim_log()
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        with self.log_path.open("ab") as log:
            self.process = self.spawn(log.fileno())
        while not self.answers():
            if self.process.poll() is not None:
                raise ServerError(f"{self.name} ended with code {self.process.returncode}: {self._log_tail()}")
            if time.monotonic() > deadline:
                self.kill()
                raise ServerError(
                    f"{self.name} does not answer after {START_TIMEOUT_SECONDS:.0f} s: {self._log_tail()}"
                )
            time.sleep(POLL_SECONDS)

    def stop(self) -> None:
        """End the server in order, so that it loses nothing; kill it when it takes too long. Once ended, do nothing."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(self.stop_signal)
        try:
            self.process.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End the server with kill -9, as a crash would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def prepare(self) -> None:
        """Make data and configuration where they are missing."""
        raise NotImplementedError

    def spawn(self, log: int) -> "subprocess.Popen[bytes]":
        raise NotImplementedError

    def answers(self) -> bool:
        raise NotImplementedError

    def read_password(self) -> str:
        """Return the server's password, made at the first call and kept in its folder, readable by us only."""
        path = self.folder / "password"
        if not path.exists():
            self._make_folder()
            path.touch(mode=0o600)
            path.write_text(secrets.token_hex(PASSWORD_BYTES))
        return path.read_text().strip()

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.folder.chmod(self.folder_mode)
        except OSError as error:
            raise ServerError(f"{self.name} cannot keep its data in {self.folder}: {error.strerror}.") from None

    def _trim_log(self) -> None:
        if self.log_path.exists() and self.log_path.stat().st_size > MAX_LOG_BYTES:
            self.log_path.replace(self.log_path.with_suffix(".log.old"))

    def _log_tail(self) -> str:
        lines = self.log_path.read_text(errors="replace").strip().splitlines()
        return " / ".join(lines[-LOG_LINES_SHOWN:]) or f"see {self.log_path}"
