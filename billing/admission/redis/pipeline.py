"""Runs scripts on Redis from the gateway's event loop. Concurrent calls share one connection and its round trips.

Commands are written in the order in which they were asked for and their replies arrive in that order, so a connection
needs no lock: a queue of futures is enough. What was asked for in one turn of the event loop leaves in one write.
"""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import hiredis
import redis
from redis.asyncio.connection import AbstractConnection

from billing.admission.errors import AdmissionUnavailableError
from billing.admission.redis.script import Script
from billing.admission.redis.topology import Address, AsyncServers
from billing.admission.redis.transport import transport_of
from billing.time_outs import LOOK_AGAIN_SECONDS

MAX_QUEUED_CALLS = 20_000
# Calls that Redis has and has not answered. Further ones wait here: a crowd is then served in turn, while each call's
# time runs only from when it was sent, and what was never sent need not be taken back.
MAX_UNANSWERED_CALLS = 256
# Answers of a server that is no longer, or not yet, the one to ask.
LEAVE_SERVER = ("READONLY", "LOADING", "MASTERDOWN")
Arg = bytes | str | int

NOT_COMPLETE = object()


class ScriptConnection(asyncio.Protocol):
    """A connection that redis-py has opened, and whose bytes are ours from then on. Once closed it stays so.

    Half of what a call costs with redis-py's own reader and packer is saved by this (docs/speed.md).
    """

    def __init__(self, connection: AbstractConnection, *, timeout_seconds: float) -> None:
        self.is_open = True
        self._opened = connection  # It would close its socket if nobody held it.
        self._transport = transport_of(connection)
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(replyError=redis.ResponseError, notEnoughData=NOT_COMPLETE)
        self._timeout_seconds = timeout_seconds
        self._unsent: list[bytes] = []
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._replies = 0
        # For each write: how many replies there are once all its commands are answered, and until when that may take.
        self._overdue: deque[tuple[int, float]] = deque()
        self._watching: asyncio.TimerHandle | None = None
        self._transport.set_protocol(self)

    @property
    def address(self) -> Address:
        return str(getattr(self._opened, "host", "")), int(getattr(self._opened, "port", 0))

    @property
    def waiting_count(self) -> int:
        return len(self._waiting)

    def send(self, command: tuple[Arg, ...]) -> asyncio.Future[Any]:
        """Return the reply to come: redis.ResponseError for an error reply, AdmissionUnavailableError for none."""
        future: asyncio.Future[Any] = self._loop.create_future()
        if not self._unsent and len(self._waiting) < MAX_UNANSWERED_CALLS:
            self._loop.call_soon(self._flush)
        self._unsent.append(hiredis.pack_command(command))  # type: ignore[arg-type]  # Typed for one argument only.
        self._waiting.append(future)
        return future

    def close(self, error: AdmissionUnavailableError) -> None:
        """Every call that still waits fails with `error`."""
        self.is_open = False
        self._transport.close()
        if self._watching is not None:
            self._watching.cancel()
        waiting, self._waiting = self._waiting, deque()
        sent_count = len(waiting) - len(self._unsent)
        never_sent = AdmissionUnavailableError(str(error))
        for number, future in enumerate(waiting):
            if not future.done():
                future.set_exception(error if number < sent_count else never_sent)

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        leave: Exception | None = None
        while (reply := self._reader.gets()) is not NOT_COMPLETE:
            if isinstance(reply, hiredis.PushNotification):
                continue
            future = self._waiting.popleft()
            self._replies += 1
            if isinstance(reply, redis.ResponseError) and any(word in str(reply) for word in LEAVE_SERVER):
                leave = reply
            if future.done():
                continue
            if isinstance(reply, Exception):
                future.set_exception(reply)
            else:
                future.set_result(reply)
        if self._unsent:
            self._flush()
        if leave is not None:
            self.close(AdmissionUnavailableError(f"Redis cannot be used: {leave}", may_have_run=True))

    def connection_lost(self, exc: Exception | None) -> None:
        self.close(AdmissionUnavailableError(f"The connection to Redis broke: {exc or 'closed'}", may_have_run=True))

    def _flush(self) -> None:
        room = MAX_UNANSWERED_CALLS - (len(self._waiting) - len(self._unsent))
        if not self.is_open or room <= 0:
            return
        sent, self._unsent = self._unsent[:room], self._unsent[room:]
        self._transport.write(b"".join(sent))
        # Redis' time begins now: a busy loop writes late, and its own clock stands still meanwhile.
        last = self._replies + len(self._waiting) - len(self._unsent)
        self._overdue.append((last, time.monotonic() + self._timeout_seconds))
        if self._watching is None:
            self._watching = self._loop.call_later(self._timeout_seconds, self._watch)

    def _watch(self, given_up: tuple[int, float] | None = None) -> None:
        """Close the connection when the oldest call is overdue: replies come in order, so it holds up all others.

        `given_up` was overdue before the loop looked once more for its reply.
        """
        self._watching = None
        while self._overdue and self._overdue[0][0] <= self._replies:
            self._overdue.popleft()
        if not self._overdue:
            return
        oldest = self._overdue[0]
        seconds_left = oldest[1] - time.monotonic()
        if seconds_left > 0:
            self._watching = self._loop.call_later(seconds_left, self._watch)
        elif oldest is given_up:
            self.close(AdmissionUnavailableError("Redis did not answer in time.", may_have_run=True))
        else:
            self._watching = self._loop.call_later(LOOK_AGAIN_SECONDS, self._watch, oldest)


