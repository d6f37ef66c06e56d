"""A further gateway process of a stack, at an address of its own, with settings of its own where a test needs them."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from crossmodel_site.embedded.ports import find_free_port
from crossmodel_site.embedded.process import start_child
from tests.support.live_stack import HTTP, ROOT, START_SECONDS, LiveStack, end


class ExtraGateway:
    def __init__(
        self,
        stack: LiveStack,
        name: str,
        *,
        application: str = "crossmodel_site.asgi:application",
        arguments: tuple[str, ...] = (),
        most_files: int = 0,
        **overrides: str,
    ) -> None:
        self.stack = stack
        self._serves = [application, *arguments]
        # So many files may it open, and no more however it asks.
        self._wrapper = ["/bin/sh", "-c", f'ulimit -n {most_files}; exec "$@"', "sh"] if most_files else []
        self.name = name
        self.port = find_free_port()
        self.base_url = f"http://127.0.0.1:{self.port}"
        own_folder = {"CROSSMODEL_DATA": str(stack.folder / f"{name}-var")}
        self._environment = {**stack.environment, **own_folder, **overrides}
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self) -> None:
        """Start it and wait until it answers."""
        with (self.stack.folder / f"{self.name}.log").open("ab") as log:
            self.process = start_child(
                [
                    *self._wrapper, sys.executable, "-m", "uvicorn", *self._serves, "--port", str(self.port),
                    "--loop", "uvloop", "--http", "gateway.http_protocol:HttpProtocol", "--ws", "none",
                    "--no-access-log", "--no-proxy-headers", "--log-level", "warning",
                ],
                environment=self._environment,
                folder=ROOT,
                output=log.fileno(),
                death_signal=signal.SIGKILL,
            )  # fmt: skip
        self.stack.wait_until(self._answers, f"{self.name} answers", seconds=START_SECONDS)

    def stop(self) -> None:
        if self.process is not None:
            end(self.process, signal.SIGTERM)

    def log(self) -> str:
        return (self.stack.folder / f"{self.name}.log").read_text()

    def _answers(self) -> bool:
        if self.process is not None and self.process.poll() is not None:
            raise RuntimeError(f"{self.name} ended:\n{self.log()}")
        try:
            return HTTP.get(self.base_url + "/v1/models").status_code == 401
        except httpx.TransportError:
            return False


@contextmanager
def extra_gateway(stack: LiveStack, name: str, **options: Any) -> Iterator[ExtraGateway]:
    gateway = ExtraGateway(stack, name, **options)
    try:
        gateway.start()
        yield gateway
    finally:
        gateway.stop()
