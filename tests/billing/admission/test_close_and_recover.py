"""CLOSE, RENEW, REAP, CONFIRM and REBUILD: what they leave behind, also when told twice, late, or by another Redis."""

import asyncio
import time
from typing import cast

import pytest
import redis
from redis.cluster import RedisCluster

from billing.admission import blocking
from billing.admission.calls import confirm, renew, state
from billing.admission.calls.admit import Admitted, Refused
from billing.admission.calls.not_ready import NotReady
from billing.admission.redis.blocking_client import run_script
from billing.admission.redis.script import Script
from billing.admission.redis_keys import SHARDS
from billing.shards import SHARD_COUNT
from billing.usage_stream import PostedDay, SettledBatch, SpendableCredit
from tests.billing.admission.conftest import KEY, ORGANIZATION, USD, Gate, today

NAMES = SHARDS[ORGANIZATION]


def confirmation(gate: Gate, *, credit: int, version: int, posted: int = 0) -> SettledBatch:
    entries = blocking.read_waiting(ORGANIZATION, count=1000)
    return SettledBatch(
        shard=ORGANIZATION,
        stream_ids=[entry.stream_id for entry in entries],
        balances=[SpendableCredit(ORGANIZATION, credit, version)],
        posted_days=[PostedDay("key", KEY, today(), posted)] if posted else [],
    )


async def test_closing_turns_the_hold_into_a_waiting_event(gate: Gate) -> None:
    hold = gate.hold(3 * USD)
    await gate.admit(hold)
    await gate.close_hold(hold, USD)
    assert gate.org("held", "unsettled", "open", f"unsettled:{today()}") == [0, USD, 0, USD]
    assert gate.key(f"held:{today()}", f"unsettled:{today()}", "open") == [0, USD, 0]
    [entry] = blocking.read_waiting(ORGANIZATION, count=10)
    assert (entry.organization_id, entry.key_id, entry.cost_nanos, entry.admitted_day) == (
        ORGANIZATION,
        KEY,
        USD,
        today(),
    )
    assert entry.raw_event == b'{"event":true}'


async def test_usage_without_a_hold_is_kept_all_the_same(gate: Gate) -> None:
    hold = gate.hold(3 * USD)
    hold.day = today()
    assert await gate.close_hold(hold, USD) is not None
    assert gate.org("held", "unsettled", "open") == [0, USD, 0]


async def test_a_released_admission_that_arrives_late_finds_its_request_ended(gate: Gate) -> None:
    hold = gate.hold(USD)
    hold.day = today()
    await gate.client.close_hold(hold, cost_nanos=0, event=b"{}", input_tokens=0, output_tokens=0, release=True)
    assert (await gate.admit(hold)).code == "request_ended"  # type: ignore[attr-defined]
    assert gate.org("held", "open") == [0, 0]


async def test_confirmation_moves_the_cost_from_unsettled_to_credit(gate: Gate) -> None:
    hold = gate.hold(3 * USD)
    await gate.admit(hold)
    await gate.close_hold(hold, USD)
    batch = confirmation(gate, credit=9 * USD, version=gate.version + 1, posted=USD)
    assert blocking.confirm_batch(batch, epoch=gate.epoch) == 1
    assert gate.org("credit", "unsettled") == [9 * USD, 0]
    assert gate.key(f"unsettled:{today()}", f"posted:{today()}") == [0, USD]


async def test_a_second_or_older_confirmation_changes_nothing(gate: Gate) -> None:
    hold = gate.hold(3 * USD)
    await gate.admit(hold)
    await gate.close_hold(hold, USD)
    batch = confirmation(gate, credit=9 * USD, version=gate.version + 2)
    blocking.confirm_batch(batch, epoch=gate.epoch)
    older = SettledBatch(
        ORGANIZATION, batch.stream_ids, [SpendableCredit(ORGANIZATION, 55 * USD, gate.version + 1)], []
    )
    assert blocking.confirm_batch(older, epoch=gate.epoch) == 0
    assert gate.org("credit", "unsettled") == [9 * USD, 0]


