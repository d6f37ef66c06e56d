"""What a process knows of upstreams: calls that run, credentials that rest, and what other processes tell."""

import dataclasses
import os
import time
from collections.abc import AsyncIterator, Callable

import pytest

from billing.admission.errors import AdmissionUnavailableError
from billing.admission.redis.pipeline import ScriptRouter
from billing.admission.redis.topology import AsyncServers, read_topology
from billing.catalog.snapshot import UsableRoute
from billing.upstream_health.sharing import SharedUpstreamHealth
from gateway.upstreams import pool
from gateway.upstreams.breaker import OTHERS_PROBE_SECONDS, PROBE_SECONDS, WINDOW_SECONDS
from gateway.upstreams.pool import ACCOUNT_SECONDS, RunningCall, UpstreamPool, fingerprint, split_credentials
from tests.gateway.test_routing import route

ALICE, BOB, CHARLIE, DORA, EMIL = 1, 2, 3, 4, 5
ROUTE = route(1)
TWO = dataclasses.replace(ROUTE, credential="key-a, key-b")


@pytest.fixture
async def others() -> AsyncIterator[SharedUpstreamHealth]:
    servers = AsyncServers(read_topology(os.environ["REDIS_URL"]), timeout_seconds=5.0)
    router = ScriptRouter(servers, timeout_seconds=5.0)
    yield SharedUpstreamHealth(router)
    await router.aclose()


def make_pool(failures_to_open: int = 3) -> UpstreamPool:
    return UpstreamPool(failures_to_open=failures_to_open)


def begin(upstreams: UpstreamPool, organization_id: int, route: UsableRoute = ROUTE, **most: int) -> RunningCall:
    running = upstreams.begin(route, organization_id, most_at_once=most.get("most_at_once", 0))
    assert running is not None
    return running


