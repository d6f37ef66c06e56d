"""Three gateways with folders of their own behind one address, two workers and two beats: machines, on loopback."""

import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import httpx

from crossmodel_site.embedded.ports import find_free_port
from tests.support.durable_stack import DurableStack
from tests.support.front import Front
from tests.support.live_stack import HTTP, START_SECONDS, Tenant, body, end

GATEWAYS = 3
# What the front has accepted by then is with its gateway: what waits in a port that closes is lost.
TAKEN_OUT_SECONDS = 0.5


@dataclass
class Machine:
    """A gateway with its own disk. `process` is None where it was never started, or is gone."""

    folder: Path
    port: int
    process: "subprocess.Popen[bytes] | None" = None

    def post(self, tenant: Tenant, text: str = "Hello!") -> httpx.Response:
        return HTTP.post(f"http://127.0.0.1:{self.port}/v1/messages", headers=tenant.headers, json=body(text))


class ManyMachines(DurableStack):
    """`base_url` is the front's. What a fault does to a machine it does by start_machine() and its fellows."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.front = Front()
        self.machines = [Machine(folder / f"machine-{number}", find_free_port()) for number in range(GATEWAYS)]
        self._others: list[subprocess.Popen[bytes]] = []

    @property
    def spool_paths(self) -> list[Path]:
        return [machine.folder / "spool" for machine in self.machines if machine.process is not None]

    def start_gateway(self) -> None:
        self.front.__enter__()
        self.base_url = self.front.url
        for machine in self.machines:
            self._spawn_machine(machine)
        for machine in self.machines:
            self._wait_for(machine)
            self.front.put_in(machine.port)

    def start_worker(self, *, pool: str = "solo", has_beat: bool = True) -> None:
        super().start_worker(pool=pool, has_beat=has_beat)
        self._others = [self.spawn_worker("second"), self.start_beat()]

    def stop(self) -> None:
        for machine in self.machines:
            if machine.process is not None:
                end(machine.process, signal.SIGTERM)
        for process in self._others:
            end(process, signal.SIGKILL)
        super().stop()
        self.front.__exit__()

    def start_machine(self, machine: Machine) -> None:
        """Start its gateway, wait until it answers, and let the front use it."""
        self._spawn_machine(machine)
        self._wait_for(machine)
        self.front.put_in(machine.port)

    def stop_machine(self, machine: Machine) -> int:
        """Give it no new connections, ask it to end, and return the exit code: what runs there runs to its end."""
        assert machine.process is not None
        self.front.take_out(machine.port)
        time.sleep(TAKEN_OUT_SECONDS)
        machine.process.send_signal(signal.SIGTERM)
        return machine.process.wait(START_SECONDS)

    def lose_machine(self, machine: Machine) -> None:
        """kill -9, and its disk is gone with it."""
        assert machine.process is not None
        end(machine.process, signal.SIGKILL)
        self.front.take_out(machine.port)
        machine.process = None
        shutil.rmtree(machine.folder)

    def _spawn_machine(self, machine: Machine) -> None:
        environment = {**self.environment, "CROSSMODEL_DATA": str(machine.folder)}
        machine.folder.mkdir(exist_ok=True)
        machine.process = self.spawn_gateway(machine.port, environment)

    def _wait_for(self, machine: Machine) -> None:
        self.wait_until(lambda: _answers(machine), f"the gateway at {machine.port} answers", seconds=START_SECONDS)


def _answers(machine: Machine) -> bool:
    try:
        return HTTP.get(f"http://127.0.0.1:{machine.port}/v1/models").status_code == 401
    except httpx.TransportError:
        return False
