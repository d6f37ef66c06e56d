"""Calls upstreams over HTTP. The only module that imports the HTTP client.

Requests and answers are httpx', the transport is one of ours over pyreqwest (docs/speed.md has the figures): it reads
nothing ahead, so that each piece of a stream is here as soon as it comes. Redirects are not followed, and nothing is
decompressed.

pyreqwest (0.15) cannot take back a call whose headers have not come: cancelled, it forgets the call and leaves it
running. So such a call is waited for in the background, and closed when its headers come, or after `silence_seconds`.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from functools import lru_cache
from typing import cast

import httpx
from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import ConnectError, ConnectTimeoutError, PyreqwestError, RequestTimeoutError
from pyreqwest.request import StreamRequest
from pyreqwest.response import Response

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
CONNECT_CAUSE = "client error (Connect)"
# How much of a body pyreqwest waits for before it hands over the headers: by default 64 KiB, or a whole short stream.
READ_AHEAD_BYTES = 0
MAX_PARSED_URLS = 1_000
WRITTEN_BY_CLIENT = ("host", "content-length")


class UpstreamResponse:
    """An answer whose headers are here and whose body comes when it is asked for. Always aclose() it."""

    __slots__ = ("_stream", "headers", "status")

    def __init__(self, response: httpx.Response) -> None:
        self._stream = cast(_BodyStream, response.stream)
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers

    async def next_chunk(self, *, timeout_seconds: float) -> bytes | None:
        """Return the next bytes of the body, None at its end. Raises UpstreamError."""
        try:
            async with asyncio.timeout(timeout_seconds):
                return await self._stream.next_chunk()
        except TimeoutError:
            raise UpstreamTimeoutError(f"No data for {timeout_seconds:g} s.") from None
        except (PyreqwestError, OSError) as error:
            raise _broken(error) from error

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
        with contextlib.suppress(PyreqwestError, OSError):
            await self._stream.aclose()


class UpstreamClient:
    """One connection pool for all upstreams."""

    def __init__(self, *, connect_seconds: float, silence_seconds: float) -> None:
        client = (
            ClientBuilder()
            .connect_timeout(timedelta(seconds=connect_seconds))
            .read_timeout(timedelta(seconds=silence_seconds))
            .pool_idle_timeout(timedelta(seconds=POOL_IDLE_SECONDS))
            .follow_redirects(False)
            .gzip(False)
            .brotli(False)
            .zstd(False)
            .deflate(False)
            .build()
        )
        self._transport = PyreqwestTransport(client)

    async def post(
        self, url: str, *, headers: Mapping[str, str], body: bytes, timeout_seconds: float
    ) -> UpstreamResponse:
        """Send a request and return its answer as soon as the headers are there. Raises UpstreamError."""
        try:
            request = httpx.Request(
                "POST", _parse_url(url), headers=httpx.Headers(_sendable(headers), encoding="utf-8"), content=body
            )
            async with asyncio.timeout(timeout_seconds):
                response = await self._transport.handle_async_request(request)
        except (ConnectError, ConnectTimeoutError) as error:
            if isinstance(error, ConnectError) and not _is_without_connection(error):
                raise _broken(error) from error
            raise UpstreamUnreachableError(f"It cannot be reached: {error}") from error
        except RequestTimeoutError as error:
            raise UpstreamTimeoutError(f"It timed out: {error}") from error
        except TimeoutError:
            raise UpstreamTimeoutError(f"No answer within {timeout_seconds:g} s.") from None
        except (PyreqwestError, httpx.InvalidURL, ValueError, OSError) as error:
            raise _broken(error) from error
        answer = UpstreamResponse(response)
        if answer.headers.get("content-encoding", "") not in DECODED_ENCODINGS:
            await answer.aclose()
            raise UpstreamBrokenError("The answer is compressed although none was asked for.")
        return answer

    async def aclose(self) -> None:
        await self._transport.aclose()


class PyreqwestTransport(httpx.AsyncBaseTransport):
    """An httpx transport over pyreqwest that reads nothing ahead; pyreqwest's own waits for 64 KiB of a stream."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._abandoned: set[asyncio.Task[None]] = set()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Return the answer as soon as its headers are there. Raises PyreqwestError."""
        builder = self._client.post(str(request.url)).headers(_forwarded(request.headers)).body_bytes(request.content)
        call = builder.streamed_read_buffer_limit(READ_AHEAD_BYTES).build_streamed()
        sending = asyncio.ensure_future(_send(call))
        try:
            answer = await asyncio.shield(sending)
        finally:
            if not sending.done():
                closing = asyncio.create_task(_close_when_answered(call, sending))
                self._abandoned.add(closing)
                closing.add_done_callback(self._abandoned.discard)
        return httpx.Response(answer.status, headers=answer.headers, stream=_BodyStream(call, answer))

    async def aclose(self) -> None:
        await self._client.close()


class _BodyStream(httpx.AsyncByteStream):
    __slots__ = ("_call", "_reader")

    def __init__(self, call: StreamRequest, answer: Response) -> None:
        self._call = call
        self._reader = answer.body_reader

    async def next_chunk(self) -> bytes | None:
        chunk = await self._reader.read_chunk()
        return None if chunk is None else bytes(chunk)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (chunk := await self.next_chunk()) is not None:
            yield chunk

    async def aclose(self) -> None:
        await self._call.__aexit__(None, None, None)


async def _send(call: StreamRequest) -> Response:
    return await call.__aenter__()


async def _close_when_answered(call: StreamRequest, sending: "asyncio.Task[Response]") -> None:
    with contextlib.suppress(PyreqwestError, OSError):
        await sending
        await call.__aexit__(None, None, None)


@lru_cache(maxsize=MAX_PARSED_URLS)
def _parse_url(url: str) -> httpx.URL:
    """Return the URL, parsed once: the few that upstreams have are called over and over."""
    return httpx.URL(url)


def _forwarded(headers: httpx.Headers) -> dict[str, str]:
    """Return the headers without those that pyreqwest writes itself."""
    return {name: value for name, value in headers.items() if name not in WRITTEN_BY_CLIENT}


def _sendable(headers: Mapping[str, str]) -> Mapping[str, str]:
    """Return headers that can be sent. Some are the client's own: any bytes, which came to us as latin-1 text."""
    if all(value.isascii() for value in headers.values()):
        return headers
    return {name: value.encode("latin-1", "replace").decode(errors="replace") for name, value in headers.items()}


def _is_without_connection(error: ConnectError) -> bool:
    """True when there never was a connection: pyreqwest says ConnectError of one that broke in the middle too."""
    causes = (error.details or {}).get("causes") or ()
    return any(CONNECT_CAUSE in str(cause.get("message")) for cause in causes)


def _broken(error: Exception) -> UpstreamBrokenError:
    return UpstreamBrokenError(f"The connection broke: {error}")


__all__ = ["UpstreamClient", "UpstreamError", "UpstreamResponse"]
