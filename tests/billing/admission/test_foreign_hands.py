"""Somebody with redis-cli at hand: what is deleted is noticed, what is of the wrong kind wedges nothing for ever."""

from collections.abc import Callable
from contextlib import suppress

import pytest

from billing.admission import blocking
from billing.admission.calls.admit import Admitted, Refused
from billing.admission.calls.not_ready import NotReady
from billing.admission.calls.renew import Renewed
from billing.admission.damage import MendingPace
from billing.admission.errors import AdmissionUnavailableError, ShardRebuildingError
from billing.admission.hold import Hold
from billing.admission.redis_keys import SHARDS
from billing.usage_stream import SettledBatch
from tests.billing.admission.conftest import KEY, ORGANIZATION, USD, Gate

NAMES = SHARDS[ORGANIZATION]
KINDS = ("string", "hash", "list", "set", "zset", "stream")
NAMED = (
    "epoch", "opens", "index", "deadlines", "usage", "usage_count", "vanished", "reaper", "org", "key", "hold",
    "orphaned", "rate",
)  # fmt: skip
# A string in the place of a tombstone, or of what only people see, is one.
STRINGS = (("orphaned", "string"), ("vanished", "string"))
FOREIGN = [(name, kind) for name in NAMED for kind in KINDS if (name, kind) not in STRINGS]


def put(gate: Gate, name: str, kind: str) -> None:
    server = gate.server
    server.delete(name)
    if kind == "string":
        server.set(name, "x")
    elif kind == "hash":
        server.hset(name, "x", "y")
    elif kind == "list":
        server.rpush(name, "x")
    elif kind == "set":
        server.sadd(name, "x")
    elif kind == "zset":
        server.zadd(name, {"x": 1})
    else:
        server.xadd(name, {"x": "y"})


@pytest.fixture(autouse=True)
def _may_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocking, "_mending", MendingPace())


async def beat_again(gate: Gate, running: Hold) -> Renewed:
    """As a gateway does each second: a heartbeat may find the shard rebuilt twice within a moment."""
    with suppress(ShardRebuildingError):
        return await gate.client.renew_leases(ORGANIZATION, [running])
    return await gate.client.renew_leases(ORGANIZATION, [running])


async def load_all(gate: Gate) -> None:
    gate.server.delete(NAMES.opens)
    for _ in range(3):
        answer = await gate.admit(gate.hold(1))
        if answer == NotReady("REBUILD"):
            gate.server.delete(NAMES.opens)
        if answer in (NotReady("LOAD org"), NotReady("LOAD key")):
            await gate.publish_org()
            await gate.publish_key()


async def test_a_deleted_stream_is_noticed_and_sent_again(gate: Gate) -> None:
    """Coverage is told by the stream's head: a stream that is gone must not look like one that is settled."""
    lost, later = gate.hold(USD), gate.hold(USD)
    for hold in (lost, later):
        await gate.admit(hold)
    await gate.close_hold(lost, 5)
    epoch = gate.epoch
    gate.server.delete(NAMES.usage)
    await gate.close_hold(later, 7)  # Its entry would be the head, and all before it settled.
    renewed = await gate.client.renew_leases(ORGANIZATION, [])
    assert renewed.epoch != epoch
    assert [entry.cost_nanos for entry in blocking.read_waiting(ORGANIZATION, count=10)] == [7]
    assert gate.org("unsettled", "held", "open") == [7, 0, 0]
    gate.server.rename(NAMES.usage, NAMES.usage + ":elsewhere")  # In the same slot of a Cluster.
    before = gate.epoch
    blocking.reap_shards()
    assert gate.epoch not in (before, "")
    assert gate.server.exists(NAMES.usage)