class ScriptPipeline:
    """Calls to one Redis server, over one connection. It connects by itself, also anew after an error."""

    def __init__(self, servers: AsyncServers, address: Address | None, *, timeout_seconds: float) -> None:
        self._servers = servers
        self._address = address
        self._timeout_seconds = timeout_seconds
        self._connection: ScriptConnection | None = None
        self._connecting: asyncio.Task[ScriptConnection] | None = None

    @property
    def waiting_count(self) -> int:
        return self._connection.waiting_count if self._connection is not None else 0

    async def call(self, script: Script, keys: Sequence[str], args: Sequence[Arg]) -> Any:
        """Return the script's reply. Raises AdmissionUnavailableError when there is none within the time-out."""
        try:
            try:
                return await self._command(("EVALSHA", script.sha1, len(keys), *keys, *args))
            except redis.ResponseError as error:
                if not str(error).startswith("NOSCRIPT"):
                    raise
            return await self._command(("EVAL", script.text, len(keys), *keys, *args))
        except redis.ResponseError as error:
            raise AdmissionUnavailableError(str(error)) from error

    async def leave_former_master(self) -> None:
        """Close the connection when the Sentinels have made another server master.

        A master that was away for a moment comes back as one, and goes on as one until it is told: what is written
        there is lost, and holds are judged elsewhere meanwhile.
        """
        connection = self._connection
        if connection is None or not connection.is_open:
            return
        try:
            async with asyncio.timeout(self._timeout_seconds):
                address = await self._servers.master_address()
        except (redis.RedisError, OSError, TimeoutError):
            return  # Nobody knows better.
        if address is not None and address != connection.address:
            connection.close(AdmissionUnavailableError("Another Redis is master now.", may_have_run=True))

    async def aclose(self) -> None:
        if self._connecting is not None:
            self._connecting.cancel()
        if self._connection is not None:
            self._connection.close(AdmissionUnavailableError("The connection to Redis was closed."))

    async def _command(self, command: tuple[Arg, ...]) -> Any:
        connection = self._connection
        while connection is None or not connection.is_open:
            connection = await self._connect()
        if connection.waiting_count >= MAX_QUEUED_CALLS:
            raise AdmissionUnavailableError("Too many calls wait for Redis.")
        return await connection.send(command)

    async def _connect(self) -> ScriptConnection:
        """Return a new connection, one for all that ask for it at the same time."""
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._open())
            self._connecting.add_done_callback(self._connected)
        return await asyncio.shield(self._connecting)

    def _connected(self, task: asyncio.Task[ScriptConnection]) -> None:
        self._connecting = None
        if not task.cancelled():
            task.exception()  # Whoever waits gets it; nobody may be left to.

    async def _open(self) -> ScriptConnection:
        try:
            async with asyncio.timeout(self._timeout_seconds):
                opened = await self._servers.connect(self._address)
                self._connection = ScriptConnection(opened, timeout_seconds=self._timeout_seconds)
        except (redis.RedisError, OSError, TimeoutError) as error:
            raise AdmissionUnavailableError(f"Redis cannot be reached: {error}") from error
        return self._connection


class ScriptRouter:
    """Sends each script to the server that holds the shard, and learns when a Cluster moved it."""

    def __init__(self, servers: AsyncServers, *, timeout_seconds: float) -> None:
        self._servers = servers
        self._timeout_seconds = timeout_seconds
        self._pipelines: dict[Address | None, ScriptPipeline] = {}
        self._by_prefix: dict[str, ScriptPipeline] = {}

    @property
    def waiting_count(self) -> int:
        """Calls that no server has answered yet."""
        return sum(pipeline.waiting_count for pipeline in self._pipelines.values())

    async def call(self, prefix: str, script: Script, keys: Sequence[str], args: Sequence[Arg]) -> Any:
        """Return the script's reply from the server of the shard. Raises AdmissionUnavailableError."""
        pipeline = self._by_prefix.get(prefix) or await self._find(prefix)
        try:
            return await pipeline.call(script, keys, args)
        except AdmissionUnavailableError:
            # The node may be gone or have handed its slots on; whoever asks next asks the Cluster first.
            if None not in self._pipelines:
                self._by_prefix.clear()
                await self._servers.forget()
            raise

    async def leave_former_master(self) -> None:
        """See ScriptPipeline."""
        for pipeline in list(self._pipelines.values()):
            await pipeline.leave_former_master()

    async def _find(self, prefix: str) -> ScriptPipeline:
        try:
            async with asyncio.timeout(self._timeout_seconds):
                address = await self._servers.address_of(prefix)
        except (redis.RedisError, OSError, TimeoutError) as error:
            raise AdmissionUnavailableError(f"Redis cannot be reached: {error}") from error
        pipeline = self._pipelines.get(address)
        if pipeline is None:
            pipeline = ScriptPipeline(self._servers, address, timeout_seconds=self._timeout_seconds)
            self._pipelines[address] = pipeline
        self._by_prefix[prefix] = pipeline
        return pipeline

    async def aclose(self) -> None:
        for pipeline in self._pipelines.values():
            await pipeline.aclose()
        await self._servers.aclose()
