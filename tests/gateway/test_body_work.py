"""What may be done for bodies before they are paid: an allowance for each organization, and a thread for large ones."""

import asyncio
import threading

import pytest

from gateway.errors import GatewayError
from gateway.http.pieces import LARGE_BYTES
from gateway.server.body_work import (
    MAX_KNOWN_ORGANIZATIONS,
    MAX_WAITING_BYTES,
    MIN_CHARGED_BYTES,
    UNPAID_BYTES,
    UNPAID_BYTES_PER_SECOND,
    LargeBodies,
    UnpaidWork,
)

MEBIBYTE = 1024**2
ALICE, BOB, CAROL = 1, 2, 3


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_who_sends_too_much_is_refused_before_the_work_and_others_are_not() -> None:
    clock = Clock()
    work = UnpaidWork(clock)
    for _ in range(UNPAID_BYTES // (32 * MEBIBYTE)):
        work.charge(ALICE, 32 * MEBIBYTE)
    with pytest.raises(GatewayError) as refusal:
        work.charge(ALICE, 32 * MEBIBYTE)
    assert (refusal.value.status, refusal.value.code) == (429, "rate_limited_unpaid_work")
    assert refusal.value.retry_after_seconds == 32 * MEBIBYTE // UNPAID_BYTES_PER_SECOND
    work.charge(BOB, 32 * MEBIBYTE)
    clock.now += refusal.value.retry_after_seconds
    work.charge(ALICE, 32 * MEBIBYTE)


def test_a_refusal_by_the_allowance_costs_nothing_more() -> None:
    clock = Clock()
    work = UnpaidWork(clock)
    work.charge(ALICE, UNPAID_BYTES)
    for _ in range(1_000):
        with pytest.raises(GatewayError):
            work.charge(ALICE, MEBIBYTE)
    clock.now += 1
    work.charge(ALICE, MEBIBYTE)


def test_who_is_admitted_gets_it_back() -> None:
    work = UnpaidWork(Clock())
    for _ in range(100_000):
        work.charge(ALICE, 32 * MEBIBYTE)
        work.give_back(ALICE, 32 * MEBIBYTE)
    assert not work._unpaid


def test_small_bodies_count_too() -> None:
    work = UnpaidWork(Clock())
    for _ in range(UNPAID_BYTES // MIN_CHARGED_BYTES):
        work.charge(ALICE, 2)
    with pytest.raises(GatewayError):
        work.charge(ALICE, 2)


def test_what_is_remembered_is_bounded() -> None:
    work = UnpaidWork(Clock())
    for organization_id in range(MAX_KNOWN_ORGANIZATIONS + 10):
        work.charge(organization_id, 2)
    assert len(work._unpaid) == MAX_KNOWN_ORGANIZATIONS


def test_only_large_bodies_leave_the_event_loops_thread() -> None:
    async def threads() -> list[int]:
        bodies = LargeBodies()
        try:
            return [await bodies.admit(ALICE, size, threading.get_ident) for size in (0, LARGE_BYTES, LARGE_BYTES + 1)]
        finally:
            bodies.close()

    small, bound, large = asyncio.run(threads())
    assert small == bound == threading.get_ident() != large


def test_large_bodies_wait_within_a_bound_and_one_that_was_left_counts_until_it_is_done() -> None:
    async def scenario() -> None:
        bodies = LargeBodies()
        going_on = threading.Event()
        half = MAX_WAITING_BYTES // 2
        first = asyncio.create_task(bodies.admit(ALICE, half, going_on.wait))
        await asyncio.sleep(0)
        with pytest.raises(GatewayError):
            await bodies.admit(ALICE, LARGE_BYTES + 1, int)  # With whichever of its keys: the other half is others'.
        second = asyncio.create_task(bodies.admit(BOB, half, int))
        await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(GatewayError) as refusal:
            await bodies.admit(CAROL, LARGE_BYTES + 1, int)
        assert (refusal.value.status, refusal.value.code) == (503, "large_requests_waiting")
        assert await bodies.admit(CAROL, LARGE_BYTES, int) == 0  # Small ones wait for nobody.
        going_on.set()
        assert await second == 0
        await bodies.run(LARGE_BYTES + 1, int)  # The thread is done with the first; the loop learns of it next.
        await asyncio.sleep(0.1)
        assert await bodies.admit(ALICE, half, int) == 0
        assert not bodies._waiting_by
        bodies.close()

    asyncio.run(asyncio.wait_for(scenario(), 20))
