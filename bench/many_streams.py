"""How late events come at many slow streams, what those cost, and how long others wait beside streams with no pause."""

from typing import Any

from bench.deployment import Deployment, Program
from bench.process_cpu import cpu_ms, pss_mib

SLOW_STREAMS, QUICK_SLOW_STREAMS = (100, 1_000, 2_000), (100, 500)
SLOW = ("--stamps", "--pace", "1", "--deltas", "20")
# 100 clients that read 5 MB each, as fast as they can; the upstream writes 1,000 events at once.
BULK_STREAMS, QUICK_BULK_STREAMS = 100, 30
BULK = ("--pace", "0", "--deltas", "40000", "--together", "1000")


def measure(deployment: Deployment, quick: bool) -> dict[str, Any]:
    """Return what the clients saw and what it cost: for each number of slow streams, and for streams with no pause."""
    from bench.requests import make_tenants, wait_until_settled
    from bench.tenants import write_requests

    requests = str(write_requests(deployment.folder / "many-streams.json", make_tenants("many"), stream=True))
    gateway, worker = deployment.start_gateway(), deployment.start_worker()
    found: dict[str, Any] = {"slow": {}}

    def read_through(streams: int, *options: str) -> dict[str, Any]:
        before, memory = _spent(deployment, gateway), pss_mib([gateway.pid])
        seen = read_streams(deployment, requests, gateway.port, streams, *options)
        after = _spent(deployment, gateway)
        seen["cpu_ms"] = {name: after[name] - before[name] for name in after}
        seen["memory_kept_kib"] = (pss_mib([gateway.pid]) - memory) * 1024 / streams
        return seen

    try:
        upstream = deployment.start_upstream(*SLOW)
        for streams in QUICK_SLOW_STREAMS if quick else SLOW_STREAMS:
            direct = read_streams(deployment, requests, deployment.upstream_port, streams)
            found["slow"][str(streams)] = {"direct": direct, "gateway": read_through(streams)}
        upstream.stop()
        upstream = deployment.start_upstream(*BULK)
        found["bulk"] = read_through(QUICK_BULK_STREAMS if quick else BULK_STREAMS, "--probe")
        wait_until_settled()
    finally:
        for program in (gateway, worker, upstream):
            program.stop()
    return found


def read_streams(deployment: Deployment, requests: str, port: int, streams: int, *options: str) -> dict[str, Any]:
    """Read so many streams at once, and return what their clients saw. `requests` is the file that has them."""
    arguments = ("--port", str(port), "--streams", str(streams), "--requests", requests, *options)
    return deployment.run_module("bench.stream_clients", *arguments)


def _spent(deployment: Deployment, gateway: Program) -> dict[str, float]:
    return {"gateway": cpu_ms(gateway.pid, with_children=True), "Redis": cpu_ms(deployment.redis.pid)}
