"""Calls upstreams over HTTP. The only module that imports the HTTP client.

Types are httpx', the transport is pyreqwest's: the layers between them cost more than the call (docs/architecture.md
has the figures), so a request goes to the transport directly. Redirects are not followed and nothing is decompressed.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from typing import cast

import httpx
from pyreqwest.client import ClientBuilder
from pyreqwest.compatibility.httpx import HttpxTransport
from pyreqwest.exceptions import PyreqwestError

from gateway.upstreams.errors import (
    UpstreamBrokenError,
    UpstreamError,
    UpstreamTimeoutError,
    UpstreamTooLargeError,
    UpstreamUnreachableError,
)

POOL_IDLE_SECONDS = 30
MAX_ERROR_BODY_BYTES = 1024 * 1024
MAX_RESPONSE_BYTES = 64 * 1024 * 1024
DECODED_ENCODINGS = ("", "identity")


class UpstreamResponse:
    """An answer whose headers are here and whose body comes when it is asked for. Always aclose() it."""

    __slots__ = ("_iterator", "_response", "headers", "status")

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self._iterator: AsyncIterator[bytes] | None = None
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers

    async def next_chunk(self, *, timeout_seconds: float) -> bytes | None:
        """Return the next bytes of the body, None at its end. Raises UpstreamError."""
        if self._iterator is None:
            stream = cast(httpx.AsyncByteStream, self._response.stream)
            self._iterator = stream.__aiter__()
        try:
            async with asyncio.timeout(timeout_seconds):
                return await anext(self._iterator)
        except StopAsyncIteration:
            return None
        except TimeoutError:
            raise UpstreamTimeoutError(f"No data for {timeout_seconds:g} s.") from None
        except (httpx.HTTPError, PyreqwestError, OSError) as error:
            raise UpstreamBrokenError(f"The connection broke: {error}") from error

    async def read(self, *, timeout_seconds: float, max_bytes: int = MAX_RESPONSE_BYTES) -> bytes:
        """Return the whole body. Raises UpstreamError, UpstreamTooLargeError past `max_bytes`."""
        parts: list[bytes] = []
        size = 0
        while (chunk := await self.next_chunk(timeout_seconds=timeout_seconds)) is not None:
            size += len(chunk)
            if size > max_bytes:
                raise UpstreamTooLargeError(f"The answer is larger than {max_bytes} bytes.")
            parts.append(chunk)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def aclose(self) -> None:
        """Close the connection, or hand it back when the body was read to its end."""
        # An error changes nothing: the connection is closed either way.
        with contextlib.suppress(httpx.HTTPError, PyreqwestError, OSError):
            await cast(httpx.AsyncByteStream, self._response.stream).aclose()


class UpstreamClient:
    """One connection pool for all upstreams."""

    def __init__(self, *, connect_seconds: float) -> None:
        client = (
            ClientBuilder()
            .connect_timeout(timedelta(seconds=connect_seconds))
            .pool_idle_timeout(timedelta(seconds=POOL_IDLE_SECONDS))
            .follow_redirects(False)
            .gzip(False)
            .brotli(False)
            .zstd(False)
            .deflate(False)
            .build()
        )
        self._transport = HttpxTransport(client)

    async def post(
        self, url: str, *, headers: Mapping[str, str], body: bytes, timeout_seconds: float
    ) -> UpstreamResponse:
        """Send a request and return its answer as soon as the headers are there. Raises UpstreamError."""
        # Some are the client's own and may hold any byte; they came as latin-1 text and leave as the same bytes.
        raw_headers = [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in headers.items()]
        request = httpx.Request("POST", url, headers=raw_headers, content=body)
        try:
            async with asyncio.timeout(timeout_seconds):
                response = await self._transport.handle_async_request(request)
        except TimeoutError:
            raise UpstreamTimeoutError(f"No answer within {timeout_seconds:g} s.") from None
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise UpstreamUnreachableError(f"It cannot be reached: {error}") from error
        except httpx.TimeoutException as error:
            raise UpstreamTimeoutError(f"It timed out: {error}") from error
        except (httpx.HTTPError, httpx.InvalidURL, PyreqwestError, OSError) as error:
            raise UpstreamBrokenError(f"The connection broke: {error}") from error
        answer = UpstreamResponse(response)
        if answer.headers.get("content-encoding", "") not in DECODED_ENCODINGS:
            await answer.aclose()
            raise UpstreamBrokenError("The answer is compressed although none was asked for.")
        return answer

    async def aclose(self) -> None:
        await self._transport.aclose()


__all__ = ["UpstreamClient", "UpstreamError", "UpstreamResponse"]
