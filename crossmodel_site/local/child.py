"""One process of a local run: started, its output shown line by line, started again when it dies, stopped in order."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence

from crossmodel_site.embedded.process import start_child

RESTART_SECONDS_FIRST = 0.2
RESTART_SECONDS_MOST = 5.0
# A process that ran this long was well: the next restart is quick again.
WELL_AFTER_SECONDS = 20.0
MAX_LINE_BYTES = 8 * 1024
READ_BYTES = 64 * 1024


class Child:
    """`show_name` puts the name before each line; the gateway's lines speak for themselves. A line that begins with
    `ready_line` says that it is ready; that one is not shown, nor are those that begin with one of `hidden_lines`."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        show_name: bool = True,
        ready_line: str = "",
        hidden_lines: tuple[str, ...] = (),
    ) -> None:
        self.name = name
        self.command = command
        self.environment = environment
        self.show_name = show_name
        self.ready_line = ready_line
        self.hidden_lines = (ready_line, *hidden_lines) if ready_line else hidden_lines
        self.is_ready = not ready_line
        self.process: subprocess.Popen[bytes] | None = None
        self._rest = b""
        self._started = 0.0
        self._restart_at: float | None = None
        self._restart_seconds = RESTART_SECONDS_FIRST

    def start(self) -> None:
        self._started = time.monotonic()
        self._restart_at = None
        self.process = start_child(self.command, environment=self.environment, output=subprocess.PIPE)
        os.set_blocking(self.output, False)

    @property
    def output(self) -> int:
        if self.process is None or self.process.stdout is None:
            raise RuntimeError(f"{self.name} was not started.")
        return self.process.stdout.fileno()

    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def read_lines(self) -> list[str]:
        """Return the complete lines that it wrote since the last call."""
        if self.process is None:
            return []
        try:
            while chunk := os.read(self.output, READ_BYTES):
                self._rest += chunk
                if len(chunk) < READ_BYTES:
                    break
        except BlockingIOError:
            pass
        *lines, self._rest = self._rest.split(b"\n")
        if len(self._rest) > MAX_LINE_BYTES or (self._rest and not self.is_running()):
            lines.append(self._rest)
            self._rest = b""
        texts = [line.decode(errors="replace").rstrip() for line in lines if line.strip()]
        if self.ready_line and any(text.startswith(self.ready_line) for text in texts):
            self.is_ready = True
        shown = [text for text in texts if not text.startswith(self.hidden_lines)]
        return [f"{self.name}: {text}" if self.show_name else text for text in shown]

    def revive(self) -> str | None:
        """Start it again when it died. Returns what to tell, once; waits longer each time it dies soon again."""
        if self.process is None or self.is_running():
            return None
        now = time.monotonic()
        if self._restart_at is None:
            if now - self._started > WELL_AFTER_SECONDS:
                self._restart_seconds = RESTART_SECONDS_FIRST
            self._restart_at = now + self._restart_seconds
            self._restart_seconds = min(self._restart_seconds * 2, RESTART_SECONDS_MOST)
            return f"{self.name} {describe_end(self.process.returncode)}; starting it again"
        if now >= self._restart_at:
            self.process.communicate()
            self.start()
        return None

    def ask_to_stop(self) -> None:
        if self.is_running() and self.process is not None:
            self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def describe_end(return_code: int) -> str:
    """Return how a process ended, in words: `ended with code 1`, `was killed (SIGKILL)`."""
    if return_code < 0:
        return f"was killed ({signal.Signals(-return_code).name})"
    return f"ended with code {return_code}"
