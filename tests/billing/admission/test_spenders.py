"""Budgets of members and end users in ADMIT, and their counters through every script that moves a hold or its cost."""

import asyncio
import time
from unittest.mock import patch

import pytest
import redis

from billing.admission import blocking
from billing.admission.calls import publish
from billing.admission.calls.admit import Admitted, Refused
from billing.admission.calls.not_ready import NotReady
from billing.admission.calls.publish import Publication
from billing.admission.hold import Hold
from billing.admission.redis_keys import SHARDS
from billing.budgets.spenders import END_USER, MEMBER, Spender, digest_of
from billing.usage_stream import PostedDay, SettledBatch
from tests.billing.admission.conftest import ORGANIZATION, USD, Gate, today

NAMES = SHARDS[ORGANIZATION]
BOB = Spender(ORGANIZATION, MEMBER, "12")
EVE, MALLORY = (Spender(ORGANIZATION, END_USER, digest_of(name)) for name in ("eve", "mallory"))


async def publish_spender(gate: Gate, spender: Spender, *, posted: dict[int, int] | None = None, **config: int) -> bool:
    publication = Publication(
        organization_id=ORGANIZATION,
        member=spender.name,
        config_version=gate.version,
        config=config,
        today=today(),
        posted_nanos_by_day=posted or {},
    )
    return await gate.client.publish(publication, epoch=gate.epoch)


def hold_of(gate: Gate, amount: int, end_user: Spender | None = EVE) -> Hold:
    hold = gate.hold(amount)
    hold.end_user = end_user.id if end_user else ""
    return hold


async def admit(gate: Gate, amount: int, end_user: Spender | None = EVE) -> object:
    hold = hold_of(gate, amount, end_user)
    return await gate.admit(hold)


async def admitted(gate: Gate, amount: int, end_user: Spender | None = EVE) -> Hold:
    hold = hold_of(gate, amount, end_user)
    answer = await gate.admit(hold)
    assert isinstance(answer, Admitted)
    hold.spenders = answer.spenders
    return hold


def counted(gate: Gate, spender: Spender) -> list[int]:
    """Return what is held, unsettled and posted today, and how many holds and events that is."""
    fields = [f"held:{today()}", f"unsettled:{today()}", f"posted:{today()}", "open"]
    return [int(value or 0) for value in gate.server.hmget(NAMES.prefix + spender.name, fields)]


@pytest.fixture
async def counting(gate: Gate) -> Gate:
    """The gate of an organization that has budgets for both, with Bob's key, and Eve and Bob known to Redis."""
    await gate.publish_key(member=12)
    await gate.publish_org(counts="mu")
    assert await publish_spender(gate, BOB, monthly_budget=5 * USD)
    assert await publish_spender(gate, EVE, daily_budget=3 * USD)
    return gate


async def test_nobody_is_counted_where_there_are_no_such_budgets(gate: Gate) -> None:
    await gate.publish_key(member=12)
    hold = await admitted(gate, USD)
    await gate.close_hold(hold, USD)
    assert hold.spenders == ""
    assert not [name for name in gate.server.scan_iter() if b"user:" in name or b"member:" in name or b"spend" in name]


async def test_an_end_user_is_refused_beyond_their_budget_and_others_are_not(counting: Gate) -> None:
    await publish_spender(counting, EVE, daily_budget=3 * USD, posted={today(): USD, today() - 1: 9 * USD})
    await publish_spender(counting, MALLORY, daily_budget=3 * USD)
    await counting.close_hold(await admitted(counting, USD), USD)
    before = counting.everything()
    answer = await admit(counting, 2 * USD)
    assert isinstance(answer, Refused)
    assert (answer.code, answer.current, answer.limit) == ("end_user_daily_budget_exceeded", 2 * USD, 3 * USD)
    assert 0 < answer.reset_us <= 86_400 * 10**6
    assert counting.everything() == before
    assert isinstance(await admit(counting, USD, MALLORY), Admitted)
    assert isinstance(await admit(counting, USD, EVE), Admitted)


