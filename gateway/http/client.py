"""Calls upstreams over HTTP, and says in our words how that can fail."""

import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, cast

import httpx

from gateway.http.errors import (
    UpstreamBrokenError,
    UpstreamError,
    UpstreamTimeoutError,
    UpstreamTooLargeError,
    UpstreamUnreachableError,
)
from gateway.http.fair_turns import FairTurns
from gateway.http.pieces import join_pieces
from gateway.http.transport import AnswerStream, UpstreamTransport

MAX_ERROR_BODY_BYTES = 1024 * 1024
MAX_RESPONSE_BYTES = 64 * 1024 * 1024
MAX_PIECE_BYTES = 8 * 1024  # What of a stream is decoded in a turn: a millisecond or two, at a hundred bytes an event.
DECODED_ENCODINGS = ("", "identity")
MAX_PARSED_URLS = 1_000

_turns = FairTurns()  # Of all streams of this process.


class UpstreamResponse:
    """An answer whose headers are here and whose body comes when it is asked for. Always aclose() it."""

    __slots__ = ("_rest", "_stream", "headers", "status")

    def __init__(self, response: httpx.Response) -> None:
        self._stream = cast(AnswerStream, response.stream)
        self._rest = b""
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers

    @property
    def is_encoded(self) -> bool:
        """True for a body that is compressed, though none was asked for: nothing decodes it."""
        return self.headers.get("content-encoding", "") not in DECODED_ENCODINGS

    async def next_chunk(self, *, timeout_seconds: float) -> bytes | None:
        """Return the next bytes of the body, None at its end. Raises UpstreamError; after a time-out, and after it was
        cancelled, it may be called again.
        """
        try:
            return await self._stream.next_chunk(timeout_seconds=timeout_seconds)
        except httpx.ReadTimeout:
            raise UpstreamTimeoutError(f"No data for {timeout_seconds:g} s.") from None
        except httpx.TransportError as error:
            raise _broken(error) from error

    async def next_piece(self, *, timeout_seconds: float) -> bytes | None:
        """The same for a stream, whose bytes are decoded as they come: as many as one turn of the event loop has time
        for. The rest is returned by the next calls, each in a turn of its own.
        """
        if self._rest:
            await _turns.take()
            chunk: bytes | None = self._rest
        else:
            chunk = await self.next_chunk(timeout_seconds=timeout_seconds)
        if chunk is None or len(chunk) <= MAX_PIECE_BYTES:
            self._rest = b""
            return chunk
        self._rest = chunk[MAX_PIECE_BYTES:]
        return chunk[:MAX_PIECE_BYTES]

    async def read(self, *, timeout_seconds: float, total_seconds: float, max_bytes: int = MAX_RESPONSE_BYTES) -> bytes:
        """Return the whole body, waiting for so long for each piece and for the whole. Raises UpstreamError,
        UpstreamTooLargeError past `max_bytes`.
        """
        ends_at = time.monotonic() + total_seconds
        parts: list[bytes] = []
        size = 0
        while (chunk := await self._next_within(timeout_seconds, ends_at)) is not None:
            size += len(chunk)
            if size > max_bytes:
                raise UpstreamTooLargeError(f"The answer is larger than {max_bytes} bytes.")
            parts.append(chunk)
        return await join_pieces(parts)

    async def _next_within(self, timeout_seconds: float, ends_at: float) -> bytes | None:
        seconds_left = ends_at - time.monotonic()
        if seconds_left < 0:
            raise UpstreamTimeoutError("The answer was not complete in time.")
        return await self.next_chunk(timeout_seconds=min(timeout_seconds, seconds_left))

    def interrupt(self) -> None:
        """Let whoever waits for the next bytes get UpstreamBrokenError."""
        self._stream.interrupt()

    async def aclose(self) -> None:
        """Close the connection, or hand it back when the body was read to its end."""
        await self._stream.aclose()


class UpstreamClient:
    """One connection pool for all upstreams."""

    def __init__(self, *, connect_seconds: float) -> None:
        self._transport = UpstreamTransport()
        self._connect_seconds = connect_seconds

    async def post(
        self,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes,
        timeout_seconds: float,
        on_connected: Callable[[], None] | None = None,
    ) -> UpstreamResponse:
        """Send a request and return its answer as soon as the headers are there. Raises UpstreamError.

        Cancelled or timed out it closes the connection, so that the upstream knows. `on_connected` is called once a
        connection stands, before anything is sent.
        """
        return await self._call(
            "POST", url, headers=headers, body=body, timeout_seconds=timeout_seconds, on_connected=on_connected
        )

    async def get(self, url: str, *, headers: Mapping[str, str], timeout_seconds: float) -> UpstreamResponse:
        """Ask without a body; the rest as in post()."""
        return await self._call("GET", url, headers=headers, body=b"", timeout_seconds=timeout_seconds)

    async def _call(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes,
        timeout_seconds: float,
        on_connected: Callable[[], None] | None = None,
    ) -> UpstreamResponse:
        extensions: dict[str, Any] = {"timeout": {"connect": self._connect_seconds, "read": timeout_seconds}}
        if on_connected is not None:
            extensions["on_connected"] = on_connected
        try:
            request = httpx.Request(
                method,
                _parse_url(url),
                headers=_encode_headers(headers),
                stream=httpx.ByteStream(body),
                extensions=extensions,
            )
            response = await self._transport.handle_async_request(request)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise UpstreamUnreachableError(f"The upstream cannot be reached: {error}") from error
        except httpx.ReadTimeout:
            raise UpstreamTimeoutError(f"No answer within {timeout_seconds:g} s.") from None
        except (httpx.TransportError, httpx.InvalidURL, ValueError) as error:
            raise _broken(error) from error
        answer = UpstreamResponse(response)
        if answer.status == 200 and answer.is_encoded:
            await answer.aclose()
            raise UpstreamBrokenError("The answer is compressed although none was asked for.")
        return answer

    async def aclose(self) -> None:
        await self._transport.aclose()


@lru_cache(maxsize=MAX_PARSED_URLS)
def _parse_url(url: str) -> httpx.URL:
    """Return the URL, parsed once: the few that upstreams have are called over and over."""
    return httpx.URL(url)


def _encode_headers(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """Return headers as they are sent. Some are the client's own: any bytes, which came to us as latin-1 text."""
    try:
        return [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    except UnicodeEncodeError:  # The catalog's own may be any text.
        return [(name.encode(), value.encode()) for name, value in headers.items()]


def _broken(error: Exception) -> UpstreamBrokenError:
    return UpstreamBrokenError(f"The connection broke: {error}")


__all__ = ["UpstreamClient", "UpstreamError", "UpstreamResponse"]
