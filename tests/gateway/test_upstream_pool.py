"""What a process knows of upstreams: calls that run, credentials that rest, and what other processes tell."""

import dataclasses
import os
import time
from collections.abc import AsyncIterator

import pytest

from billing.admission.client import AdmissionClient
from billing.admission.pipeline import ScriptRouter
from billing.admission.topology import AsyncServers, read_topology
from gateway.upstreams import pool
from gateway.upstreams.pool import UpstreamPool, fingerprint, split_credentials
from tests.gateway.test_routing import route

ALICE, BOB, CHARLIE, DORA, EMIL = 1, 2, 3, 4, 5
ROUTE = route(1)
TWO = dataclasses.replace(ROUTE, credential="key-a, key-b")


@pytest.fixture
async def admission() -> AsyncIterator[AdmissionClient]:
    servers = AsyncServers(read_topology(os.environ["REDIS_URL"]), timeout_seconds=5.0)
    router = ScriptRouter(servers, timeout_seconds=5.0)
    client = AdmissionClient(router, lease_seconds=60, reopen_seconds=3.0, max_waiting_events=5)
    yield client
    await client.aclose()


def make_pool(failures_to_open: int = 3) -> UpstreamPool:
    return UpstreamPool(failures_to_open=failures_to_open)


def is_open_to(upstreams: UpstreamPool, organization_id: int) -> bool:
    return upstreams.may_call(ROUTE, organization_id, most_at_once=0)


def test_only_so_many_calls_run_at_once() -> None:
    upstreams = make_pool()
    for organization_id in (ALICE, BOB):
        assert upstreams.may_call(ROUTE, organization_id, most_at_once=2)
        upstreams.begin(ROUTE, organization_id)
    assert not upstreams.may_call(ROUTE, CHARLIE, most_at_once=2)
    assert upstreams.may_call(ROUTE, CHARLIE, most_at_once=0), "no bound"
    assert upstreams.may_call(route(2), CHARLIE, most_at_once=2), "another upstream"
    upstreams.end(ROUTE, ALICE)
    assert upstreams.may_call(ROUTE, CHARLIE, most_at_once=2)


def test_one_organization_leaves_places_to_others() -> None:
    upstreams = make_pool()
    running = 0
    while upstreams.may_call(ROUTE, ALICE, most_at_once=8):
        upstreams.begin(ROUTE, ALICE)
        running += 1
    assert running == 6
    assert upstreams.may_call(ROUTE, BOB, most_at_once=8)


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
    assert not upstreams.may_call(TWO, ALICE, most_at_once=0)
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


def test_a_poisoned_probe_does_not_keep_it_closed_to_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection could be made again: that the request which came first then failed is its own affair."""
    upstreams = make_pool()
    for _ in range(3):
        upstreams.note_unreachable(ROUTE)
    now = time.monotonic() + 6
    monkeypatch.setattr(time, "monotonic", lambda: now)
    assert is_open_to(upstreams, ALICE), "the probe"
    upstreams.note_failure(ROUTE, ALICE)
    assert is_open_to(upstreams, BOB)


def test_organizations_are_forgotten_beyond_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "MAX_KNOWN_ORGANIZATIONS", 2)
    upstreams = make_pool(failures_to_open=1)
    for organization_id in (ALICE, BOB, CHARLIE):
        upstreams.note_failure(ROUTE, organization_id)
    assert is_open_to(upstreams, ALICE)
    assert not is_open_to(upstreams, CHARLIE)


async def test_processes_tell_each_other_what_everybody_shares(admission: AdmissionClient) -> None:
    one, other = make_pool(2), make_pool(2)
    one.note_unreachable(ROUTE)
    one.note_unreachable(ROUTE)
    one.suspend_credential(TWO, "key-a")
    for _ in range(9):
        one.note_failure(route(2), ALICE)
    assert is_open_to(other, ALICE)
    await one.share(admission)
    await other.share(admission)
    assert not is_open_to(other, ALICE)
    assert other.may_call(route(2), ALICE, most_at_once=0), "what one organization met is not told"
    assert {other.choose_credential(TWO) for _ in range(2)} == {"key-b"}
    # A process that starts now learns it as well, and that it is over.
    third = make_pool(2)
    await third.share(admission)
    assert not is_open_to(third, ALICE)
    one.note_success(ROUTE, ALICE)
    await one.share(admission)
    fourth = make_pool(2)
    await fourth.share(admission)
    assert is_open_to(fourth, ALICE)
    assert {fourth.choose_credential(TWO) for _ in range(2)} == {"key-b"}


def test_operators_see_a_fingerprint_and_never_the_credential() -> None:
    assert "key-a" not in fingerprint("key-a")
    assert fingerprint("key-a") != fingerprint("key-b")


def test_who_may_not_call_anyway_does_not_take_the_probe_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Alice's own breaker is open for longer than the one that everybody shares."""
    upstreams = make_pool()
    began = time.monotonic()

    def wait_until(seconds: float) -> None:
        monkeypatch.setattr("gateway.upstreams.pool.time.monotonic", lambda: began + seconds)

    for seconds in (0, 6, 17, 38):  # It opens for 5, 10, 20 and 40 s.
        wait_until(seconds)
        is_open_to(upstreams, ALICE)
        for _ in range(3 if seconds == 0 else 1):
            upstreams.note_failure(ROUTE, ALICE)
    wait_until(40)
    for _ in range(3):
        upstreams.note_unreachable(ROUTE)
    wait_until(46)
    assert not is_open_to(upstreams, ALICE)
    assert is_open_to(upstreams, BOB)
    assert not is_open_to(upstreams, CHARLIE), "Bob is the probe"