async def test_requests_at_once_never_hold_more_than_a_budget(counting: Gate) -> None:
    answers = await asyncio.gather(*(admit(counting, USD // 10) for _ in range(60)))
    assert sum(isinstance(answer, Admitted) for answer in answers) == 30
    assert counted(counting, EVE) == [3 * USD, 0, 0, 30]


async def test_the_budget_of_the_member_who_made_the_key(counting: Gate) -> None:
    await admitted(counting, 4 * USD, None)
    answer = await admit(counting, 2 * USD, None)
    assert isinstance(answer, Refused)
    assert (answer.code, answer.current, answer.limit) == ("member_monthly_budget_exceeded", 4 * USD, 5 * USD)


async def test_a_cost_is_held_then_unsettled_then_posted(counting: Gate) -> None:
    hold = await admitted(counting, 3 * USD)
    assert hold.spenders == f"{BOB.name} {EVE.name}"
    assert [counted(counting, each) for each in (BOB, EVE)] == [[3 * USD, 0, 0, 1]] * 2
    await counting.close_hold(hold, USD)
    assert [counted(counting, each) for each in (BOB, EVE)] == [[0, USD, 0, 1]] * 2
    entries = blocking.read_waiting(ORGANIZATION, count=10)
    days = [PostedDay(*each.name_parts, today(), USD) for each in (BOB, EVE, MALLORY)]
    batch = SettledBatch(ORGANIZATION, [entry.stream_id for entry in entries], balances=[], posted_days=days)
    for _ in range(2):  # Told twice, it changes nothing more.
        blocking.confirm_batch(batch, epoch=counting.epoch)
        assert [counted(counting, each) for each in (BOB, EVE)] == [[0, 0, USD, 0]] * 2
    # Whom Redis does not know is loaded with all that is posted, when it comes.
    assert not counting.server.exists(NAMES.prefix + MALLORY.name)


async def test_who_is_not_known_is_loaded_and_so_is_who_is_known_from_before_a_change(counting: Gate) -> None:
    answer = await admit(counting, 1, MALLORY)
    assert answer == NotReady(f"LOAD {MALLORY.name}")
    await publish_spender(counting, MALLORY)
    assert isinstance(await admit(counting, 1, MALLORY), Admitted)
    await counting.publish_org(counts="mu")
    for spender in (BOB, MALLORY):
        assert await admit(counting, 1, MALLORY) == NotReady(f"LOAD {spender.name}")
        await publish_spender(counting, spender)
    assert isinstance(await admit(counting, 1, MALLORY), Admitted)


async def test_a_budget_that_only_notifies_refuses_nothing_and_an_override_ends_by_itself(counting: Gate) -> None:
    await publish_spender(counting, EVE, daily_budget=1, only_notifies=1)
    await admitted(counting, USD)
    ends = int(time.time()) + 2
    override = {"override": f"{ends}:{2 * USD}::"}
    await publish_spender(counting, EVE, daily_budget=USD, monthly_budget=2 * USD, **override)  # type: ignore[arg-type]
    await admitted(counting, USD // 2)
    answer = await admit(counting, USD)
    assert isinstance(answer, Refused)
    assert (answer.code, answer.limit) == ("end_user_daily_budget_exceeded", 2 * USD)
    await asyncio.sleep(ends + 0.01 - time.time())
    answer = await admit(counting, 1)
    assert isinstance(answer, Refused)
    assert (answer.current, answer.limit) == (3 * USD // 2, USD)


async def test_budgets_of_organizations_and_keys_have_overrides_and_may_only_notify_too(gate: Gate) -> None:
    later = int(time.time()) + 60
    await gate.publish_key(daily_budget=USD, override=f"{later}:{2 * USD}::")
    await gate.publish_org(monthly_budget=1, only_notifies=1)
    assert isinstance(await admit(gate, 2 * USD), Admitted)
    answer = await admit(gate, 1)
    assert isinstance(answer, Refused)
    assert answer.code == "key_daily_budget_exceeded"


async def test_counters_are_the_same_after_a_rebuild_and_after_redis_was_emptied(counting: Gate) -> None:
    running = await admitted(counting, USD)
    await counting.close_hold(await admitted(counting, USD), USD // 2)
    assert [counted(counting, each) for each in (BOB, EVE)] == [[USD, USD // 2, 0, 2]] * 2
    counting.server.hset(NAMES.prefix + EVE.name, f"held:{today()}", 77)
    blocking.rebuild_shard(ORGANIZATION, force=True)
    assert [counted(counting, each) for each in (BOB, EVE)] == [[USD, USD // 2, 0, 2]] * 2

    counting.server.flushall()
    await counting.open()
    assert await counting.client.restore_hold(running)
    assert counted(counting, EVE) == [USD, 0, 0, 1]
    await counting.close_hold(running, USD)
    assert counted(counting, EVE) == [0, USD, 0, 1]
    lost = hold_of(counting, USD)
    lost.spenders, lost.day = EVE.name, today()
    await counting.close_hold(lost, USD)  # Its hold is gone: the gateway says whom it was counted for.
    assert counted(counting, EVE) == [0, 2 * USD, 0, 2]


async def test_an_orphan_counts_for_its_spenders_with_what_is_known_of_it(counting: Gate) -> None:
    hold = await admitted(counting, USD)
    counting.server.zadd(NAMES.deadlines, {hold.request_id: 1})
    counting.server.hset(NAMES.hold(hold.request_id), "cost", USD // 4)
    counting.server.hset(NAMES.reaper, mapping={"ran_at": int(time.time() * 1000), "judges_from": 0})
    assert blocking.reap_shards()[ORGANIZATION].reaped_holds == 1
    assert [counted(counting, each) for each in (BOB, EVE)] == [[0, USD // 4, 0, 1]] * 2


async def test_redis_knows_only_so_many_spenders_and_forgets_none_that_has_something_in_flight(
    counting: Gate, redis_client: redis.Redis
) -> None:
    await counting.publish_org(counts="u")
    with patch.object(publish, "MAX_SPENDERS_PER_ORGANIZATION", 3):
        many = [Spender(ORGANIZATION, END_USER, digest_of(str(number))) for number in range(6)]
        for spender in many[:2]:
            assert await publish_spender(counting, spender)
            await admitted(counting, 1, spender)
        for spender in many[2:5]:
            assert await publish_spender(counting, spender)
        assert redis_client.zcard(NAMES.spenders(ORGANIZATION)) <= 3
        assert [counted(counting, spender) for spender in many[:2]] == [[1, 0, 0, 1]] * 2
        await admitted(counting, 1, many[4])
        assert not await publish_spender(counting, many[5])
    assert all(0 < redis_client.ttl(name) <= 259_200 for name in redis_client.scan_iter("*user:*"))
    assert 0 < redis_client.ttl(NAMES.spenders(ORGANIZATION)) <= 259_200
