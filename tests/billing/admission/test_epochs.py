"""What is bound to a shard's epoch, and to Redis' own clock: balances, confirmations, the expiry of lots."""

import asyncio
import time

import pytest

from accounts.organizations import create_organization
from billing.admission import blocking, outbox
from billing.admission.calls import confirm, publish
from billing.admission.calls.admit import Admitted, Refused
from billing.admission.calls.not_ready import NotReady
from billing.admission.calls.publish import Publication
from billing.admission.errors import InvalidAmountError
from billing.admission.redis.blocking_client import redis_client, run_script
from billing.admission.redis.script import make_script
from billing.admission.redis_keys import SHARDS
from billing.usage_stream import PostedDay, SettledBatch, SpendableCredit
from tests.billing.admission.conftest import KEY, ORGANIZATION, USD, Gate, today

NAMES = SHARDS[ORGANIZATION]


async def test_a_figure_that_was_read_before_a_rebuild_is_not_published_after_it(gate: Gate) -> None:
    """It lacks what was settled and confirmed in between, and the rebuild has forgotten the version that tells."""
    hold = gate.hold(USD)
    await gate.admit(hold)
    read_under, stale = gate.epoch, SpendableCredit(ORGANIZATION, 10 * USD, gate.version)
    await gate.close_hold(hold, 10 * USD)
    [entry] = blocking.read_waiting(ORGANIZATION, count=10)
    settled = SpendableCredit(ORGANIZATION, 0, gate.version + 1)
    blocking.confirm_batch(SettledBatch(ORGANIZATION, [entry.stream_id], [settled], []), epoch=gate.epoch)
    gate.server.delete(NAMES.epoch)  # As Redis is another process now.
    await gate.open()
    publication = Publication(
        ORGANIZATION, f"org:{ORGANIZATION}", 1, {"status": "active"}, today(), stale.credit_nanos, stale.version
    )
    assert not await gate.client.publish(publication, epoch=read_under)
    assert not blocking.publish(publication, epoch=read_under)
    assert await gate.admit(gate.hold(1)) == NotReady("LOAD org")
    assert gate.org("credit") == [0]


