"""Keeps the servers and processes of a local run alive, and stops them in order."""

import selectors
import time
from collections.abc import Callable, Sequence
from typing import NoReturn

from crossmodel_site.embedded import ServerError
from crossmodel_site.embedded.server import Server
from crossmodel_site.local.child import Child, describe_end
from crossmodel_site.local.errors import LocalRunError, StopRequestedError
from crossmodel_site.local.mail import MailFolder
from crossmodel_site.local.screen import say
from crossmodel_site.local.terminal import Terminal
from crossmodel_site.logs import printable

TICK_SECONDS = 0.5
READY_TIMEOUT_SECONDS = 60.0
READY_POLL_SECONDS = 0.05
# How long each process may take to end in order: running streams, a task, an answer.
STOP_TIMEOUT_SECONDS = 20.0


class Supervisor:
    """`servers` start first and stop last; of the children the first, which takes requests, stops before the others."""

    def __init__(self, mail: MailFolder) -> None:
        self._servers: list[Server] = []
        self._children: list[Child] = []
        self._mail = mail
        self._terminal = Terminal()
        self._selector = selectors.DefaultSelector()

    def start_server(self, server: Server) -> None:
        """Raises ServerError."""
        self._servers.append(server)
        server.start()

    def start_child(self, child: Child) -> None:
        self._children.append(child)
        child.start()
        self._selector.register(child.output, selectors.EVENT_READ)

    def wait_until_ready(self) -> None:
        """Return once every process said that it is ready. Raises LocalRunError."""
        for child in self._children:
            self.wait_until(lambda child=child: child.is_ready, f"The {child.name}")  # type: ignore[misc]

    def wait_until(self, is_ready: Callable[[], bool], waited_for: str) -> None:
        """Return once `is_ready` says so. Raises LocalRunError when a child dies first, or after a bound."""
        deadline = time.monotonic() + READY_TIMEOUT_SECONDS
        while not is_ready():
            self._show_output()
            for child in self._children:
                if not child.is_running() and child.process is not None:
                    raise LocalRunError(f"{child.name} {describe_end(child.process.returncode)} before it was ready.")
            if time.monotonic() > deadline:
                raise LocalRunError(f"{waited_for} is not ready after {READY_TIMEOUT_SECONDS:.0f} s.")
            time.sleep(READY_POLL_SECONDS)

    def run(self) -> NoReturn:
        """Show what the processes say and start again what dies, until an exception ends it."""
        while True:
            self._selector.select(timeout=TICK_SECONDS)
            self._show_output()
            self._revive_servers()
            self._revive_children()
            for line in self._mail.read_new():
                say(printable(line))
            if self._terminal.is_closed():
                raise StopRequestedError

    def stop(self) -> None:
        """Stop everything that was started: first who takes requests, servers last."""
        for group in self._stop_order():
            for child in group:
                child.ask_to_stop()
            deadline = time.monotonic() + STOP_TIMEOUT_SECONDS
            while any(child.is_running() for child in group) and time.monotonic() < deadline:
                self._show_output()
                time.sleep(READY_POLL_SECONDS)
            for child in group:
                if child.is_running():
                    say(f"{child.name} does not stop; it is killed")
                child.kill()
        for server in reversed(self._servers):
            server.stop()

    def kill(self) -> None:
        """End everything at once; nothing that was acknowledged is lost by it."""
        for child in self._children:
            child.kill()
        for server in self._servers:
            server.kill()

    def _stop_order(self) -> Sequence[Sequence[Child]]:
        # The others only wait for their next look at the clock, a second or two each: they do it at the same time.
        return [self._children[:1], self._children[1:]]

    def _show_output(self) -> None:
        for child in self._children:
            for line in child.read_lines():
                say(printable(line))

    def _revive_servers(self) -> None:
        for server in self._servers:
            if not server.is_running():
                code = server.process.returncode if server.process is not None else 0
                say(f"{server.name} {describe_end(code)}; starting it again")
                try:
                    server.start()
                except ServerError as error:
                    say(str(error))
                    time.sleep(TICK_SECONDS)

    def _revive_children(self) -> None:
        for child in self._children:
            process = child.process
            output = child.output
            line = child.revive()
            if line is not None:
                self._selector.unregister(output)
                say(line)
            if child.process is not process:
                self._selector.register(child.output, selectors.EVENT_READ)
