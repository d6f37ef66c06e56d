"""How many streams one gateway keeps up with at 50 events a second each, what an event costs, and 6,000 slow streams.

A stream keeps up while 99 of 100 of its events are here before the next is written.
"""

from typing import Any

from bench.deployment import Deployment
from bench.many_streams import SLOW, read_streams
from bench.process_cpu import cpu_ms, pss_mib
from bench.watch import Watch

EVENTS_PER_SECOND = 50
PACED_STREAMS, QUICK_PACED_STREAMS = (25, 50, 100, 150, 200, 300), (25, 100)
PACED_SECONDS, QUICK_PACED_SECONDS = 10, 4
KEPT_UP_MS = 1000 / EVENTS_PER_SECOND
SLOW_STREAMS, QUICK_SLOW_STREAMS = (2_000, 6_000), (500,)
# Streams without a pause, for what an event costs: each written by itself, or a thousand together.
UNPACED_STREAMS = 20
UNPACED_EVENTS, QUICK_UNPACED_EVENTS = 10_000, 2_000
TOGETHER = (1, 20, 1_000)
MEMORY_POLL_SECONDS = 0.5


def measure(deployment: Deployment, quick: bool) -> dict[str, Any]:
    """Return how late events came by number of streams, what each cost, and the memory of streams that run."""
    from bench.requests import make_tenants, wait_until_settled
    from bench.tenants import write_requests

    requests = str(write_requests(deployment.folder / "stream-limits.json", make_tenants("limits"), stream=True))
    gateway, worker = deployment.start_gateway(), deployment.start_worker()

    def read_through(streams: int) -> dict[str, Any]:
        before, memory_before = cpu_ms(gateway.pid), pss_mib([gateway.pid])
        with Watch(lambda: pss_mib([gateway.pid]), every_seconds=MEMORY_POLL_SECONDS) as memory:
            seen = read_streams(deployment, requests, gateway.port, streams)
        seen["gateway_cpu_ms"] = cpu_ms(gateway.pid) - before
        seen["memory_kib_each"] = (max(memory.seen, default=memory_before) - memory_before) * 1024 / streams
        return seen

    def compare(streams: int, *options: str) -> dict[str, Any]:
        upstream = deployment.start_upstream(*options)
        try:
            return {
                "direct": read_streams(deployment, requests, deployment.upstream_port, streams),
                "gateway": read_through(streams),
            }
        finally:
            upstream.stop()

    seconds = QUICK_PACED_SECONDS if quick else PACED_SECONDS
    paced_options = ("--stamps", "--pace", str(1 / EVENTS_PER_SECOND), "--deltas", str(seconds * EVENTS_PER_SECOND))
    unpaced_events = QUICK_UNPACED_EVENTS if quick else UNPACED_EVENTS
    try:
        # The first streams of a process make it larger once for all.
        compare(QUICK_PACED_STREAMS[0], *paced_options)
        paced = {
            str(streams): compare(streams, *paced_options)
            for streams in (QUICK_PACED_STREAMS if quick else PACED_STREAMS)
        }
        unpaced = {
            str(together): _unpaced(
                compare, unpaced_events, "--pace", "0", "--deltas", str(unpaced_events), "--together", str(together)
            )
            for together in TOGETHER
        }
        slow = {str(streams): compare(streams, *SLOW) for streams in (QUICK_SLOW_STREAMS if quick else SLOW_STREAMS)}
        wait_until_settled()
    finally:
        for program in (gateway, worker):
            program.stop()
    return {"paced": paced, "most_paced": most_paced(paced), "unpaced": unpaced, "slow": slow}


def most_paced(paced: dict[str, Any]) -> int:
    """Return the largest number of streams that kept up, as did every smaller number; 0 when none did."""
    most = 0
    for streams, seen in sorted(paced.items(), key=lambda item: int(item[0])):
        if seen["gateway"]["delay_ms"][1] > KEPT_UP_MS:
            break
        most = int(streams)
    return most


def _unpaced(compare: Any, events: int, *options: str) -> dict[str, Any]:
    seen: dict[str, Any] = compare(UNPACED_STREAMS, *options)["gateway"]
    total = UNPACED_STREAMS * events
    return {
        "us_an_event": seen["gateway_cpu_ms"] * 1000 / total,
        "per_core_second": total * 1000 / seen["gateway_cpu_ms"],
    }
