"""Calls that Redis does not answer in time: each may have run, and none holds up the next."""

import asyncio
import os
import socket
import time
from contextlib import suppress

import pytest
import redis
import uvloop

from billing.admission.calls.admit import Admitted
from billing.admission.client import AdmissionClient
from billing.admission.errors import AdmissionUnavailableError
from billing.admission.redis import pipeline
from billing.admission.redis.pipeline import ScriptRouter
from billing.admission.redis.topology import AsyncServers, read_topology
from billing.admission.redis.transport import transport_of
from billing.admission.redis_keys import SHARDS
from tests.billing.admission.conftest import ORGANIZATION, USD, Gate

TIMEOUT_SECONDS = 0.3
PAUSE_MS = 700
CALLS = 50
CROWD = 1_000
# Two pauses are longer than the time-out, and one leaves a busy machine enough of it.
CROWD_TIMEOUT_SECONDS, CROWD_PAUSE_MS = 3.0, 1_600
CONNECT_TRIES = 20


async def connect_client(*, shard: int = ORGANIZATION, timeout_seconds: float = TIMEOUT_SECONDS) -> AdmissionClient:
    """Return a client that soon loses patience, once it has found and reached the shard's Redis."""
    servers = AsyncServers(read_topology(os.environ["REDIS_URL"]), timeout_seconds=timeout_seconds)
    router = ScriptRouter(servers, timeout_seconds=timeout_seconds)
    client = AdmissionClient(router, lease_seconds=60.0, reopen_seconds=3.0, max_waiting_events=1_000_000)
    for _ in range(CONNECT_TRIES):
        with suppress(AdmissionUnavailableError):
            await client.renew_leases(shard, [])
            return client
    raise AssertionError("The client did not connect.")


