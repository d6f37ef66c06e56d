"""Somebody with redis-cli at hand: what is deleted is noticed, what is of the wrong kind wedges nothing for ever."""

from contextlib import suppress

import pytest

from billing.admission import worker
from billing.admission.client import Admitted, Beaten, Hold, NotReady, Refused
from billing.admission.damage import MendingPace
from billing.admission.errors import AdmissionUnavailableError, ShardRebuildingError
from billing.admission.names import SHARDS
from tests.billing.admission.conftest import KEY, ORGANIZATION, USD, Gate

NAMES = SHARDS[ORGANIZATION]
KINDS = ("string", "hash", "list", "set", "zset", "stream")
NAMED = ("epoch", "opens", "index", "deadlines", "usage", "reaper", "org", "key", "hold", "orphaned", "rate")
# A string in the place of a tombstone is one.
FOREIGN = [(name, kind) for name in NAMED for kind in KINDS if (name, kind) != ("orphaned", "string")]


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
    monkeypatch.setattr(worker, "_mending", MendingPace())


async def beat_again(gate: Gate, running: Hold) -> Beaten:
    """As a gateway does each second: a beat may find the shard built anew twice within a moment."""
    with suppress(ShardRebuildingError):
        return await gate.client.beat(ORGANIZATION, [running])
    return await gate.client.beat(ORGANIZATION, [running])


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
    await gate.settle(lost, 5)
    epoch = gate.epoch
    gate.server.delete(NAMES.usage)
    await gate.settle(later, 7)  # Its entry would be the head, and all before it settled.
    beaten = await gate.client.beat(ORGANIZATION, [])
    assert beaten.epoch != epoch
    assert [entry.cost_nanos for entry in worker.read_waiting(ORGANIZATION, count=10)] == [7]
    assert gate.org("unsettled", "held", "open") == [7, 0, 0]
    gate.server.rename(NAMES.usage, NAMES.usage + ":elsewhere")  # In the same slot of a Cluster.
    before = gate.epoch
    worker.pulse_shards()
    assert gate.epoch not in (before, "")
    assert gate.server.exists(NAMES.usage)


async def test_an_idle_stream_is_there_and_no_damage(gate: Gate) -> None:
    epoch = gate.epoch
    for _ in range(3):
        assert (await gate.client.beat(ORGANIZATION, [])).epoch == epoch
        worker.pulse_shards()
    worker.rebuild_shard(ORGANIZATION, force=True)
    assert (await gate.client.beat(ORGANIZATION, [])).epoch == epoch


async def test_a_deleted_hold_or_deadline_is_put_back_and_counted_once(gate: Gate) -> None:
    hold = gate.hold(USD)
    await gate.admit(hold)
    gate.server.delete(NAMES.hold(hold.request_id))
    assert (await gate.client.beat(ORGANIZATION, [hold])).states == {hold.request_id: "missing"}
    assert await gate.client.readd(hold)
    assert gate.org("held", "open") == [USD, 1]
    gate.server.delete(NAMES.deadlines)
    worker.rebuild_shard(ORGANIZATION, force=True)
    assert gate.org("held", "open") == [0, 0]
    assert (await gate.client.beat(ORGANIZATION, [hold])).states == {hold.request_id: "ok"}
    assert gate.org("held", "open") == [USD, 1]
    await gate.settle(hold, 5)
    assert gate.org("held", "open", "unsettled") == [0, 0, 5]


async def test_a_deleted_organization_does_not_forget_what_it_holds_and_owes(gate: Gate) -> None:
    running, done = gate.hold(3 * USD), gate.hold(USD)
    for hold in (running, done):
        await gate.admit(hold)
    await gate.settle(done, 2 * USD)
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
    waiting = [shard for shard in worker.pulse_shards() if shard.shard == ORGANIZATION]
    assert len(waiting) == 1
    await gate.settle(done, 2 * USD, output_tokens=5)
    beaten = await beat_again(gate, running)
    if beaten.states[running.request_id] == "missing":
        assert await gate.client.readd(running)
    await load_all(gate)
    gate.server.delete(NAMES.opens)
    assert 2 * USD in [entry.cost_nanos for entry in worker.read_waiting(ORGANIZATION, count=10)]
    figures = worker.read_figures(ORGANIZATION)
    assert figures is not None
    assert figures.unsettled_nanos in (2 * USD, 4 * USD)  # Appended twice where the script stumbled: settled once.
    assert 3 * USD <= figures.held_nanos <= 3 * USD + 9
    assert isinstance(await gate.admit(gate.hold(1)), Admitted)


@pytest.mark.parametrize("value", ["", "x", "-5", "1e99", "9" * 30, "nan"])
async def test_fields_that_are_no_numbers_wedge_nothing(gate: Gate, value: str) -> None:
    running = gate.hold(3 * USD)
    await gate.admit(running)
    gate.server.hset(NAMES.hold(running.request_id), mapping={"amount": value, "cost": value, "day": value})
    gate.server.hset(NAMES.org(ORGANIZATION), mapping={"held": value, "unsettled": value, "open": value})
    gate.server.zadd(NAMES.deadlines, {running.request_id: 1})
    gate.server.hset(NAMES.reaper, mapping={"beat": 10**12, "judges_from": value})
    for _ in range(2):
        worker.pulse_shards()
    beaten = await beat_again(gate, running)
    if beaten.states[running.request_id] == "missing":
        assert await gate.client.readd(running)
    await load_all(gate)
    worker.pulse_shards()
    await gate.settle(running, 5)
    gate.server.delete(NAMES.opens)
    await load_all(gate)
    assert 5 in [entry.cost_nanos for entry in worker.read_waiting(ORGANIZATION, count=10)]


async def test_a_script_that_goes_on_failing_closes_its_shard_once(gate: Gate) -> None:
    put(gate, NAMES.usage, "list")
    await gate.client.beat(ORGANIZATION, [])
    put(gate, NAMES.usage, "list")
    with pytest.raises(AdmissionUnavailableError, match="WRONGTYPE"):
        await gate.client.beat(ORGANIZATION, [])
