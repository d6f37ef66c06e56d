"""Redis emptied, full, or with its clock put back; and entries in a stream that no script of ours has written."""

import time
from collections.abc import Iterator

import pytest
import redis

from billing.admission import blocking
from billing.admission.calls.admit import Admitted, Refused
from billing.admission.errors import AdmissionUnavailableError
from billing.admission.redis_keys import SHARDS
from billing.usage_stream import SettledBatch, SpendableCredit
from tests.billing.admission.conftest import LEASE_SECONDS, ORGANIZATION, USD, Gate

NAMES = SHARDS[ORGANIZATION]
HOUR_MS = 3_600_000


@pytest.fixture
def full_redis(redis_client: redis.Redis) -> Iterator[None]:
    """A Redis over its limit of memory, from the moment at which a test asks for it."""
    yield
    redis_client.config_set("maxmemory", 0)


def judge_from_now_on(gate: Gate) -> None:
    """Let the reaper have renewed a moment ago."""
    gate.server.hset(NAMES.reaper, mapping={"ran_at": int(time.time() * 1000), "judges_from": 0})


async def test_an_emptied_redis_is_known_from_the_one_before_although_it_is_the_same_process(gate: Gate) -> None:
    before = await gate.client.renew_leases(ORGANIZATION, [])
    gate.server.flushall()
    after = await gate.client.renew_leases(ORGANIZATION, [])
    assert before.epoch != after.epoch


async def test_building_by_hand_keeps_the_epoch_because_nothing_was_lost(gate: Gate) -> None:
    before = await gate.client.renew_leases(ORGANIZATION, [])
    blocking.rebuild_shard(ORGANIZATION, force=True)
    assert (await gate.client.renew_leases(ORGANIZATION, [])).epoch == before.epoch


async def test_a_new_redis_gives_gateways_a_lease_before_it_judges_their_holds(gate: Gate) -> None:
    hold = gate.hold()
    await gate.admit(hold)
    judge_from_now_on(gate)
    gate.server.zadd(NAMES.deadlines, {hold.request_id: 1})
    gate.server.set(NAMES.epoch, "another")
    assert blocking.reap_shards()[ORGANIZATION].reaped_holds == 0
    assert blocking.reap_shards()[ORGANIZATION].holds_in_flight == 1


@pytest.mark.usefixtures("full_redis")
@pytest.mark.single_redis
async def test_a_full_redis_admits_nothing_and_closes_everything(gate: Gate) -> None:
    """Closing is what frees it: were it refused too, Redis would stay full for ever."""
    settled, dead, living = gate.hold(USD), gate.hold(USD), gate.hold(USD)
    lost = gate.hold(USD)
    for hold in (settled, dead, living):
        await gate.admit(hold)
    judge_from_now_on(gate)
    gate.server.zadd(NAMES.deadlines, {dead.request_id: 1})
    gate.server.config_set("maxmemory", 1)
    with pytest.raises(AdmissionUnavailableError):
        await gate.admit(gate.hold())
    assert await gate.close_hold(settled, USD) is not None
    lost.day = settled.day
    assert await gate.close_hold(lost, USD) is not None
    assert (await gate.client.renew_leases(ORGANIZATION, [living])).states == {living.request_id: "ok"}
    assert blocking.reap_shards()[ORGANIZATION].reaped_holds == 1
    entries = blocking.read_waiting(ORGANIZATION, count=10)
    batch = SettledBatch(
        ORGANIZATION, [entry.stream_id for entry in entries], [SpendableCredit(ORGANIZATION, 7, 99)], []
    )
    assert blocking.confirm_batch(batch, epoch=gate.epoch) == 3
    assert gate.org("held", "unsettled", "open", "credit") == [USD, 0, 1, 7]
    gate.server.config_set("maxmemory", 0)
    assert await gate.client.restore_hold(lost)


async def test_a_clock_that_was_put_back_delays_no_orphan_and_no_opening(gate: Gate) -> None:
    hold = gate.hold()
    await gate.admit(hold)
    now = int(time.time() * 1000)
    gate.server.zadd(NAMES.deadlines, {hold.request_id: now + HOUR_MS})
    gate.server.set(NAMES.opens, now + HOUR_MS)
    gate.server.hset(NAMES.reaper, mapping={"ran_at": now + HOUR_MS, "judges_from": 0})
    blocking.reap_shards()
    latest = (time.time() + LEASE_SECONDS) * 1000
    deadline = gate.server.zscore(NAMES.deadlines, hold.request_id)
    opens = gate.server.get(NAMES.opens)
    assert deadline is not None
    assert deadline <= latest
    assert opens is not None
    assert int(opens) <= latest


async def test_tokens_beyond_a_reservation_are_owed_for_a_minute_at_most(gate: Gate) -> None:
    await gate.publish_key(output_tokens_per_minute=100)
    hold = gate.hold(1, output_tokens=50)
    await gate.admit(hold)
    await gate.close_hold(hold, 1, output_tokens=1_000_000)
    refused = await gate.admit(gate.hold(1, output_tokens=1))
    assert isinstance(refused, Refused)
    assert (refused.code, refused.current) == ("rate_limited_output_tokens", 0)
    assert 0 < refused.reset_us <= 600_000  # One token's worth.


async def test_a_foreign_entry_is_read_whole_and_confirmed_without_being_counted(gate: Gate) -> None:
    hold = gate.hold()
    await gate.admit(hold)
    await gate.close_hold(hold, USD)
    gate.server.xadd(NAMES.usage, {"who": "knows"})
    gate.server.xadd(NAMES.usage, {"organization": "x", "key": "1", "cost": "1", "day": "1", "event": "{}"})
    ours, unnamed, misnamed = blocking.read_waiting(ORGANIZATION, count=10)
    assert ours.organization_id == ORGANIZATION
    assert (unnamed.raw_event, unnamed.organization_id) == (b"who=knows", 0)
    assert b"organization=x" in misnamed.raw_event
    blocking.rebuild_shard(ORGANIZATION, force=True)
    assert gate.org("unsettled") == [USD]
    batch = SettledBatch(ORGANIZATION, [ours.stream_id, unnamed.stream_id, misnamed.stream_id], [], [])
    assert blocking.confirm_batch(batch, epoch=gate.epoch) == 3
    assert gate.org("unsettled") == [0]
    gate.server.delete(NAMES.opens)
    await gate.publish_org()
    await gate.publish_key()
    assert isinstance(await gate.admit(gate.hold()), Admitted)
