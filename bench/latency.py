"""How the gateway does under loads of every size: how many requests are answered in time, how much later than by the
upstream alone, and whether a long load leaves memory behind.
"""

import time
from pathlib import Path
from typing import Any

from bench.deployment import Deployment
from bench.process_cpu import pss_mib

CONNECTIONS = (1, 2, 4, 8, 16, 32)
BOUNDS_MS = (1, 5, 10)
SECONDS_EACH, QUICK_SECONDS_EACH = 10, 3
FIRST_REQUESTS = 400  # By which is seen how many fit into the time.
LONG_SECONDS, QUICK_LONG_SECONDS = 600, 60
LONG_CONNECTIONS = 16
LONG_BATCH = 5_000
QUIET_SECONDS = 5.0  # After a load, until what it needed is given back.


def measure(deployment: Deployment, quick: bool) -> dict[str, Any]:
    from bench.requests import WARM_UP_REQUESTS, make_tenants, wait_until_settled
    from bench.tenants import write_requests

    requests = write_requests(deployment.folder / "latency.json", make_tenants("latency"))
    upstream = deployment.start_upstream()
    gateway, worker = deployment.start_gateway(), deployment.start_worker()
    seconds = QUICK_SECONDS_EACH if quick else SECONDS_EACH
    try:
        _load(deployment, gateway.port, requests, LONG_CONNECTIONS, WARM_UP_REQUESTS)
        steps = []
        for connections in CONNECTIONS:
            through, directly = (
                _load_for(deployment, port, requests, connections, seconds)
                for port in (gateway.port, deployment.upstream_port)
            )
            steps.append({"connections": connections, "gateway": through, "upstream": directly})
        wait_until_settled()
        memory = _load_long(
            deployment, gateway.port, gateway.pid, requests, QUICK_LONG_SECONDS if quick else LONG_SECONDS
        )
        wait_until_settled()
    finally:
        for program in (gateway, worker, upstream):
            program.stop()
    return {
        "steps": steps,
        "per_second_by_p99_ms": {str(bound): most_within(steps, bound) for bound in BOUNDS_MS},
        "half_load_connections": half_load(steps)["connections"],
        "memory": memory,
    }


def most_within(steps: list[dict[str, Any]], p99_ms: float) -> float:
    """Return the most requests a second of which 99 of 100 are answered within the bound; 0 when there are none."""
    rates = [step["gateway"]["per_second"] for step in steps if step["gateway"]["p99_ms"] <= p99_ms]
    return max(rates, default=0.0)


def half_load(steps: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the step that is nearest to half of the most that was served."""
    half = max(step["gateway"]["per_second"] for step in steps) / 2
    return min(steps, key=lambda step: abs(step["gateway"]["per_second"] - half))


def _load_long(deployment: Deployment, port: int, pid: int, requests: Path, seconds: float) -> dict[str, float]:
    time.sleep(QUIET_SECONDS)
    before, started, sent = pss_mib([pid]), time.monotonic(), 0
    while time.monotonic() - started < seconds:
        _load(deployment, port, requests, LONG_CONNECTIONS, LONG_BATCH)
        sent += LONG_BATCH
    took = time.monotonic() - started
    time.sleep(QUIET_SECONDS)
    return {"seconds": took, "requests": sent, "before_mib": before, "after_mib": pss_mib([pid])}


def _load_for(deployment: Deployment, port: int, requests: Path, connections: int, seconds: float) -> dict[str, Any]:
    rate = _load(deployment, port, requests, connections, FIRST_REQUESTS)["per_second"]
    return _load(deployment, port, requests, connections, max(FIRST_REQUESTS, int(rate * seconds)))


def _load(deployment: Deployment, port: int, requests: Path, connections: int, total: int) -> dict[str, Any]:
    arguments = ("--port", str(port), "--connections", str(connections), "--total", str(total))
    found = deployment.run_module("bench.load", *arguments, "--requests", str(requests))
    if found["statuses"].get("200", 0) != total:
        raise RuntimeError(f"Not all were answered: {found['statuses']} {found['first_errors']}")
    return found
