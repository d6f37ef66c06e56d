"""Runs scripts on Redis from the gateway's event loop. Concurrent calls share one connection and its round trips.

Commands are written in the order in which they were asked for and their replies arrive in that order, so a connection
needs no lock: a queue of futures is enough. What was asked for in one turn of the event loop leaves in one write.
"""

import asyncio
import math
from collections import deque
from collections.abc import Sequence
from typing import Any

import redis
from redis.asyncio.connection import AbstractConnection

from billing.admission.errors import AdmissionUnavailableError
from billing.admission.scripts import Script
from billing.admission.topology import Address, AsyncServers

MAX_QUEUED_CALLS = 20_000
Arg = bytes | str | int


class ScriptPipeline:
    """One connection to one Redis server. It connects by itself, also anew after an error."""

    def __init__(self, servers: AsyncServers, address: Address | None, *, timeout_seconds: float) -> None:
        self._servers = servers
        self._address = address
        self._timeout_seconds = timeout_seconds
        self._connection: AbstractConnection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._reader: asyncio.Task[None] | None = None
        self._unsent: list[bytes] = []
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._flush_planned = False

    async def call(self, script: Script, keys: Sequence[str], args: Sequence[Arg]) -> Any:
        """Return the script's reply. Raises AdmissionUnavailableError when there is none within the time-out."""
        deadline = asyncio.get_running_loop().time() + self._timeout_seconds
        try:
            return await self._command(deadline, "EVALSHA", script.sha1, len(keys), *keys, *args)
        except redis.exceptions.NoScriptError:
            pass
        except redis.ResponseError as error:
            raise AdmissionUnavailableError(str(error)) from error
        try:
            return await self._command(deadline, "EVAL", script.text, len(keys), *keys, *args)
        except redis.ResponseError as error:
            raise AdmissionUnavailableError(str(error)) from error

    async def aclose(self) -> None:
        for task in (self._connecting, self._reader):
            if task is not None:
                task.cancel()
        self._fail(AdmissionUnavailableError("The connection to Redis was closed."))

    async def _command(self, deadline: float, *command: Arg) -> Any:
        if len(self._waiting) >= MAX_QUEUED_CALLS:
            raise AdmissionUnavailableError("Too many calls wait for Redis.")
        loop = asyncio.get_running_loop()
        sent_on: AbstractConnection | None = None
        try:
            async with asyncio.timeout_at(deadline):
                while self._connection is None:
                    await self._connect()
                sent_on = self._connection
                future: asyncio.Future[Any] = loop.create_future()
                self._unsent.extend(sent_on.pack_command(*command))
                self._waiting.append(future)
                if not self._flush_planned:
                    self._flush_planned = True
                    loop.call_soon(self._flush)
                return await future
        except TimeoutError:
            error = AdmissionUnavailableError("Redis did not answer in time.", may_have_run=sent_on is not None)
            if sent_on is not None and sent_on is self._connection:
                # Replies come in order, so one that is late holds up all others: start anew. Another call that was
                # late in the same moment may have done so already; its new connection is left alone.
                self._fail(error)
            raise error from None

    async def _connect(self) -> None:
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._open())
            self._connecting.add_done_callback(self._connected)
        await asyncio.shield(self._connecting)

    def _connected(self, task: asyncio.Task[None]) -> None:
        self._connecting = None
        if not task.cancelled():
            task.exception()  # Whoever waits gets it; nobody may be left to.

    async def _open(self) -> None:
        try:
            async with asyncio.timeout(self._timeout_seconds):
                connection = await self._servers.connect(self._address)
        except (redis.RedisError, OSError, TimeoutError) as error:
            raise AdmissionUnavailableError(f"Redis cannot be reached: {error}") from error
        self._connection = connection
        self._reader = asyncio.create_task(self._read(connection))

    def _flush(self) -> None:
        self._flush_planned = False
        unsent, self._unsent = self._unsent, []
        # The writer of the connection itself: send_packed_command would await a drain for each flush.
        writer = self._connection._writer if self._connection is not None else None
        if writer is not None and unsent:
            writer.write(b"".join(unsent))

    async def _read(self, connection: AbstractConnection) -> None:
        error: Exception = AdmissionUnavailableError("The connection to Redis broke.", may_have_run=True)
        try:
            while True:
                try:
                    reply = await connection.read_response(timeout=math.inf, disconnect_on_error=False)
                except redis.ResponseError as refusal:
                    self._resolve(refusal)
                    continue
                self._resolve(reply)
        except (redis.RedisError, OSError) as broken:
            error = AdmissionUnavailableError(f"The connection to Redis broke: {broken}", may_have_run=True)
        finally:
            if self._connection is connection:
                self._fail(error)

    def _resolve(self, reply: Any) -> None:
        future = self._waiting.popleft()
        if future.done():
            return
        if isinstance(reply, Exception):
            future.set_exception(reply)
        else:
            future.set_result(reply)

    def _fail(self, error: Exception) -> None:
        """Drop the connection; every call that waits on it fails. The next call connects anew."""
        connection, self._connection = self._connection, None
        self._unsent.clear()
        waiting, self._waiting = self._waiting, deque()
        if self._reader is not None and self._reader is not asyncio.current_task():
            self._reader.cancel()
        self._reader = None
        if connection is not None and connection._writer is not None:
            connection._writer.close()
        for future in waiting:
            if not future.done():
                future.set_exception(error)


class ScriptRouter:
    """Sends each script to the server that holds the shard, and learns when a Cluster moved it."""

    def __init__(self, servers: AsyncServers, *, timeout_seconds: float) -> None:
        self._servers = servers
        self._timeout_seconds = timeout_seconds
        self._pipelines: dict[Address | None, ScriptPipeline] = {}
        self._by_prefix: dict[str, ScriptPipeline] = {}

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
        await self._servers.forget()
