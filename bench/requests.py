"""CPU per request of the gateway, of nginx as a plain proxy and of a bare ASGI application, under the same load."""

import statistics
import time
from pathlib import Path
from typing import Any

from bench.deployment import Deployment, Program
from bench.process_cpu import cpu_ms
from bench.tenants import make_tenant, write_requests
from bench.watch import Watch
from billing.admission.blocking import oldest_waiting_ms, reap_shards
from billing.admission.errors import AdmissionUnavailableError
from billing.admission.redis.blocking_client import redis_client
from billing.admission.redis_keys import SHARDS

CONNECTIONS = 32
TENANTS = 16
ROUNDS = 5
REQUESTS_PER_ROUND = 8_000
WARM_UP_REQUESTS = 3_000
STREAMS_PER_ROUND = 600
STREAM_CONNECTIONS = 64
LAG_POLL_SECONDS = 0.2
QUIET_SECONDS = 60.0
MIN_SERVED = 0.98
NGINX, NGINX_AS_IT_COMES = "nginx", "nginx, a new connection for each call"


def measure(deployment: Deployment, quick: bool) -> dict[str, Any]:
    """Return CPU in ms per request by program and round, interleaved, so that a noisy moment hits all alike."""
    rounds, total = (2, 3_000) if quick else (ROUNDS, REQUESTS_PER_ROUND)
    upstream = deployment.start_upstream()
    gateway, worker = deployment.start_gateway(), deployment.start_worker()
    bare = deployment.start_bare()
    proxies = {
        NGINX: deployment.start_nginx("nginx", keeps_connections=True),
        NGINX_AS_IT_COMES: deployment.start_nginx("nginx-as-it-comes", keeps_connections=False),
    }
    requests = write_requests(deployment.folder / "requests.json", make_tenants("requests"))
    try:
        targets = {"gateway": gateway, "bare ASGI app": bare} | {
            name: proxy for name, proxy in proxies.items() if proxy
        }
        for target in targets.values():
            _load(deployment, target, requests, connections=CONNECTIONS, total=WARM_UP_REQUESTS)
        samples: dict[str, list[float]] = {name: [] for name in targets}
        others: dict[str, list[float]] = {"worker and beat": [], "Redis": [], "Postgres": []}
        loads = []
        with Watch(_lag_seconds, every_seconds=LAG_POLL_SECONDS) as lag:
            for _ in range(rounds):
                for name, target in targets.items():
                    before = _other_cpu(deployment, worker)
                    spent, load = measure_cpu(deployment, target, requests, connections=CONNECTIONS, total=total)
                    samples[name].append(spent / total)
                    if name == "gateway":
                        loads.append(load)
                        for other, value in _other_cpu(deployment, worker).items():
                            others[other].append((value - before[other]) / total)
        wait_until_settled()
        alone, load_alone = measure_cpu(deployment, gateway, requests, connections=1, total=total // 4)
    finally:
        for program in (gateway, worker, bare, *proxies.values(), upstream):
            if program is not None:
                program.stop()
    return {
        "connections": CONNECTIONS,
        "requests_per_round": total,
        "cpu_ms": samples,
        "cpu_ms_of_others": others,
        "gateway_per_second": statistics.median(load["per_second"] for load in loads),
        "gateway_p50_ms": statistics.median(load["p50_ms"] for load in loads),
        "gateway_p99_ms": statistics.median(load["p99_ms"] for load in loads),
        "one_connection_cpu_ms": alone / (total // 4),
        "one_connection_p50_ms": load_alone["p50_ms"],
        "settlement_lag_max_s": max(lag.seen, default=0.0),
        "settlement_lag_median_s": statistics.median(lag.seen or [0.0]),
    }


def measure_streams(deployment: Deployment, quick: bool) -> dict[str, Any]:
    """Return CPU in ms per stream of 200 tokens in 40 deltas."""
    rounds, total = (1, 300) if quick else (3, STREAMS_PER_ROUND)
    upstream, gateway, worker = deployment.start_upstream(), deployment.start_gateway(), deployment.start_worker()
    requests = write_requests(deployment.folder / "streams.json", make_tenants("streams"), stream=True)
    try:
        _load(deployment, gateway, requests, connections=STREAM_CONNECTIONS, total=total)
        samples = []
        for _ in range(rounds):
            spent, load = measure_cpu(deployment, gateway, requests, connections=STREAM_CONNECTIONS, total=total)
            samples.append(spent / total)
        wait_until_settled()
    finally:
        for program in (gateway, worker, upstream):
            program.stop()
    return {"connections": STREAM_CONNECTIONS, "cpu_ms": samples, "per_second": load["per_second"]}


def measure_cpu(
    deployment: Deployment, target: Program, requests: Path, *, connections: int, total: int
) -> tuple[float, dict[str, Any]]:
    """Return the CPU in ms that the program spent on so many requests, and what the load generator saw."""
    before = cpu_ms(target.pid, with_children=True)
    load = _load(deployment, target, requests, connections=connections, total=total)
    return cpu_ms(target.pid, with_children=True) - before, load


def _load(deployment: Deployment, target: Program, requests: Path, *, connections: int, total: int) -> dict[str, Any]:
    load = deployment.run_module(
        "bench.load", "--port", str(target.port), "--connections", str(connections), "--total", str(total),
        "--requests", str(requests),
    )  # fmt: skip
    # A busy disk may hold Redis up beyond its time-out now and then; such requests are few, or nothing was measured.
    if load["statuses"].get("200", 0) < total * MIN_SERVED:
        raise RuntimeError(
            f"{target.name} did not serve nearly every request: {load['statuses']}\n{load['first_errors']}"
        )
    return load


def make_tenants(name: str) -> list[Any]:
    return [make_tenant(f"{name} {number}", credit_usd="100000") for number in range(TENANTS)]


def _other_cpu(deployment: Deployment, worker: Program) -> dict[str, float]:
    return {
        "worker and beat": cpu_ms(worker.pid, with_children=True),
        "Redis": cpu_ms(deployment.redis.pid),
        "Postgres": cpu_ms(deployment.postgres.pid, with_children=True),
    }


def wait_until_open() -> None:
    """Build every shard and return once all of them admit."""
    reap_shards()
    opens = [int(redis_client().get(names.opens) or 0) for names in SHARDS]
    time.sleep(max(0.0, max(opens) / 1000 - time.time()))


def wait_until_settled() -> None:
    """Return once no usage event waits. Raises TimeoutError."""
    ends_at = time.monotonic() + QUIET_SECONDS
    while oldest_waiting_ms(range(len(SHARDS))):
        if time.monotonic() > ends_at:
            raise TimeoutError(f"Usage is still unsettled after {QUIET_SECONDS:g} s.")
        time.sleep(LAG_POLL_SECONDS)


def _lag_seconds() -> float | None:
    """Return how long the oldest usage event has been waiting; None where Redis does not say."""
    try:
        oldest = oldest_waiting_ms(range(len(SHARDS)))
    except AdmissionUnavailableError:
        return None
    return max(0.0, time.time() - oldest / 1000) if oldest else 0.0