async def test_entries_that_are_deleted_are_noticed_and_not_taken_for_settled(gate: Gate) -> None:
    """An operator's XTRIM or XDEL: the head moves past what nobody has settled."""
    trimmed: tuple[Callable[[], int], ...] = (
        lambda: gate.server.xtrim(NAMES.usage, maxlen=1, approximate=False),
        lambda: gate.server.xdel(NAMES.usage, blocking.read_waiting(ORGANIZATION, count=9)[1].stream_id),
        lambda: gate.server.xtrim(NAMES.usage, maxlen=0, approximate=False),
    )
    vanished = 0
    for number, delete in enumerate(trimmed):
        for cost in (3, 5):
            hold = gate.hold(USD)
            await gate.admit(hold)
            await gate.close_hold(hold, cost)
        epoch = gate.epoch
        vanished += delete()
        if number == 1:
            blocking.reap_shards()
        else:
            await gate.client.renew_leases(ORGANIZATION, [])
        assert gate.epoch != epoch, "gateways send again what they have"
        left = [entry.cost_nanos for entry in blocking.read_waiting(ORGANIZATION, count=9)]
        assert gate.org("unsettled") == [sum(left)]
        gate.server.delete(NAMES.opens)
        await load_all(gate)
    assert int(gate.server.get(NAMES.vanished) or 0) == vanished == 6
    assert 0 < gate.server.ttl(NAMES.vanished) <= 7 * 86_400


async def test_what_is_confirmed_or_was_put_there_by_others_is_no_damage(gate: Gate) -> None:
    epoch = gate.epoch
    for _ in range(3):
        hold = gate.hold(USD)
        await gate.admit(hold)
        await gate.close_hold(hold, 5)
        gate.server.xadd(NAMES.usage, {"who": "knows"})
        waiting = [entry.stream_id for entry in blocking.read_waiting(ORGANIZATION, count=9)]
        blocking.confirm_batch(SettledBatch(ORGANIZATION, waiting, [], []), epoch=epoch)
        await gate.client.renew_leases(ORGANIZATION, [])
        blocking.reap_shards()
    gate.server.delete(NAMES.usage_count)  # As where an older version has built the shard.
    hold = gate.hold(USD)
    await gate.admit(hold)
    await gate.close_hold(hold, 5)
    await gate.client.renew_leases(ORGANIZATION, [])
    assert gate.epoch == epoch
    gate.server.xtrim(NAMES.usage, maxlen=0, approximate=False)
    blocking.rebuild_shard(ORGANIZATION, force=True)
    assert gate.epoch != epoch, "a build by hand hides it from nobody"
    assert gate.server.get(NAMES.vanished) == b"1"


async def test_what_others_appended_for_whom_redis_does_not_know_gives_nobody_credit(gate: Gate) -> None:
    """The counters of an organization that is not loaded are in no index, so that a rebuild would pass them by."""
    blocking.rebuild_shard(ORGANIZATION, force=True)
    gate.server.delete(NAMES.org(ORGANIZATION), NAMES.key(KEY), NAMES.index)
    entry = {"organization": ORGANIZATION, "key": KEY, "cost": 5 * USD, "day": 20_000, "event": "{}"}
    gate.server.xadd(NAMES.usage, entry)  # type: ignore[arg-type]  # redis-py says less than it takes.
    waiting = [entry.stream_id for entry in blocking.read_waiting(ORGANIZATION, count=9)]
    blocking.confirm_batch(SettledBatch(ORGANIZATION, waiting, [], []), epoch=gate.epoch)
    blocking.reap_shards()
    await load_all(gate)
    assert gate.org("unsettled") == [0]
    assert not gate.server.hexists(NAMES.key(KEY), "unsettled:20000")


async def test_an_idle_stream_is_there_and_no_damage(gate: Gate) -> None:
    epoch = gate.epoch
    for _ in range(3):
        assert (await gate.client.renew_leases(ORGANIZATION, [])).epoch == epoch
        blocking.reap_shards()
    blocking.rebuild_shard(ORGANIZATION, force=True)
    assert (await gate.client.renew_leases(ORGANIZATION, [])).epoch == epoch


async def test_a_deleted_hold_or_deadline_is_put_back_and_counted_once(gate: Gate) -> None:
    hold = gate.hold(USD)
    await gate.admit(hold)
    gate.server.delete(NAMES.hold(hold.request_id))
    assert (await gate.client.renew_leases(ORGANIZATION, [hold])).states == {hold.request_id: "missing"}
    assert await gate.client.restore_hold(hold)
    assert gate.org("held", "open") == [USD, 1]
    gate.server.delete(NAMES.deadlines)
    blocking.rebuild_shard(ORGANIZATION, force=True)
    assert gate.org("held", "open") == [0, 0]
    assert (await gate.client.renew_leases(ORGANIZATION, [hold])).states == {hold.request_id: "ok"}
    assert gate.org("held", "open") == [USD, 1]
    await gate.close_hold(hold, 5)
    assert gate.org("held", "open", "unsettled") == [0, 0, 5]


