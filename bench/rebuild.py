"""Redis comes back empty with 10,000 organizations: how long is everybody refused, and does anybody get too much?

A part of them has a stream running that holds all they have. Then Redis is emptied, and all of them ask again and again
until they are served, or until they are told that their money is held, as it was before.
"""

import asyncio
import json
import time
from collections import Counter
from dataclasses import dataclass, field
from io import StringIO
from typing import Any

import redis
from django.core.management import call_command

from accounts.models import Organization
from bench.deployment import Deployment
from bench.process_cpu import cpu_ms
from bench.requests import wait_until_settled
from bench.tenants import Tenant, make_tenant, request_text
from billing.ledger.statements import posted_nanos
from billing.money import parse_usd

ORGANIZATIONS, QUICK_ORGANIZATIONS = 10_000, 1_000
RUNNING_SHARE = 5  # One in so many has a stream running.
CONNECTIONS = 200
# Enough for the hold of one request, and not of two.
CREDIT_USD = "0.025"
STREAM_SECONDS = 90.0
STREAM_DELTAS = 45
PAUSE_SECONDS = 0.25  # Before who was refused asks again.
GIVE_UP_SECONDS = 80.0
SERVED, HELD = 200, 402


@dataclass
class Outcome:
    """What came of the asking, by seconds since Redis was emptied."""

    served_at: list[float] = field(default_factory=list)
    held_at: list[float] = field(default_factory=list)
    refusals: Counter[str] = field(default_factory=Counter)
    beyond: int = 0  # Served although a stream of theirs held all they had.


def measure(deployment: Deployment, quick: bool) -> dict[str, Any]:
    """Return how long it took, and what was refused meanwhile. Raises AssertionError when anybody got too much."""
    count = QUICK_ORGANIZATIONS if quick else ORGANIZATIONS
    tenants = [make_tenant(f"rebuild {number}", credit_usd=CREDIT_USD) for number in range(count)]
    running = tenants[::RUNNING_SHARE]
    upstream = deployment.start_upstream("--pace", str(STREAM_SECONDS / STREAM_DELTAS), "--deltas", str(STREAM_DELTAS))
    gateway, worker = deployment.start_gateway(), deployment.start_worker()
    try:
        before = cpu_ms(gateway.pid)
        outcome = asyncio.run(_lose_and_ask(deployment.redis.url, gateway.port, tenants, running))
        gateway_cpu_ms = cpu_ms(gateway.pid) - before
        wait_until_settled()
    finally:
        for program in (gateway, worker, upstream):
            program.stop()
    report = StringIO()
    call_command("check_ledger", stdout=report)
    balances = [posted_nanos(each) for each in Organization.objects.filter(name__startswith="rebuild ")]
    assert outcome.beyond == 0, f"{outcome.beyond} were admitted although all they had was held"
    assert len(outcome.served_at) + len(outcome.held_at) == count, "not everybody was answered"
    assert min(balances) >= 0, "somebody owes"
    return {
        "organizations": count,
        "running": len(running),
        "first_served_seconds": min(outcome.served_at),
        "half_served_seconds": sorted(outcome.served_at)[len(outcome.served_at) // 2],
        "all_served_seconds": max(outcome.served_at),
        "all_held_again_seconds": max(outcome.held_at),
        "gateway_cpu_ms": gateway_cpu_ms,
        "refusals": dict(outcome.refusals),
        "beyond": outcome.beyond,
        "least_balance_nanos": min(balances),
        "least_credit_nanos": parse_usd(CREDIT_USD),
    }


async def _lose_and_ask(redis_url: str, port: int, tenants: list[Tenant], running: list[Tenant]) -> Outcome:
    limit = asyncio.Semaphore(CONNECTIONS)
    streams = await asyncio.gather(*(_open_stream(port, tenant, limit) for tenant in running))
    outcome, waiting = Outcome(), asyncio.Queue[tuple[float, Tenant]]()
    holders = {tenant.organization_id for tenant in running}
    for tenant in tenants:
        waiting.put_nowait((0.0, tenant))
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    started = time.monotonic()
    unanswered = len(tenants)
    is_over = asyncio.Event()

    async def ask_on() -> None:
        nonlocal unanswered
        while True:
            due, tenant = await waiting.get()
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            status, code = await _ask(port, tenant)
            seconds = time.monotonic() - started
            if status == SERVED:
                outcome.served_at.append(seconds)
                outcome.beyond += tenant.organization_id in holders
            elif status == HELD and tenant.organization_id in holders:
                outcome.held_at.append(seconds)
            else:
                outcome.refusals[code] += 1
                waiting.put_nowait((time.monotonic() + PAUSE_SECONDS, tenant))
                continue
            unanswered -= 1
            if not unanswered:
                is_over.set()

    asking = [asyncio.create_task(ask_on()) for _ in range(CONNECTIONS)]
    try:
        async with asyncio.timeout(GIVE_UP_SECONDS):
            await is_over.wait()
    finally:
        for task in asking:
            task.cancel()
        for _, writer in streams:
            writer.close()
    return outcome


async def _open_stream(
    port: int, tenant: Tenant, limit: asyncio.Semaphore
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Return the connection of a stream that has begun."""
    async with limit:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request_text(tenant.secret, stream=True).encode())
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), head + await reader.read(1000)
        await reader.readuntil(b"content_block_start")
    return reader, writer


async def _ask(port: int, tenant: Tenant) -> tuple[int, str]:
    """Return the status of a request, and the code of an error."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request_text(tenant.secret).replace("\r\nhost", "\r\nconnection: close\r\nhost", 1).encode())
        answer = await reader.read()
    finally:
        writer.close()
    head, _, content = answer.partition(b"\r\n\r\n")
    status = int(head.split()[1])
    return status, "" if status == SERVED else json.loads(content)["error"]["code"]
