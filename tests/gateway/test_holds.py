"""The hold_keeper on a real Redis: every admitted request reaches it, as often as is safe, whatever happens to it."""

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import cast

import pytest

from billing.admission import blocking
from billing.admission.calls.admit import Admitted, Refused
from billing.admission.calls.renew import Renewed
from billing.admission.errors import AdmissionUnavailableError
from billing.admission.hold import Hold
from billing.admission.redis_keys import SHARDS
from billing.usage_event import UsageEvent
from billing.usage_stream import SettledBatch
from gateway.holds import CLOSED, MAX_RENEWED_TOGETHER, PENDING, UNSAFE, HoldKeeper
from gateway.spool import Spool, SpooledEvent, read_all
from tests.billing.admission.conftest import KEY, ORGANIZATION, USD, Gate, gate, today

__all__ = ["gate"]  # A fixture: pytest finds it by its name.

NAMES = SHARDS[ORGANIZATION]
HEARTBEAT_SECONDS = 0.05
BOUND_SECONDS = 0.3
DEADLINE_SECONDS = 5.0


class Request:
    """A running request: writes a checkpoint when asked, and notes when it is told to stop."""

    def __init__(self, hold: Hold) -> None:
        self.hold = hold
        self.started = time.monotonic()
        self.is_orphaned = False

    def write_checkpoint(self) -> None:
        self.hold.cost_so_far_nanos = 17
        self.hold.checkpoint = b'{"checkpoint":true}'
        self.hold.checkpoint_is_new = True

    def on_orphaned(self) -> None:
        self.is_orphaned = True


class Bench:
    """A hold_keeper under test, and what it has written."""

    def __init__(self, gate: Gate, folder: Path) -> None:
        self.gate = gate
        self.folder = folder
        self.settled: set[str] = set()  # What Postgres would say it has.
        self.hold_keeper = self.make_hold_keeper()

    def make_hold_keeper(self) -> HoldKeeper:
        spool = Spool(self.folder, max_bytes=10**9, retention_seconds=3600.0)
        return HoldKeeper(
            self.gate.client,
            spool,
            heartbeat_seconds=HEARTBEAT_SECONDS,
            close_bound_seconds=BOUND_SECONDS,
            longest_seconds=60.0,
        )

    async def find_settled(self, request_ids: list[str]) -> set[str]:
        return self.settled & set(request_ids)

    async def start(self) -> None:
        await self.hold_keeper.start(self.find_settled)

    async def admit(self) -> Request:
        hold = self.gate.hold()
        await self.gate.admit(hold)
        request = Request(hold)
        self.hold_keeper.watch(request)
        return request

    async def close_hold(self, request: Request, *, cost: int = 5, release: bool = False) -> str:
        return await self.hold_keeper.close_hold(
            request.hold, cost_nanos=cost, event=b'{"event":1}', input_tokens=1, output_tokens=1, release=release
        )

    @property
    def entries(self) -> list[tuple[bytes, dict[bytes, bytes]]]:
        # redis-py types its replies for every protocol and decoding at once; here they are bytes.
        return cast(list[tuple[bytes, dict[bytes, bytes]]], self.gate.server.xrange(NAMES.usage))

    @property
    def waiting(self) -> list[dict[bytes, bytes]]:
        return [fields for _, fields in self.entries]

    def confirm_everything(self) -> None:
        """Delete the entries, as settlement does once Postgres has them."""
        ids = [entry_id.decode() for entry_id, _ in self.entries]
        blocking.confirm_batch(SettledBatch(ORGANIZATION, ids, [], []), epoch=self.gate.epoch)

    async def until(self, condition: Callable[[], object]) -> None:
        ends_at = time.monotonic() + DEADLINE_SECONDS
        while not condition():
            assert time.monotonic() < ends_at, "waited in vain"
            await asyncio.sleep(0.01)


