"""One call to a process on this machine, over its Unix socket and a connection of its own."""

import asyncio
from typing import Self

import httpx

from gateway.http.connection import HttpConnection
from gateway.http.errors import UpstreamBrokenError, UpstreamTimeoutError, UpstreamUnreachableError

CONNECT_SECONDS = 2.0


class SocketCall:
    """Made by `start()`; always `close()` it. `status` and `headers` are those of the answer."""

    def __init__(self, connection: HttpConnection, *, timeout_seconds: float) -> None:
        self._connection = connection
        self._timeout_seconds = timeout_seconds

    @classmethod
    async def start(cls, path: str, head: bytes, body: bytes, *, timeout_seconds: float) -> Self:
        """Send a request and return once the headers of its answer are here. Raises UpstreamError."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                _, connection = await loop.create_unix_connection(lambda: HttpConnection(loop), path)
        except OSError as error:  # TimeoutError is one.
            raise UpstreamUnreachableError(f"{path} cannot be reached: {error}") from error
        call = cls(connection, timeout_seconds=timeout_seconds)
        try:
            connection.send(head, body)
            await connection.receive_head(timeout_seconds=timeout_seconds)
        except httpx.TransportError as error:
            call.close()
            raise UpstreamBrokenError(f"{path} did not answer: {error}") from error
        except BaseException:
            call.close()
            raise
        return call

    @property
    def status(self) -> int:
        return self._connection.status

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        return self._connection.headers

    async def next_chunk(self) -> bytes | None:
        """Return the next bytes of the body, None at its end. Raises UpstreamError."""
        try:
            return await self._connection.next_chunk(timeout_seconds=self._timeout_seconds)
        except httpx.ReadTimeout:
            raise UpstreamTimeoutError(f"No data for {self._timeout_seconds:g} s.") from None
        except httpx.TransportError as error:
            raise UpstreamBrokenError(f"The connection broke: {error}") from error

    def close(self) -> None:
        self._connection.close()
