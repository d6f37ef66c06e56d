"""What a process knows of upstreams: how many calls run, which keys rest, and what it learns from other processes."""

import dataclasses
import os
from collections.abc import AsyncIterator

import pytest

from billing.admission.client import AdmissionClient
from billing.admission.pipeline import ScriptRouter
from billing.admission.topology import AsyncServers, read_topology
from gateway.upstreams import pool
from gateway.upstreams.pool import UpstreamPool, fingerprint, split_keys
from tests.gateway.test_routing import route

ROUTE = route(1)
TWO_KEYS = dataclasses.replace(ROUTE, credential="key-a, key-b")


@pytest.fixture
async def admission() -> AsyncIterator[AdmissionClient]:
    servers = AsyncServers(read_topology(os.environ["REDIS_URL"]), timeout_seconds=5.0)
    router = ScriptRouter(servers, timeout_seconds=5.0)
    client = AdmissionClient(router, lease_seconds=60, reopen_seconds=3.0, max_waiting_events=5)
    yield client
    await client.aclose()


def test_only_so_many_calls_run_at_once() -> None:
    upstreams = UpstreamPool(failures_to_open=3)
    for _ in range(2):
        assert upstreams.may_call(ROUTE, most_at_once=2)
        upstreams.begin(ROUTE)
    assert not upstreams.may_call(ROUTE, most_at_once=2)
    assert upstreams.may_call(ROUTE, most_at_once=0), "no bound"
    assert upstreams.may_call(route(2), most_at_once=2), "another upstream"
    upstreams.end(ROUTE)
    assert upstreams.may_call(ROUTE, most_at_once=2)


@pytest.mark.parametrize(
    ("credential", "keys"), [("", []), ("a", ["a"]), ("a,b", ["a", "b"]), (" a , b ,", ["a", "b"]), (",", [])]
)
def test_a_variable_holds_one_key_or_several(credential: str, keys: list[str]) -> None:
    assert split_keys(credential) == keys


def test_keys_rotate_and_a_parked_one_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    upstreams = UpstreamPool(failures_to_open=3)
    assert {upstreams.choose_key(TWO_KEYS) for _ in range(2)} == {"key-a", "key-b"}
    upstreams.park_key(TWO_KEYS, "key-a")
    assert {upstreams.choose_key(TWO_KEYS) for _ in range(4)} == {"key-b"}
    monkeypatch.setattr(pool, "PARK_SECONDS", 0.0)
    upstreams.park_key(TWO_KEYS, "key-b")
    assert upstreams.choose_key(TWO_KEYS) == "key-b", "its rest is over"
    monkeypatch.undo()
    upstreams.park_key(TWO_KEYS, "key-b")
    assert upstreams.choose_key(TWO_KEYS) == ""
    assert not upstreams.may_call(TWO_KEYS, most_at_once=0)
    assert upstreams.may_call(ROUTE, most_at_once=0), "it needs no key"


async def test_processes_tell_each_other_of_breakers_and_keys(admission: AdmissionClient) -> None:
    one, other = UpstreamPool(failures_to_open=2), UpstreamPool(failures_to_open=2)
    one.note_failure(ROUTE)
    one.note_failure(ROUTE)
    one.park_key(TWO_KEYS, "key-a")
    assert other.may_call(ROUTE, most_at_once=0)
    await one.share(admission)
    await other.share(admission)
    assert not other.may_call(ROUTE, most_at_once=0)
    assert {other.choose_key(TWO_KEYS) for _ in range(2)} == {"key-b"}
    # A process that starts now learns it as well, and that it is over.
    third = UpstreamPool(failures_to_open=2)
    await third.share(admission)
    assert not third.may_call(ROUTE, most_at_once=0)
    one.note_success(ROUTE)
    await one.share(admission)
    fourth = UpstreamPool(failures_to_open=2)
    await fourth.share(admission)
    assert fourth.may_call(ROUTE, most_at_once=0)
    assert {fourth.choose_key(TWO_KEYS) for _ in range(2)} == {"key-b"}


def test_operators_see_a_fingerprint_and_never_the_key() -> None:
    assert "key-a" not in fingerprint("key-a")
    assert fingerprint("key-a") != fingerprint("key-b")
