"""How fast one worker settles what waits: from the streams in Redis to usage records and debits in Postgres.

`measure` fills the streams as gateways do, with CLOSE, and then lets one process (`python -m bench.settlement`) settle
all of it, as a Celery worker would.
"""

import argparse
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

from bench.deployment import Deployment
from bench.process_cpu import cpu_ms

ORGANIZATIONS = 128
EVENTS, QUICK_EVENTS = 60_000, 12_000
EVENTS_PER_PIPELINE = 1_000
WARM_UP_EVENTS = 2_000
MOST_SECONDS = 120.0
WORKER_THREADS = 2


def measure(deployment: Deployment, quick: bool) -> dict[str, Any]:
    """Return events per second of one worker, and the CPU that they cost it, Postgres and Redis."""
    # Only now: the process that settles sets Django up by itself.
    from bench.tenants import make_tenant

    total = QUICK_EVENTS if quick else EVENTS
    tenants = [make_tenant(f"settlement {number}", credit_usd="1000") for number in range(ORGANIZATIONS)]
    fill_and_settle(deployment, tenants, total=WARM_UP_EVENTS)
    return fill_and_settle(deployment, tenants, total=total)


def fill_and_settle(deployment: Deployment, tenants: list[Any], *, total: int, workers: int = 1) -> dict[str, Any]:
    """Let so many events of these tenants wait, and so many processes settle them, each its share of the shards.

    Raises RuntimeError when not all were settled.
    """
    fill(tenants, total=total)
    before = cpu_ms(deployment.postgres.pid, with_children=True), cpu_ms(deployment.redis.pid)
    with ThreadPoolExecutor(workers) as threads:
        shares = [("--share", str(share), "--of", str(workers)) for share in range(workers)]
        found = list(threads.map(lambda share: deployment.run_module("bench.settlement", *share), shares))
    redis_ms = cpu_ms(deployment.redis.pid) - before[1]
    postgres_ms = cpu_ms(deployment.postgres.pid, with_children=True) - before[0]
    settled = sum(each["settled"] for each in found)
    if settled != total:
        raise RuntimeError(f"{settled} of {total} events were settled.")
    seconds = max(each["ended"] for each in found) - min(each["started"] for each in found)
    worker_ms = sum(each["cpu_seconds"] for each in found) * 1000
    return {
        "events": total,
        "organizations": len(tenants),
        "workers": workers,
        "per_second": total / seconds,
        "seconds": seconds,
        "cpu_ms_per_event": {
            "worker": worker_ms / total,
            "Postgres": postgres_ms / total,
            "Redis": redis_ms / total,
        },
    }


def fill(tenants: list[Any], *, total: int) -> None:
    """Append so many usage events, spread evenly over the tenants."""
    from billing.admission.calls import close
    from billing.admission.hold import Hold
    from billing.admission.redis.blocking_client import redis_client
    from billing.catalog.snapshot import load_snapshot
    from billing.pricing.cost import Usage, cost_nanos
    from billing.request_id import make_request_id
    from billing.usage_event import UsageEvent

    moment = datetime.now(UTC)
    catalog_model = load_snapshot().find("anthropic/claude-sonnet-4.6")
    price = catalog_model.price_at(moment) if catalog_model is not None else None
    if catalog_model is None or price is None:
        raise RuntimeError("The default catalog has no claude-sonnet-4.6.")
    day = int(time.time()) // 86_400
    client = redis_client()
    for start in range(0, total, EVENTS_PER_PIPELINE):
        pipeline = client.pipeline(transaction=False)
        for number in range(start, min(start + EVENTS_PER_PIPELINE, total)):
            tenant = tenants[number % len(tenants)]
            usage = Usage(input_tokens=200 + number % 1000, output_tokens=1 + number % 500)
            cost = cost_nanos(usage, price)
            event = UsageEvent(
                request_id=make_request_id().hex,
                organization_id=tenant.organization_id,
                key_id=tenant.key_id,
                language_model_id=catalog_model.language_model_id,
                model_id=catalog_model.id,
                price_version_id=price.price_version_id,
                factor_ppm=1_000_000,
                hold_nanos=2 * cost,
                admitted_at_ms=int(moment.timestamp() * 1000),
                admitted_day=day,
                input_tokens=usage.input_tokens,
                output_tokens=usage.output_tokens,
                cost_nanos=cost,
                upstream="sandbox",
                attempts=[{"upstream": "sandbox", "status": 200, "outcome": "served", "duration_ms": 900}],
                total_ms=905,
                client="anthropic-python/2.12.0",
                stop_reason="end_turn",
            )
            hold = Hold(event.request_id, tenant.organization_id, tenant.key_id, 0, 0, 0, b"", day=day)
            call = close.make_call(hold, cost_nanos=cost, event=event.encode(), input_tokens=1, output_tokens=1)
            pipeline.eval(call.script.text, len(call.keys), *call.keys, *call.args)
        replies = pipeline.execute()
        if any(reply[0] != b"CLOSED" for reply in replies):
            raise RuntimeError(f"Redis refused an event: {replies[0]}")


def settle_all(share: int = 0, of: int = 1) -> dict[str, Any]:
    """Settle everything that waits in this process, or one share of the shards, and return how that went.

    As a worker of `make run` does it: two threads, each with the shards of one trigger at a time.
    """
    import django

    os.environ["DJANGO_SETTINGS_MODULE"] = "crossmodel_site.settings"
    django.setup()
    from billing.shards import SHARD_COUNT
    from operations.tasks import SHARDS_PER_TASK, settle_waiting

    starts = range(0, SHARD_COUNT, SHARDS_PER_TASK)
    parts = [list(range(start, min(start + SHARDS_PER_TASK, SHARD_COUNT))) for start in starts][share::of]
    started, cpu_before = time.monotonic(), time.process_time()
    with ThreadPoolExecutor(WORKER_THREADS) as threads:
        settled = sum(threads.map(lambda shards: settle_waiting(shards, seconds=MOST_SECONDS), parts))
    ended = time.monotonic()
    return {
        "settled": settled,
        "started": started,
        "ended": ended,
        "seconds": ended - started,
        "cpu_seconds": time.process_time() - cpu_before,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--share", type=int, default=0, help="which share of the shards, from 0")
    parser.add_argument("--of", type=int, default=1, help="how many shares there are")
    options = parser.parse_args()
    print(json.dumps(settle_all(options.share, options.of)))