@pytest.fixture
async def bench(gate: Gate, tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(gate, tmp_path / "spool")
    await bench.start()
    yield bench
    await bench.hold_keeper.stop()


async def test_a_closed_request_is_spooled_told_and_forgotten(bench: Bench) -> None:
    request = await bench.admit()
    assert bench.gate.org("held", "open") == [USD, 1]
    assert await bench.close_hold(request) == CLOSED
    assert bench.gate.org("held", "open", "unsettled") == [0, 0, 5]
    assert [fields[b"event"] for fields in bench.waiting] == [b'{"event":1}']
    assert [event.request_id for event in read_all(bench.folder)] == [request.hold.request_id]
    await asyncio.sleep(3 * HEARTBEAT_SECONDS)
    assert (bench.hold_keeper.unconfirmed_count, len(bench.waiting)) == (1, 1)
    bench.confirm_everything()
    await bench.until(lambda: bench.hold_keeper.unconfirmed_count == 0)


async def test_running_requests_keep_their_holds_and_leave_checkpoints(bench: Bench) -> None:
    request = await bench.admit()
    name = NAMES.hold(request.hold.request_id)
    before = bench.gate.server.zscore(NAMES.deadlines, request.hold.request_id)
    await bench.until(lambda: bench.gate.server.hget(name, "checkpoint") == b"1")
    assert bench.gate.server.hmget(name, "event", "cost") == [b'{"checkpoint":true}', b"17"]
    assert bench.gate.server.zscore(NAMES.deadlines, request.hold.request_id) > before  # type: ignore[operator]
    assert not request.is_orphaned


async def test_a_crowd_is_renewed_a_few_at_a_time(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two turns other work has its own; no script takes longer because there are more requests."""
    renewed: list[list[str]] = []
    renew = bench.gate.client.renew_leases

    async def noted(shard: int, holds: Sequence[Hold]) -> Renewed:
        renewed.append([hold.request_id for hold in holds])
        return await renew(shard, holds)

    await bench.gate.publish_org(credit=1_000 * USD)
    requests = [await bench.admit() for _ in range(2 * MAX_RENEWED_TOGETHER + 20)]
    monkeypatch.setattr(bench.gate.client, "renew_leases", noted)
    await bench.until(lambda: len(renewed) >= 7)
    first = next(number for number, part in enumerate(renewed) if requests[0].hold.request_id in part)
    turns = renewed[first : first + 3]
    assert [len(part) for part in turns] == [MAX_RENEWED_TOGETHER, MAX_RENEWED_TOGETHER, 20]
    assert [request_id for part in turns for request_id in part] == [each.hold.request_id for each in requests]
    assert all(bench.gate.server.hget(NAMES.hold(each.hold.request_id), "checkpoint") == b"1" for each in requests)
    await bench.close_hold(requests[-1])
    renewed.clear()
    await bench.until(lambda: len(renewed) >= 6)
    assert [len(part) for part in renewed if requests[-2].hold.request_id in part][-1] == 19


async def test_a_redis_that_lost_its_memory_is_told_again(bench: Bench) -> None:
    running, done = await bench.admit(), await bench.admit()
    assert await bench.close_hold(done) == CLOSED
    bench.gate.server.flushall()
    await bench.until(lambda: bench.waiting and bench.gate.server.exists(NAMES.hold(running.hold.request_id)))
    assert [fields[b"cost"] for fields in bench.waiting] == [b"5"]
    assert not running.is_orphaned
    assert bench.hold_keeper.running_count == 1


async def test_what_a_dead_process_had_spooled_takes_the_tokens_that_it_used(bench: Bench) -> None:
    """It died between its spool and Redis: the hold gives back what was reserved beyond what was used, not all."""
    gate = bench.gate
    await gate.publish_key(output_tokens_per_minute=1000)
    hold = gate.hold(1, output_tokens=900)
    await gate.admit(hold)
    event = UsageEvent(hold.request_id, ORGANIZATION, KEY, 1, "model", 1, 1_000_000, 1, 1, output_tokens=700)
    dead = Spool(bench.folder, max_bytes=10**9, retention_seconds=3600.0)
    dead.append(SpooledEvent(hold.request_id, ORGANIZATION, KEY, 5, hold.day, False, event.encode()))
    dead.close()
    heir = bench.make_hold_keeper()
    await heir.start(bench.find_settled)
    await bench.until(lambda: bench.waiting)
    assert isinstance(await gate.admit(gate.hold(1, output_tokens=400)), Refused)
    assert isinstance(await gate.admit(gate.hold(1, output_tokens=250)), Admitted)
    await heir.stop()


async def test_an_orphan_is_told_and_its_truth_is_taken(bench: Bench) -> None:
    request, late = await bench.admit(), await bench.admit()
    for each in (request, late):
        bench.gate.server.delete(NAMES.hold(each.hold.request_id))
        bench.gate.server.set(NAMES.orphaned(each.hold.request_id), "1")
    assert await bench.close_hold(late) == CLOSED  # The truth is taken whatever was judged before.
    await bench.until(lambda: request.is_orphaned)
    assert not late.is_orphaned
    assert len(bench.waiting) == 1
    assert (bench.hold_keeper.running_count, bench.hold_keeper.unconfirmed_count) == (0, 1)


async def test_an_event_that_is_kept_nowhere_is_not_safe(bench: Bench) -> None:
    """The disk refuses it, and Redis is silent: whoever has the end of the reply must not send it."""
    request = await bench.admit()
    await make_impatient(bench)
    bench.hold_keeper.watch(request)
    shutil.rmtree(bench.folder)
    bench.gate.server.execute_command("CLIENT", "PAUSE", 1_000)
    assert await bench.close_hold(request) == UNSAFE
    await bench.until(lambda: bench.waiting)  # It goes on being told to Redis.
    bench.folder.mkdir()


async def make_impatient(bench: Bench) -> None:
    """Start the hold_keeper again with a Redis that must answer at once: the fixture's own time-out is 5 s."""
    await bench.hold_keeper.stop()
    bench.hold_keeper = bench.make_hold_keeper()
    for pipeline in bench.gate.client._router._pipelines.values():
        pipeline._timeout_seconds = 0.05
        await pipeline.aclose()
    await bench.start()


async def test_a_silent_redis_is_waited_for_within_the_bound_and_told_later(bench: Bench) -> None:
    request = await bench.admit()
    await make_impatient(bench)
    bench.hold_keeper.watch(request)
    bench.gate.server.execute_command("CLIENT", "PAUSE", 1_000)
    started = time.monotonic()
    assert await bench.close_hold(request) == PENDING
    assert BOUND_SECONDS <= time.monotonic() - started < 3 * BOUND_SECONDS
    await bench.until(lambda: bench.gate.org("held", "open") == [0, 0])
    # An event may come twice, since nobody knows whether the first try ran; Postgres' unique key tells them apart.
    assert {fields[b"event"] for fields in bench.waiting} == {b'{"event":1}'}
    bench.confirm_everything()
    await bench.until(lambda: bench.hold_keeper.unconfirmed_count == 0)


async def test_what_a_dead_process_left_is_told_again_unless_postgres_has_it(gate: Gate, tmp_path: Path) -> None:
    dead = Bench(gate, tmp_path / "spool")
    requests = [await dead.admit() for _ in range(3)]
    for request in requests:
        await dead.close_hold(request)
    gate.server.flushall()
    dead.hold_keeper._spool.close()
    heir = Bench(gate, tmp_path / "spool")
    heir.settled = {requests[0].hold.request_id}
    await heir.start()
    await heir.until(lambda: len(heir.waiting) == 2)
    assert heir.hold_keeper.unconfirmed_count == 2
    heir.confirm_everything()
    await heir.until(lambda: heir.hold_keeper.unconfirmed_count == 0)
    await heir.hold_keeper.stop()


async def test_a_client_that_leaves_during_settlement_changes_nothing(bench: Bench) -> None:
    """The task that settles is cancelled; the event is told by the next heartbeat."""
    request = await bench.admit()
    closing = asyncio.ensure_future(bench.close_hold(request))
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    await bench.until(lambda: bench.gate.org("held", "open") == [0, 0])
    assert {fields[b"cost"] for fields in bench.waiting} == {b"5"}


async def test_one_bad_line_or_request_stops_no_heartbeat(gate: Gate, tmp_path: Path) -> None:
    class Speechless(Request):
        def write_checkpoint(self) -> None:
            raise TypeError("unsupported operand")

        def on_orphaned(self) -> None:
            raise RuntimeError("cannot be stopped")

    folder = tmp_path / "spool"
    folder.mkdir()
    good = SpooledEvent(f"{1:032x}", ORGANIZATION, KEY, 5, today(), False, b"{}")
    bad = b'[["a"],[7],{},"5",null,false,{}]\n["%b",%d,%d,-9,1,false,{}]\n' % (b"a" * 32, ORGANIZATION, KEY)
    (folder / "1-1.jsonl").write_bytes(bad + good.encode())
    bench = Bench(gate, folder)
    await bench.start()
    speechless = Speechless(gate.hold())
    orphaned = Speechless(gate.hold())
    for each in (speechless, orphaned):
        await gate.admit(each.hold)
        bench.hold_keeper.watch(each)
    gate.server.delete(NAMES.hold(orphaned.hold.request_id))
    gate.server.set(NAMES.orphaned(orphaned.hold.request_id), "1")
    healthy = await bench.admit()
    name = NAMES.hold(healthy.hold.request_id)
    await bench.until(lambda: bench.waiting and gate.server.hget(name, "checkpoint") == b"1")
    assert [fields[b"cost"] for fields in bench.waiting] == [b"5"]
    before = gate.server.zscore(NAMES.deadlines, speechless.hold.request_id)
    await bench.until(lambda: gate.server.zscore(NAMES.deadlines, speechless.hold.request_id) != before)
    assert await bench.close_hold(healthy) == CLOSED
    await bench.hold_keeper.stop()


async def test_what_redis_will_never_take_is_set_aside_once(bench: Bench) -> None:
    request = await bench.admit()
    assert await bench.close_hold(request, cost=10**18) == PENDING
    [aside] = bench.folder.glob("*.rejected")
    assert len(aside.read_bytes().splitlines()) == 1
    assert bench.hold_keeper.unconfirmed_count == 0


async def test_a_request_that_nobody_ends_is_given_up(bench: Bench) -> None:
    """Else a fault in our own code would hold an organization's money for as long as this process runs."""
    bench.hold_keeper.longest_seconds = 10 * HEARTBEAT_SECONDS
    forgotten = await bench.admit()
    await bench.until(lambda: forgotten.is_orphaned)
    assert bench.hold_keeper.running_count == 0
    assert await bench.close_hold(forgotten) == CLOSED  # Should it end after all.


async def test_a_process_that_stops_waits_for_redis_once_and_not_for_each_event(bench: Bench) -> None:
    requests = [await bench.admit() for _ in range(5)]
    tried = []

    async def close_hold(hold: Hold, **_: object) -> None:
        tried.append(hold.request_id)
        raise AdmissionUnavailableError("It is away.")

    bench.gate.client.close_hold = close_hold  # type: ignore[assignment, method-assign]
    for request in requests:
        bench.hold_keeper.resend(SpooledEvent(request.hold.request_id, ORGANIZATION, KEY, 5, today(), False, b"{}"))
    await bench.hold_keeper.stop()
    tried.clear()
    await bench.hold_keeper.stop()
    assert len(tried) == 1