def is_open_to(upstreams: UpstreamPool, organization_id: int, route: UsableRoute = ROUTE, **most: int) -> bool:
    """Begin a call, if it may be made; it runs on."""
    return upstreams.begin(route, organization_id, most_at_once=most.get("most_at_once", 0)) is not None


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Returns what lets so many seconds pass."""
    now = [1_000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def wait(seconds: float) -> None:
        now[0] += seconds

    return wait


def test_only_so_many_calls_run_at_once() -> None:
    upstreams = make_pool()
    of_alice, _ = [begin(upstreams, organization_id, most_at_once=2) for organization_id in (ALICE, BOB)]
    assert not is_open_to(upstreams, CHARLIE, most_at_once=2)
    assert is_open_to(upstreams, CHARLIE, route(2), most_at_once=2), "another upstream"
    upstreams.end(of_alice)
    assert is_open_to(upstreams, CHARLIE, most_at_once=2)
    assert is_open_to(upstreams, DORA, most_at_once=0), "no bound"


@pytest.mark.parametrize(("most_at_once", "of_one"), [(1, 1), (2, 1), (3, 2), (4, 3), (5, 4), (8, 6), (100, 75)])
def test_one_organization_leaves_places_to_others(most_at_once: int, of_one: int) -> None:
    upstreams = make_pool()
    running = [upstreams.begin(ROUTE, ALICE, most_at_once=most_at_once) for _ in range(most_at_once + 1)]
    assert sum(call is not None for call in running) == of_one
    assert is_open_to(upstreams, BOB, most_at_once=most_at_once) == (most_at_once > 1)


@pytest.mark.parametrize(
    ("variable", "credentials"),
    [("", []), ("a", ["a"]), ("a,b", ["a", "b"]), (" a , b ,", ["a", "b"]), (",", [])],
)
def test_a_variable_holds_one_credential_or_several(variable: str, credentials: list[str]) -> None:
    assert split_credentials(variable) == credentials


def test_credentials_rotate_and_a_suspended_one_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    upstreams = make_pool()
    assert {upstreams.choose_credential(TWO) for _ in range(2)} == {"key-a", "key-b"}
    upstreams.suspend_credential(TWO, "key-a")
    assert {upstreams.choose_credential(TWO) for _ in range(4)} == {"key-b"}
    monkeypatch.setattr(pool, "SUSPENSION_SECONDS", 0.0)
    upstreams.suspend_credential(TWO, "key-b")
    assert upstreams.choose_credential(TWO) == "key-b", "its rest is over"
    monkeypatch.undo()
    upstreams.suspend_credential(TWO, "key-b")
    assert upstreams.choose_credential(TWO) == ""
    assert not is_open_to(upstreams, ALICE, TWO)
    assert 290 < upstreams.seconds_until_usable(TWO, ALICE) <= 300
    assert is_open_to(upstreams, ALICE), "another needs no credential"


# --- who may close an upstream to whom: the rows of the table in docs/upstreams.md ---------------------------------


def test_failures_of_one_organization_close_the_upstream_to_that_one_only() -> None:
    upstreams = make_pool()
    for _ in range(50):
        upstreams.note_failure(ROUTE, ALICE)
    assert not is_open_to(upstreams, ALICE)
    assert upstreams.seconds_until_usable(ROUTE, ALICE) > 0
    assert is_open_to(upstreams, BOB)
    assert upstreams.seconds_until_usable(ROUTE, BOB) == 0


def test_an_upstream_that_fails_several_is_closed_to_others_at_their_first_failure_and_not_before() -> None:
    upstreams = make_pool()
    for organization_id in (ALICE, BOB, CHARLIE):
        for _ in range(3):
            upstreams.note_failure(ROUTE, organization_id)
    assert is_open_to(upstreams, DORA)
    upstreams.note_success(ROUTE, DORA)
    assert is_open_to(upstreams, DORA), "who is served goes on being served"
    upstreams.note_failure(ROUTE, EMIL)
    assert not is_open_to(upstreams, EMIL)


def test_what_carries_nothing_of_a_request_closes_it_to_all() -> None:
    upstreams = make_pool()
    for _ in range(3):
        upstreams.note_unreachable(ROUTE)
    assert not any(is_open_to(upstreams, organization_id) for organization_id in (ALICE, BOB))


def test_a_poisoned_probe_does_not_keep_it_closed_to_all(clock: Callable[[float], None]) -> None:
    """The connection could be made again: that the request which came first then failed is its own affair."""
    upstreams = half_open(clock)
    assert is_open_to(upstreams, ALICE), "the probe"
    upstreams.note_failure(ROUTE, ALICE)
    assert is_open_to(upstreams, BOB)


def half_open(clock: Callable[[float], None]) -> UpstreamPool:
    """Return a pool whose upstream could not be reached, and may be tried again since just now."""
    upstreams = make_pool()
    for _ in range(3):
        upstreams.note_unreachable(ROUTE)
    assert not is_open_to(upstreams, ALICE)
    clock(5)
    return upstreams


def test_a_probe_whose_client_left_keeps_the_upstream_from_nobody_else(clock: Callable[[float], None]) -> None:
    upstreams = half_open(clock)
    for _ in range(20):
        upstreams.end(begin(upstreams, ALICE))  # It left before anything was known, again and again.
        assert not is_open_to(upstreams, ALICE), "it lets others go first"
        upstreams.end(begin(upstreams, BOB))
    clock(OTHERS_PROBE_SECONDS)
    assert is_open_to(upstreams, BOB)


def test_a_probe_that_takes_long_is_joined_by_one_of_another_organization(clock: Callable[[float], None]) -> None:
    upstreams = half_open(clock)
    slow = begin(upstreams, ALICE)
    assert not is_open_to(upstreams, BOB)
    clock(OTHERS_PROBE_SECONDS)
    assert not is_open_to(upstreams, ALICE), "its own are no better evidence"
    of_bob = begin(upstreams, BOB)
    upstreams.end(slow)  # Not the probe any more: this makes no room.
    assert not is_open_to(upstreams, CHARLIE)
    upstreams.end(of_bob)
    assert is_open_to(upstreams, CHARLIE)
    clock(PROBE_SECONDS)
    assert is_open_to(upstreams, CHARLIE)


def test_a_connection_that_stands_opens_the_upstream_to_all_before_any_answer(clock: Callable[[float], None]) -> None:
    upstreams = half_open(clock)
    begin(upstreams, ALICE)
    upstreams.note_connected(ROUTE)
    assert all(is_open_to(upstreams, organization_id) for organization_id in (ALICE, BOB, CHARLIE))


def test_a_connection_from_before_it_closed_says_nothing(clock: Callable[[float], None]) -> None:
    upstreams = make_pool()
    for _ in range(3):
        upstreams.note_unreachable(ROUTE)
    upstreams.note_connected(ROUTE)
    assert not is_open_to(upstreams, ALICE)


def test_an_organization_that_left_its_own_probe_may_send_another_soon(clock: Callable[[float], None]) -> None:
    upstreams = make_pool()
    for _ in range(3):
        upstreams.note_failure(ROUTE, ALICE)
    clock(5)
    left = begin(upstreams, ALICE)
    upstreams.note_connected(ROUTE)  # Of its own breaker a connection says nothing.
    assert not is_open_to(upstreams, ALICE)
    upstreams.end(left)
    clock(OTHERS_PROBE_SECONDS)
    assert is_open_to(upstreams, ALICE)


def test_a_call_from_before_the_breaker_opened_ends_no_probe(clock: Callable[[float], None]) -> None:
    upstreams = make_pool()
    old = begin(upstreams, ALICE)
    for _ in range(3):
        upstreams.note_unreachable(ROUTE)
    clock(5)
    begin(upstreams, BOB)
    upstreams.end(old)
    assert not is_open_to(upstreams, CHARLIE)


def test_suspicion_ends_when_those_who_were_failed_are_served_or_a_while_later(clock: Callable[[float], None]) -> None:
    for is_served in (True, False):
        upstreams = make_pool()
        for organization_id in (ALICE, BOB, CHARLIE):
            for _ in range(3):
                upstreams.note_failure(ROUTE, organization_id)
        if is_served:
            clock(5)
            upstreams.note_success(ROUTE, BOB)
        else:
            clock(WINDOW_SECONDS)
        upstreams.note_failure(ROUTE, EMIL)
        assert is_open_to(upstreams, EMIL), "one failure is not enough any more"


def test_a_failure_costs_the_same_beside_ten_thousand_organizations() -> None:
    """Each failure used to walk through the breakers of all who had ever failed, on the event loop."""
    upstreams = make_pool(failures_to_open=1_000)
    started = time.process_time()
    for organization_id in range(pool.MAX_KNOWN_ORGANIZATIONS):
        upstreams.note_failure(ROUTE, organization_id)
    assert time.process_time() - started < 1, "it took five seconds"


def test_an_account_that_refuses_every_call_is_told_seldom(
    clock: Callable[[float], None], caplog: pytest.LogCaptureFixture
) -> None:
    upstreams = make_pool()
    for _ in range(1_000):
        upstreams.tell_of_account(ROUTE)
    assert len(caplog.records) == 1
    clock(ACCOUNT_SECONDS / 2 + 1)
    upstreams.tell_of_account(ROUTE)
    assert len(caplog.records) == 2, "before what was told first is over"


async def test_what_cannot_be_told_is_kept_once_of_a_kind_and_told_later(others: SharedUpstreamHealth) -> None:
    upstreams = make_pool()
    silent = AsyncServers(read_topology("redis://127.0.0.1:1/0"), timeout_seconds=0.2)
    router = ScriptRouter(silent, timeout_seconds=0.2)
    for _ in range(50):
        upstreams.suspend_credential(TWO, "key-a")
        with pytest.raises(AdmissionUnavailableError):
            await upstreams.share(SharedUpstreamHealth(router))
    assert len(upstreams._untold) == 1
    await router.aclose()
    await upstreams.share(others)
    other = make_pool()
    await other.share(others)
    assert {other.choose_credential(TWO) for _ in range(2)} == {"key-b"}


def test_organizations_are_forgotten_beyond_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "MAX_KNOWN_ORGANIZATIONS", 2)
    upstreams = make_pool(failures_to_open=1)
    for organization_id in (ALICE, BOB, CHARLIE):
        upstreams.note_failure(ROUTE, organization_id)
    assert is_open_to(upstreams, ALICE)
    assert not is_open_to(upstreams, CHARLIE)


async def test_processes_tell_each_other_what_everybody_shares(others: SharedUpstreamHealth) -> None:
    one, other = make_pool(2), make_pool(2)
    one.note_unreachable(ROUTE)
    one.note_unreachable(ROUTE)
    one.suspend_credential(TWO, "key-a")
    for _ in range(9):
        one.note_failure(route(2), ALICE)
    assert is_open_to(other, ALICE)
    await one.share(others)
    await other.share(others)
    assert not is_open_to(other, ALICE)
    assert is_open_to(other, ALICE, route(2)), "what one organization met is not told"
    assert {other.choose_credential(TWO) for _ in range(2)} == {"key-b"}
    # A process that starts now learns it as well, and that it is over.
    third = make_pool(2)
    await third.share(others)
    assert not is_open_to(third, ALICE)
    one.note_success(ROUTE, ALICE)
    await one.share(others)
    fourth = make_pool(2)
    await fourth.share(others)
    assert is_open_to(fourth, ALICE)
    assert {fourth.choose_credential(TWO) for _ in range(2)} == {"key-b"}


def test_operators_see_a_fingerprint_and_never_the_credential() -> None:
    assert "key-a" not in fingerprint("key-a")
    assert fingerprint("key-a") != fingerprint("key-b")


def test_who_may_not_call_anyway_does_not_take_the_probe_of_all(clock: Callable[[float], None]) -> None:
    """Alice's own breaker is open for longer than the one that everybody shares."""
    upstreams = make_pool()
    for seconds in (0, 6, 11, 21):  # It opens for 5, 10, 20 and 40 s.
        clock(seconds)
        is_open_to(upstreams, ALICE)
        for _ in range(3 if seconds == 0 else 1):
            upstreams.note_failure(ROUTE, ALICE)
    clock(2)
    for _ in range(3):
        upstreams.note_unreachable(ROUTE)
    clock(6)
    assert not is_open_to(upstreams, ALICE)
    assert is_open_to(upstreams, BOB)
    assert not is_open_to(upstreams, CHARLIE), "Bob is the probe"


def test_an_upstream_whose_variable_holds_no_credential_is_only_closed() -> None:
    upstreams, nobody = make_pool(), dataclasses.replace(ROUTE, credential=" , ")
    assert not is_open_to(upstreams, ALICE, nobody)
    assert upstreams.seconds_until_usable(nobody, ALICE) == 0.0