async def test_a_hold_past_its_deadline_is_closed_from_its_checkpoint_once(gate: Gate) -> None:
    hold = gate.hold(3 * USD)
    await gate.admit(hold)
    hold.cost_so_far_nanos, hold.checkpoint, hold.checkpoint_is_new = USD // 2, b'{"checkpoint":1}', True
    await gate.client.renew_leases(ORGANIZATION, [hold])
    blocking.reap_shards()  # The first run of the reaper: it waits one lease before it judges.
    gate.server.zadd(NAMES.deadlines, {hold.request_id: 1})
    assert blocking.reap_shards()[ORGANIZATION].reaped_holds == 0
    gate.server.hset(NAMES.reaper, "judges_from", 0)
    assert blocking.reap_shards()[ORGANIZATION].reaped_holds == 1
    assert blocking.reap_shards()[ORGANIZATION].reaped_holds == 0
    [entry] = blocking.read_waiting(ORGANIZATION, count=10)
    assert (entry.cost_nanos, entry.raw_event) == (USD // 2, b'{"checkpoint":1}')
    assert gate.org("held", "open", "unsettled") == [0, 0, USD // 2]
    await gate.close_hold(hold, USD)  # The truth, which settlement puts in the place of the judgement.
    assert [entry.cost_nanos for entry in blocking.read_waiting(ORGANIZATION, count=10)] == [USD // 2, USD]
    assert gate.org("held", "open", "unsettled") == [0, 0, USD // 2 + USD]
    renewed = await gate.client.renew_leases(ORGANIZATION, [hold])
    assert renewed.states == {hold.request_id: "orphaned"}
    assert not await gate.client.restore_hold(hold)


async def test_a_hold_without_a_checkpoint_becomes_a_record_of_no_cost(gate: Gate) -> None:
    hold = gate.hold(3 * USD)
    await gate.admit(hold)
    gate.server.hset(NAMES.reaper, mapping={"ran_at": int(time.time() * 1000), "judges_from": 0})
    gate.server.zadd(NAMES.deadlines, {hold.request_id: 1})
    assert blocking.reap_shards()[ORGANIZATION].reaped_holds == 1
    [entry] = blocking.read_waiting(ORGANIZATION, count=10)
    assert (entry.cost_nanos, entry.raw_event) == (0, b'{"orphan":true}')


async def test_the_reaper_asks_each_server_once(gate: Gate) -> None:
    """Each round trip waits for a disk: one for each shard takes longer than the time from one run to the next."""
    blocking.reap_shards()
    before = _reads(gate.server)
    assert len(blocking.reap_shards()) == SHARD_COUNT
    assert _reads(gate.server) - before < SHARD_COUNT / 4


def _reads(server: "redis.Redis | RedisCluster") -> int:
    """Return how often the servers have read from connections."""
    if isinstance(server, RedisCluster):
        by_node = cast(dict[str, dict[str, int]], server.info("stats", target_nodes=RedisCluster.PRIMARIES))
        return sum(stats["total_reads_processed"] for stats in by_node.values())
    return cast(dict[str, int], server.info("stats"))["total_reads_processed"]


async def test_the_beat_renews_the_deadline(gate: Gate) -> None:
    hold = gate.hold()
    await gate.admit(hold)
    gate.server.zadd(NAMES.deadlines, {hold.request_id: 1})
    await gate.client.renew_leases(ORGANIZATION, [hold])
    deadline = gate.server.zscore(NAMES.deadlines, hold.request_id)
    assert deadline is not None
    assert deadline > (time.time() + 55) * 1000


async def test_renewing_tells_which_events_are_settled(gate: Gate) -> None:
    first, second = gate.hold(), gate.hold()
    for hold in (first, second):
        await gate.admit(hold)
    first_id = (await gate.close_hold(first, 1)).stream_id  # type: ignore[attr-defined]
    renewed = await gate.client.renew_leases(ORGANIZATION, [])
    assert (renewed.settled_bound, renewed.bound_is_inclusive) == (first_id, False)
    second_id = (await gate.close_hold(second, 1)).stream_id  # type: ignore[attr-defined]
    blocking.confirm_batch(confirmation(gate, credit=1, version=99), epoch=gate.epoch)
    renewed = await gate.client.renew_leases(ORGANIZATION, [])
    assert (renewed.settled_bound, renewed.bound_is_inclusive) == (second_id, True)


async def test_another_redis_process_is_noticed_before_anything_is_written(gate: Gate) -> None:
    hold = gate.hold(3 * USD)
    await gate.admit(hold)
    gate.server.set(NAMES.epoch, "of a process that is gone")
    before = gate.everything()
    calls: list[tuple[Script, list[str], list[str | bytes | int]]] = [
        (renew.SCRIPT, [NAMES.epoch, NAMES.deadlines, NAMES.usage], [1000]),
        (confirm.SCRIPT, [NAMES.epoch, NAMES.usage], [NAMES.prefix, 0, 1, 0, ORGANIZATION, 99 * USD, 99]),
        (state.SCRIPT, [NAMES.epoch, NAMES.org(ORGANIZATION)], []),
    ]
    for script, keys, args in calls:
        assert run_script(script, keys, args) == [b"REBUILD"]
    assert gate.everything() == before
    assert await gate.admit(gate.hold()) == NotReady("REBUILD")


async def test_rebuilding_sums_holds_and_events_and_forgets_the_rest(gate: Gate) -> None:
    held, settled = gate.hold(3 * USD), gate.hold(2 * USD)
    await gate.admit(held)
    await gate.admit(settled)
    await gate.close_hold(settled, USD)
    gate.server.set(NAMES.epoch, "of a process that is gone")
    assert blocking.rebuild_shard(ORGANIZATION)
    assert not blocking.rebuild_shard(ORGANIZATION)
    assert gate.org("held", "unsettled", "open", "credit") == [3 * USD, USD, 1, 0]
    assert await gate.admit(gate.hold()) == NotReady("REBUILD")
    gate.server.delete(NAMES.opens)
    assert await gate.admit(gate.hold()) == NotReady("LOAD org")
    await gate.publish_org(credit=10 * USD)
    await gate.publish_key()
    answer = await gate.admit(gate.hold(USD))
    assert isinstance(answer, Admitted)
    assert answer.available_nanos == 5 * USD


async def test_admission_opens_by_itself_after_a_rebuild(gate: Gate) -> None:
    gate.server.set(NAMES.epoch, "of a process that is gone")
    gate.client._reopen_ms = 200
    assert await gate.admit(gate.hold()) == NotReady("REBUILD")
    await asyncio.sleep(0.25)
    assert await gate.admit(gate.hold()) == NotReady("LOAD org")


async def test_an_emptied_redis_takes_holds_and_events_back_once(gate: Gate) -> None:
    held, settled = gate.hold(3 * USD), gate.hold(2 * USD)
    await gate.admit(held)
    await gate.admit(settled)
    gate.server.flushall()
    renewed = await gate.client.renew_leases(ORGANIZATION, [held])
    assert renewed.states == {held.request_id: "missing"}
    assert await gate.client.restore_hold(held)
    assert await gate.client.restore_hold(held)
    assert await gate.close_hold(settled, USD) is not None
    assert gate.org("held", "open", "unsettled") == [3 * USD, 1, USD]


async def test_a_hold_put_back_gives_no_tokens_back_that_were_never_taken_here(gate: Gate) -> None:
    lost = gate.hold(1, output_tokens=900)
    await gate.admit(lost)
    gate.server.flushall()
    await gate.client.renew_leases(ORGANIZATION, [lost])
    assert await gate.client.restore_hold(lost)
    gate.server.delete(NAMES.opens)
    await gate.publish_org()
    await gate.publish_key(output_tokens_per_minute=1000)
    assert isinstance(await gate.admit(gate.hold(1, output_tokens=850)), Admitted)
    await gate.close_hold(lost, 1, output_tokens=100)
    answer = await gate.admit(gate.hold(1, output_tokens=80))
    assert isinstance(answer, Refused)
    assert answer.code == "rate_limited_output_tokens"


async def test_older_news_from_postgres_changes_nothing(gate: Gate) -> None:
    await gate.publish_org(credit=5 * USD, requests_per_minute=9)
    gate.version -= 2
    await gate.publish_org(credit=99 * USD, requests_per_minute=1)
    assert gate.org("credit", "requests_per_minute") == [5 * USD, 9]


async def test_a_limit_that_was_lifted_is_gone(gate: Gate) -> None:
    await gate.publish_key(requests_per_minute=1, daily_budget=5)
    await gate.publish_key()
    assert gate.key("requests_per_minute", "daily_budget") == [0, 0]
    for _ in range(3):
        assert isinstance(await gate.admit(gate.hold(10)), Admitted)


async def test_figures_are_what_admission_enforces(gate: Gate) -> None:
    held, settled = gate.hold(3 * USD), gate.hold(2 * USD)
    await gate.admit(held)
    await gate.admit(settled)
    await gate.close_hold(settled, USD)
    state = blocking.read_admission_state(ORGANIZATION)
    assert state is not None
    assert (state.credit_nanos, state.held_nanos, state.unsettled_nanos) == (10 * USD, 3 * USD, USD)
    assert state.available_nanos == 6 * USD
    assert blocking.read_admission_state(ORGANIZATION + 64) is None


@pytest.mark.parametrize("day", [0, 3, 4, 19_782, 20_512, 20_513])
def test_weeks_count_from_monday(day: int) -> None:
    """The rule of the script, held against the calendar of the standard library."""
    assert (day + 3) % 7 == time.gmtime(day * 86_400).tm_wday