async def test_a_deleted_organization_does_not_forget_what_it_holds_and_owes(gate: Gate) -> None:
    running, done = gate.hold(3 * USD), gate.hold(USD)
    for hold in (running, done):
        await gate.admit(hold)
    await gate.close_hold(done, 2 * USD)
    gate.server.delete(NAMES.org(ORGANIZATION), NAMES.key(KEY))
    assert await gate.admit(gate.hold(1)) == NotReady("LOAD org")
    with pytest.raises(AssertionError):
        await gate.publish_org()  # Read under an epoch that has ended.
    await gate.open()
    await gate.publish_org()
    await gate.publish_key()
    assert gate.org("held", "unsettled", "open") == [3 * USD, 2 * USD, 1]
    assert isinstance(await gate.admit(gate.hold(5 * USD + 1)), Refused)
    assert isinstance(await gate.admit(gate.hold(5 * USD)), Admitted)


@pytest.mark.parametrize(("name", "kind"), FOREIGN)
async def test_a_key_of_the_wrong_kind_wedges_nothing(gate: Gate, name: str, kind: str) -> None:
    await gate.publish_org(requests_per_minute=1000, output_tokens_per_minute=100_000)
    running, done = gate.hold(3 * USD), gate.hold(USD)
    for hold in (running, done):
        await gate.admit(hold)
    key = {
        "org": NAMES.org(ORGANIZATION),
        "key": NAMES.key(KEY),
        "hold": NAMES.hold(running.request_id),
        "orphaned": NAMES.orphaned(running.request_id),
        "rate": NAMES.rate("org", ORGANIZATION, "requests"),
    }.get(name) or str(getattr(NAMES, name))
    put(gate, key, kind)
    waiting = [shard for shard in blocking.reap_shards() if shard.shard == ORGANIZATION]
    assert len(waiting) == 1
    await gate.close_hold(done, 2 * USD, output_tokens=5)
    renewed = await beat_again(gate, running)
    if renewed.states[running.request_id] == "missing":
        assert await gate.client.restore_hold(running)
    await load_all(gate)
    gate.server.delete(NAMES.opens)
    assert 2 * USD in [entry.cost_nanos for entry in blocking.read_waiting(ORGANIZATION, count=10)]
    state = blocking.read_admission_state(ORGANIZATION)
    assert state is not None
    assert state.unsettled_nanos in (2 * USD, 4 * USD)  # Appended twice where the script stumbled: settled once.
    assert 3 * USD <= state.held_nanos <= 3 * USD + 9
    assert isinstance(await gate.admit(gate.hold(1)), Admitted)


@pytest.mark.parametrize("value", ["", "x", "-5", "1e99", "9" * 30, "nan"])
async def test_fields_that_are_no_numbers_wedge_nothing(gate: Gate, value: str) -> None:
    running = gate.hold(3 * USD)
    await gate.admit(running)
    gate.server.hset(NAMES.hold(running.request_id), mapping={"amount": value, "cost": value, "day": value})
    gate.server.hset(NAMES.org(ORGANIZATION), mapping={"held": value, "unsettled": value, "open": value})
    gate.server.zadd(NAMES.deadlines, {running.request_id: 1})
    gate.server.hset(NAMES.reaper, mapping={"ran_at": 10**12, "judges_from": value})
    for _ in range(2):
        blocking.reap_shards()
    renewed = await beat_again(gate, running)
    if renewed.states[running.request_id] == "missing":
        assert await gate.client.restore_hold(running)
    await load_all(gate)
    blocking.reap_shards()
    await gate.close_hold(running, 5)
    gate.server.delete(NAMES.opens)
    await load_all(gate)
    assert 5 in [entry.cost_nanos for entry in blocking.read_waiting(ORGANIZATION, count=10)]


async def test_a_script_that_goes_on_failing_closes_its_shard_once(gate: Gate) -> None:
    put(gate, NAMES.usage, "list")
    await gate.client.renew_leases(ORGANIZATION, [])
    put(gate, NAMES.usage, "list")
    with pytest.raises(AdmissionUnavailableError, match="WRONGTYPE"):
        await gate.client.renew_leases(ORGANIZATION, [])