async def test_without_the_guard_of_the_epoch_it_would_be_published(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control of the test above: it fails where PUBLISH does not ask for the epoch."""
    guard = "if redis.call('GET', KEYS[1]) ~= ARGV[7] then return {'OTHER_EPOCH'} end\n"
    unguarded = publish.SCRIPT.text.replace(guard, "")
    assert unguarded != publish.SCRIPT.text
    monkeypatch.setattr(publish, "SCRIPT", make_script("publish", unguarded))
    with pytest.raises(AssertionError):
        await test_a_figure_that_was_read_before_a_rebuild_is_not_published_after_it(gate)
    assert gate.org("credit") == [10 * USD], "what was spent is there again"


async def test_what_is_to_be_loaded_says_under_which_epoch(gate: Gate) -> None:
    gate.server.delete(NAMES.org(ORGANIZATION))
    gate.server.srem(NAMES.index, f"org:{ORGANIZATION}")
    answer = await gate.admit(gate.hold(1))
    assert isinstance(answer, NotReady)
    assert (answer.reason, answer.epoch) == ("LOAD org", gate.epoch)


@pytest.mark.django_db
def test_the_feed_reads_again_what_a_rebuild_has_overtaken(monkeypatch: pytest.MonkeyPatch) -> None:
    organization = create_organization(name="Overtaken")
    read, readings = outbox.read_organization, 0

    def read_while_it_is_rebuilt(organization_id: int) -> Publication | None:
        nonlocal readings
        readings += 1
        publication = read(organization_id)
        if readings == 1:
            redis_client().flushall()
        return publication

    monkeypatch.setattr(outbox, "read_organization", read_while_it_is_rebuilt)
    outbox.publish_organizations([organization.pk])
    assert readings == 2
    assert redis_client().hget(SHARDS[organization.pk % 64].org(organization.pk), "status") == b"active"


async def test_a_confirmation_of_another_epoch_deletes_nothing(gate: Gate) -> None:
    """Its stream ids may be those of other events, where the clock was put back."""
    hold = gate.hold(USD)
    await gate.admit(hold)
    await gate.close_hold(hold, 5)
    [entry] = blocking.read_waiting(ORGANIZATION, count=10)
    batch = SettledBatch(ORGANIZATION, [entry.stream_id], [], [])
    assert blocking.confirm_batch(batch, epoch="another:1") == 0
    assert gate.org("unsettled") == [5]
    assert blocking.confirm_batch(batch, epoch=gate.epoch) == 1
    assert gate.org("unsettled") == [0]


async def test_all_that_is_posted_is_told_before_the_first_entry_goes(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that dies between two calls leaves the cost counted twice, never not at all."""
    monkeypatch.setattr(confirm, "MAX_ENTRIES", 8)
    monkeypatch.setattr(confirm, "MAX_POSTED_DAYS", 2)
    hold = gate.hold(USD)
    await gate.admit(hold)
    await gate.close_hold(hold, 5)
    [entry] = blocking.read_waiting(ORGANIZATION, count=10)
    days = [PostedDay("org", ORGANIZATION, today() - back, 5) for back in reversed(range(6))]
    seen: list[tuple[int, int]] = []
    run = run_script

    def look_on(*args: object) -> object:
        seen.append((len(blocking.read_waiting(ORGANIZATION, count=1)), gate.org(f"posted:{today()}")[0]))
        return run(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(blocking, "run_script", look_on)
    credit = SpendableCredit(ORGANIZATION, 9 * USD, gate.version + 1)
    batch = SettledBatch(ORGANIZATION, [entry.stream_id] + [f"{n}-1" for n in range(1, 20)], [credit], days)
    assert blocking.confirm_batch(batch, epoch=gate.epoch) == 1
    assert len(seen) > 3
    assert all(waiting == 1 or posted == 5 for waiting, posted in seen)
    assert gate.org("credit", "unsettled", f"posted:{today()}") == [9 * USD, 0, 5]


async def test_a_lot_is_counted_to_its_last_millisecond_and_no_longer(gate: Gate) -> None:
    seconds, micros = gate.server.time()
    ends_at_ms = seconds * 1000 + micros // 1000 + 1_000
    await gate.publish_org(credit=400, expiries=f"{ends_at_ms}:300 {ends_at_ms + 10**7}:90")
    verdicts: list[tuple[int, bool]] = []
    while not verdicts or verdicts[-1][1] or time.time() * 1000 < ends_at_ms + 200:
        before = gate.server.time()
        hold = gate.hold(101)
        answer = await gate.admit(hold)
        after = gate.server.time()
        if isinstance(answer, Admitted):
            assert answer.admitted_at_ms < ends_at_ms
            await gate.client.close_hold(hold, cost_nanos=0, event=b"{}", input_tokens=0, output_tokens=0, release=True)
            blocking.confirm_batch(
                SettledBatch(ORGANIZATION, [e.stream_id for e in blocking.read_waiting(ORGANIZATION, count=9)], [], []),
                epoch=gate.epoch,
            )
        else:
            assert isinstance(answer, Refused)
            assert (answer.code, answer.current) == ("insufficient_balance", 100)
            assert after[0] * 1000 + after[1] // 1000 >= ends_at_ms
        verdicts.append((before[0] * 1000 + before[1] // 1000, isinstance(answer, Admitted)))
    assert {served for _, served in verdicts} == {True, False}
    assert not any(served for at, served in verdicts if at >= ends_at_ms)
    gate.server.delete(NAMES.opens)
    state = blocking.read_admission_state(ORGANIZATION)
    assert state is not None
    assert state.credit_nanos == 100


async def test_a_credit_beyond_what_lua_counts_exactly_is_told_exactly(gate: Gate) -> None:
    await gate.publish_org(credit=2**60 + 1)
    state = blocking.read_admission_state(ORGANIZATION)
    assert state is not None
    assert state.credit_nanos == 2**60 + 1


async def test_figures_tell_how_long_they_have_been_kept(gate: Gate) -> None:
    gate.server.flushall()
    await gate.client.rebuild(NAMES.prefix)
    await gate.publish_org()
    state = blocking.read_admission_state(ORGANIZATION)
    assert state is not None
    assert state.stood_ms == 0
    gate.server.delete(NAMES.opens)
    await asyncio.sleep(0.01)
    state = blocking.read_admission_state(ORGANIZATION)
    assert state is not None
    assert 0 < state.stood_ms < 60_000


async def test_amounts_that_no_request_can_have_write_nothing(gate: Gate) -> None:
    running = gate.hold(USD)
    await gate.admit(running)
    before = gate.everything()
    for amount in (-1, -USD, 2**63, 10**19):
        with pytest.raises(InvalidAmountError):
            await gate.admit(gate.hold(amount))
        with pytest.raises(InvalidAmountError):
            await gate.close_hold(running, amount)
        lost = gate.hold(USD)
        lost.cost_so_far_nanos = amount
        with pytest.raises(InvalidAmountError):
            await gate.client.restore_hold(lost)
    assert gate.everything() == before
    running.cost_so_far_nanos, running.checkpoint, running.checkpoint_is_new = -5, b'{"bad":1}', True
    renewed = await gate.client.renew_leases(ORGANIZATION, [running])
    assert renewed.states == {running.request_id: "ok"}
    assert gate.server.hmget(NAMES.hold(running.request_id), "cost", "event") == [b"0", b'{"orphan":true}']


async def test_admission_tells_redis_time_and_an_orphan_keeps_it(gate: Gate) -> None:
    hold = gate.hold(USD)
    seconds, micros = gate.server.time()
    answer = await gate.admit(hold)
    assert isinstance(answer, Admitted)
    assert abs(answer.admitted_at_ms - seconds * 1000 - micros // 1000) < 5_000
    again = await gate.admit(hold)
    assert isinstance(again, Admitted)
    assert again.admitted_at_ms == answer.admitted_at_ms
    gate.server.zadd(NAMES.deadlines, {hold.request_id: 1})
    gate.server.hset(NAMES.reaper, mapping={"ran_at": seconds * 1000, "judges_from": 1})
    blocking.reap_shards()
    [entry] = blocking.read_waiting(ORGANIZATION, count=10)
    assert (entry.key_id, entry.admitted_at_ms) == (KEY, answer.admitted_at_ms)
