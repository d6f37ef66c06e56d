"""The sandbox payment provider in a process of its own, and its customers: what a browser does on its pages."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import UUID

from sandbox.payments_server import READY_PREFIX, SECRET_VARIABLE
from sandbox.payments_webhooks import SIGNATURE_HEADER, sign

SECRET = "a secret of this test run only"
START_SECONDS, STOP_SECONDS, CALL_SECONDS = 30.0, 10.0, 10.0
FOLDER_ABOVE = Path(__file__).resolve().parent.parent.parent


class PaymentSandbox:
    """with PaymentSandbox(webhook_url=...) as sandbox: sandbox.url, sandbox.choose(checkout_url, "pay")"""

    def __init__(self, *, webhook_url: str = "", state: Path | None = None, port: int = 0) -> None:
        self._webhook_url = webhook_url
        self._state = state
        self._port = port
        self._process: subprocess.Popen[str] | None = None
        self.url = ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        command = [sys.executable, "-m", "sandbox.payments_server", "--port", str(self._port), "--stop-with-stdin"]
        command += ["--webhook-url", self._webhook_url] if self._webhook_url else []
        command += ["--state", str(self._state)] if self._state else []
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=FOLDER_ABOVE,
            env={**os.environ, SECRET_VARIABLE: SECRET},
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line.startswith(READY_PREFIX), line
        self.url = line.removeprefix(READY_PREFIX).split(" ")[0]
        self._port = urllib.parse.urlsplit(self.url).port or 0

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        process.wait(STOP_SECONDS)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()

    def choose(self, checkout_url: str, action: str) -> str:
        """Press a button of the pay page. Returns the address that it leads to, which is not opened."""
        return self._post(checkout_url, urllib.parse.urlencode({"action": action}).encode())

    def step(self, checkout_id: str, step: str) -> None:
        """Do something to a payment, as the provider's own people can."""
        self._post(f"{self.url}/", urllib.parse.urlencode({"checkout": checkout_id, "step": step}).encode())

    def control(self, **fields: Any) -> None:
        self._post(f"{self.url}/control", json.dumps(fields).encode())

    def checkout(self, reference: UUID) -> dict[str, Any]:
        """Return what became of the payment of an order: the oracle of the fault tests."""
        with urllib.request.urlopen(f"{self.url}/v1/orders/{reference.hex}", timeout=CALL_SECONDS) as response:  # noqa: S310
            checkout: dict[str, Any] = json.load(response)
            return checkout

    def events(self) -> list[str]:
        """Return the lines of its list of webhooks, the newest first."""
        with urllib.request.urlopen(f"{self.url}/", timeout=CALL_SECONDS) as response:  # noqa: S310  Our own.
            page = response.read().decode()
        return re.findall(r"(?:heard|waits), [^<]+", page)

    def wait_until_heard(self) -> None:
        """Wait until every event was answered with 2xx."""
        wait_until(lambda: all(line.startswith("heard") for line in self.events()), "Every event is heard")

    def _post(self, url: str, body: bytes) -> str:
        opener = urllib.request.build_opener(_NoRedirect)
        try:
            with opener.open(urllib.request.Request(url, body), timeout=CALL_SECONDS) as response:  # noqa: S310
                response.read()
                return ""
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 303:
                    return str(error.headers["location"])
                raise


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def signed(message: dict[str, Any], *, secret: str = SECRET, at: int | None = None) -> tuple[bytes, dict[str, str]]:
    """Return body and header of a message as the sandbox sends it."""
    body = json.dumps(message).encode()
    return body, {SIGNATURE_HEADER: sign(body, secret, int(time.time()) if at is None else at)}


def wait_until(is_so: Callable[[], bool], what: str, *, seconds: float = 30.0) -> None:
    ends_at = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < ends_at, f"{what}: not within {seconds} s."
        time.sleep(0.05)