@pytest.mark.single_redis
async def test_calls_that_time_out_together_may_all_have_run_and_can_all_be_released(gate: Gate) -> None:
    impatient = await connect_client()
    gate.server.execute_command("CLIENT", "PAUSE", PAUSE_MS)
    holds = [gate.hold(USD // CALLS) for _ in range(CALLS)]
    admissions = [impatient.admit(hold, key_config_version=gate.version) for hold in holds]
    outcomes = await asyncio.gather(*admissions, return_exceptions=True)
    assert [getattr(outcome, "may_have_run", None) for outcome in outcomes] == [True] * CALLS
    await asyncio.sleep(2 * PAUSE_MS / 1000)  # Some run late, others died with their connection.
    for hold in holds:
        hold.day = int(time.time()) // 86_400
        await impatient.close_hold(hold, cost_nanos=0, event=b"{}", input_tokens=0, output_tokens=0, release=True)
    assert gate.org("held", "open") == [0, 0]
    await impatient.aclose()


@pytest.mark.single_redis
async def test_what_was_never_sent_cannot_have_run(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "MAX_UNANSWERED_CALLS", 8)
    impatient = await connect_client()
    gate.server.execute_command("CLIENT", "PAUSE", PAUSE_MS)
    renewals = [impatient.renew_leases(shard, []) for shard in range(CALLS)]
    outcomes = await asyncio.gather(*renewals, return_exceptions=True)
    assert [getattr(outcome, "may_have_run", None) for outcome in outcomes] == [True] * 8 + [False] * (CALLS - 8)
    await impatient.aclose()


@pytest.mark.single_redis
async def test_a_crowd_is_served_in_turn(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """Longer than the time-out in all, and none of the calls waits for Redis that long."""
    monkeypatch.setattr(pipeline, "MAX_UNANSWERED_CALLS", 16)
    await gate.admit(gate.hold())  # Redis has the script from now on; else each of the crowd would send it.
    impatient = await connect_client(timeout_seconds=CROWD_TIMEOUT_SECONDS)
    gate.server.execute_command("CLIENT", "PAUSE", CROWD_PAUSE_MS)
    began = time.monotonic()
    crowd = [
        asyncio.create_task(impatient.admit(gate.hold(USD // CROWD), key_config_version=gate.version))
        for _ in range(CROWD)
    ]
    await asyncio.wait(crowd, return_when=asyncio.FIRST_COMPLETED)
    gate.server.execute_command("CLIENT", "PAUSE", CROWD_PAUSE_MS)
    assert {type(answer) for answer in await asyncio.gather(*crowd)} == {Admitted}
    assert time.monotonic() - began > CROWD_TIMEOUT_SECONDS
    await impatient.aclose()


async def test_a_server_that_is_away_and_back_is_found_again(gate: Gate, redis_client: redis.Redis) -> None:
    await gate.client.renew_leases(0, [])
    redis_client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    await asyncio.sleep(0.05)
    for _ in range(2):
        try:
            await gate.client.renew_leases(0, [])
        except AdmissionUnavailableError:
            continue
        return
    raise AssertionError("The pipeline did not connect again.")


def test_a_loop_that_was_busy_past_the_deadline_still_takes_the_reply(redis_client: redis.Redis) -> None:
    async def call_and_block() -> None:
        client = await connect_client(shard=0)
        redis_client.execute_command("CLIENT", "PAUSE", 50)
        call = asyncio.create_task(client.renew_leases(0, []))
        await asyncio.sleep(0.01)  # It is sent.
        time.sleep(3 * TIMEOUT_SECONDS)  # noqa: ASYNC251  As a burst of other work would.
        assert (await call).epoch
        await client.aclose()

    uvloop.run(call_and_block())


class StandsStill(asyncio.Protocol):
    """Whatever it receives lets the loop stand still past time-outs, among what it reads in one turn."""

    def data_received(self, data: bytes) -> None:
        time.sleep(3 * TIMEOUT_SECONDS)


def test_a_loop_that_stood_still_while_it_read_something_else_still_takes_the_reply(redis_client: redis.Redis) -> None:
    async def call_and_stand_still() -> None:
        client = await connect_client(shard=0)
        ours, theirs = socket.socketpair()
        with theirs:
            transport, _ = await asyncio.get_running_loop().create_connection(StandsStill, sock=ours)
            redis_client.execute_command("CLIENT", "PAUSE", 50)
            call = asyncio.create_task(client.renew_leases(0, []))
            await asyncio.sleep(0.01)  # It is sent.
            theirs.send(b"!")
            assert (await call).epoch
            transport.close()
        await client.aclose()

    uvloop.run(call_and_stand_still())


def test_a_loop_that_was_busy_before_it_could_send_gives_redis_its_time(redis_client: redis.Redis) -> None:
    """As with hundreds of requests that arrive in one turn of the loop: what they take is not Redis' fault."""

    async def call_and_block() -> None:
        client = await connect_client(shard=0)
        calls = []
        for _ in range(4):
            calls.append(asyncio.create_task(client.renew_leases(0, [])))
            asyncio.get_running_loop().call_soon(time.sleep, TIMEOUT_SECONDS)
        for call in calls:
            assert (await call).epoch
        await client.aclose()

    uvloop.run(call_and_block())


@pytest.mark.single_redis
async def test_a_server_that_was_made_a_replica_is_left(gate: Gate, redis_client: redis.Redis) -> None:
    await gate.client.renew_leases(ORGANIZATION, [])
    connected = _connections(redis_client)
    redis_client.replicaof("127.0.0.1", 1)
    try:
        with pytest.raises(AdmissionUnavailableError):
            await gate.admit(gate.hold())
        await asyncio.sleep(0.05)
        assert _connections(redis_client) < connected
    finally:
        redis_client.replicaof("NO", "ONE")


async def test_a_former_master_is_left(gate: Gate) -> None:
    """It answers like any master; only the Sentinels know that it is none."""
    servers = Moved(read_topology(os.environ["REDIS_URL"]), timeout_seconds=TIMEOUT_SECONDS)
    router = ScriptRouter(servers, timeout_seconds=TIMEOUT_SECONDS)
    client = AdmissionClient(router, lease_seconds=60.0, reopen_seconds=3.0, max_waiting_events=1000)
    await client.leave_former_master()  # Before there is a connection it does nothing.
    await client.renew_leases(0, [])
    waiting = asyncio.create_task(client.renew_leases(0, []))
    for _ in range(2):
        await asyncio.sleep(0)  # It is called, and sent.
    await client.leave_former_master()
    with pytest.raises(AdmissionUnavailableError, match="Another Redis is master") as failure:
        await waiting
    assert failure.value.may_have_run
    assert (await client.renew_leases(0, [])).epoch  # Over a new connection.
    await client.aclose()


class Moved(AsyncServers):
    """As where Sentinels have just named another master."""

    async def master_address(self) -> tuple[str, int]:
        return "127.0.0.1", 1


def _connections(redis_client: redis.Redis) -> int:
    return len(redis_client.client_list())


# --- private names of redis-py -----------------------------------------------------------------------------------


async def test_the_transport_beneath_a_connection_of_redis_py_is_to_be_had() -> None:
    servers = AsyncServers(read_topology(os.environ["REDIS_URL"]), timeout_seconds=5.0)
    connection = await servers.connect(await servers.address_of(SHARDS[ORGANIZATION].prefix))
    transport = transport_of(connection)
    assert transport.get_extra_info("peername") is not None or transport.get_extra_info("socket") is not None
    assert not transport.is_closing()
    await connection.disconnect()
    with pytest.raises(OSError, match="lost at once"):
        transport_of(connection)
    await servers.aclose()
