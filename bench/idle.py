"""What `make run` costs while nobody uses it: CPU and memory of all its processes."""

import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from bench.deployment import ROOT, Deployment
from bench.process_cpu import cpu_ms, descendants, pss_mib
from crossmodel_site.embedded import find_free_port

READY_LINE = "Ctrl-C stops everything."
START_SECONDS, STOP_SECONDS = 120.0, 60.0
SETTLING_SECONDS = 10  # Imports, first autovacuum and the like are over by then.
IDLE_SECONDS, QUICK_IDLE_SECONDS = 30, 10
NAMES = {  # The first that is in the command line.
    "postgres": "Postgres",
    "redis-server": "Redis",
    "uvicorn": "gateway",
    "celery": "worker and beat",
    "sandbox": "sandbox",
    "crossmodel_site.local": "launcher",
}


def measure(deployment: Deployment, quick: bool) -> dict[str, Any]:
    """Return CPU in per cent of one core and PSS in MiB by process, and together."""
    seconds = QUICK_IDLE_SECONDS if quick else IDLE_SECONDS
    folder = deployment.folder / "idle"
    log = deployment.folder / "idle.log"
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    environment = {**kept, "CROSSMODEL_DATA": str(folder), "PORT": str(find_free_port())}
    with log.open("wb") as output:
        launcher = subprocess.Popen(
            [sys.executable, "-m", "crossmodel_site.local"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        ends_at = time.monotonic() + START_SECONDS
        while READY_LINE not in log.read_text():
            if launcher.poll() is not None or time.monotonic() > ends_at:
                raise RuntimeError("make run did not start:\n" + log.read_text()[-3000:])
            time.sleep(0.1)
        time.sleep(SETTLING_SECONDS)
        pids = {launcher.pid} | descendants(launcher.pid)
        before = {pid: cpu_ms(pid) for pid in pids}
        time.sleep(seconds)
        spent = {pid: (cpu_ms(pid) - before[pid]) / (seconds * 10) for pid in pids}
        processes: dict[str, dict[str, float]] = defaultdict(lambda: {"cpu_percent": 0.0, "pss_mib": 0.0})
        for pid in pids:
            process = processes[_name(pid)]
            process["cpu_percent"] += spent[pid]
            process["pss_mib"] += pss_mib([pid])
    finally:
        launcher.send_signal(signal.SIGINT)
        try:
            launcher.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            launcher.kill()
    return {
        "seconds": seconds,
        "processes": dict(sorted(processes.items())),
        "cpu_percent": sum(each["cpu_percent"] for each in processes.values()),
        "pss_mib": sum(each["pss_mib"] for each in processes.values()),
    }


def _name(pid: int) -> str:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return "ended"
    return next((name for word, name in NAMES.items() if word in command), command)
