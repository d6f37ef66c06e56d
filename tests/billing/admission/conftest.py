"""An admission client on the session's Redis, one open shard, and an organization with a key in it."""

import os
import time
from collections.abc import AsyncIterator
from typing import cast

import pytest
import redis

from billing.admission.calls.publish import Publication
from billing.admission.client import AdmissionClient
from billing.admission.hold import Hold
from billing.admission.redis.pipeline import ScriptRouter
from billing.admission.redis.topology import AsyncServers, read_topology
from billing.admission.redis_keys import SHARDS
from billing.request_id import make_request_id

ORGANIZATION, KEY = 7, 70
USD = 1_000_000_000
LEASE_SECONDS = 60.0


class Gate:
    """What a test says to admission, with defaults for what it does not care about."""

    def __init__(self, client: AdmissionClient, server: redis.Redis) -> None:
        self.client = client
        self.server = server
        self.version = 0

    async def open(self) -> None:
        """Build the shard and pass over the wait for gateways to put holds back."""
        await self.client.rebuild(SHARDS[ORGANIZATION].prefix)
        self.server.delete(SHARDS[ORGANIZATION].opens)

    async def publish_org(
        self, *, credit: int = 10 * USD, posted: dict[int, int] | None = None, expiries: str = "", **config: object
    ) -> None:
        self.version += 1
        assert await self.client.publish(
            Publication(
                organization_id=ORGANIZATION,
                member=f"org:{ORGANIZATION}",
                config_version=self.version,
                config={"status": "active", "limit": 0, **config},  # type: ignore[dict-item]  # a test's own values
                today=today(),
                credit_nanos=credit,
                version=self.version,
                posted_nanos_by_day=posted or {},
                expiries=expiries,
            ),
            epoch=self.epoch,
        )

    async def publish_key(self, *, posted: dict[int, int] | None = None, **config: object) -> None:
        self.version += 1
        assert await self.client.publish(
            Publication(
                organization_id=ORGANIZATION,
                member=f"key:{KEY}",
                config_version=self.version,
                config={"status": "active", "organization": ORGANIZATION, **config},  # type: ignore[dict-item]
                today=today(),
                posted_nanos_by_day=posted or {},
            ),
            epoch=self.epoch,
        )

    @property
    def epoch(self) -> str:
        return cast(bytes, self.server.get(SHARDS[ORGANIZATION].epoch) or b"").decode()

    def hold(self, amount: int = USD, *, input_tokens: int = 0, output_tokens: int = 0) -> Hold:
        return Hold(
            request_id=make_request_id().hex,
            organization_id=ORGANIZATION,
            key_id=KEY,
            amount_nanos=amount,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            orphan_event=b'{"orphan":true}',
        )

    async def admit(self, hold: Hold) -> object:
        answer = await self.client.admit(hold, key_config_version=self.version)
        hold.day = getattr(answer, "day", today())
        return answer

    async def close_hold(self, hold: Hold, cost: int, *, input_tokens: int = 0, output_tokens: int = 0) -> object:
        return await self.client.close_hold(
            hold, cost_nanos=cost, event=b'{"event":true}', input_tokens=input_tokens, output_tokens=output_tokens
        )

    def org(self, *fields: str) -> list[int]:
        return self._read(SHARDS[ORGANIZATION].org(ORGANIZATION), fields)

    def key(self, *fields: str) -> list[int]:
        return self._read(SHARDS[ORGANIZATION].key(KEY), fields)

    def _read(self, name: str, fields: tuple[str, ...]) -> list[int]:
        return [int(value or 0) for value in self.server.hmget(name, list(fields))]

    def everything(self) -> dict[str | bytes, object]:
        """Return the whole of Redis, to see that something left no trace."""
        return {name: self.server.dump(name) for name in self.server.scan_iter()}


def today() -> int:
    return int(time.time()) // 86_400


@pytest.fixture
async def gate(redis_client: redis.Redis) -> AsyncIterator[Gate]:
    servers = AsyncServers(read_topology(os.environ["REDIS_URL"]), timeout_seconds=5.0)
    client = AdmissionClient(
        ScriptRouter(servers, timeout_seconds=5.0),
        lease_seconds=LEASE_SECONDS,
        reopen_seconds=3.0,
        max_waiting_events=5,
    )
    gate = Gate(client, redis_client)
    await gate.open()
    await gate.publish_org()
    await gate.publish_key()
    yield gate
    await client.aclose()
