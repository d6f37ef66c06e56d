"""One call to one upstream: it is sent, and its reply is taken. Who is called, and what a failure means, is decided in
gateway/upstreams/calls.py.
"""

import time
from dataclasses import dataclass
from functools import partial

from billing.catalog.snapshot import UsableRoute
from gateway.http.client import MAX_ERROR_BODY_BYTES, MAX_RESPONSE_BYTES, UpstreamClient, UpstreamResponse
from gateway.http.errors import UpstreamError
from gateway.metering.attempts import Attempt
from gateway.protocol.codec import DecodedMessage, RelayStep, ReplyIdentity, StreamDecoder
from gateway.protocol.messages.request import MessagesRequest
from gateway.protocol.upstream_errors import UpstreamFailure, map_upstream_error
from gateway.protocol.usage_reading import UsageReading
from gateway.protocol.whole_as_stream import WholeReplyDecoder, is_whole_reply
from gateway.server.body_work import LargeBodies
from gateway.tracing import Trace
from gateway.upstreams.credential_checks import CredentialChecks
from gateway.upstreams.planning import PlannedCall
from gateway.upstreams.pool import RunningCall, UpstreamPool

# A server that is told nothing may compress (RFC 9110, 12.5.3), and nothing is unpacked here.
PLAIN = {"accept-encoding": "identity"}
ERROR_BODY_SECONDS = 5.0
MAX_COUNT_BODY_BYTES = 1024 * 1024  # The answer to count_tokens is one number.


@dataclass(frozen=True, slots=True)
class UpstreamAccess:
    """What every call needs. A process has one."""

    client: UpstreamClient
    pool: UpstreamPool
    checks: CredentialChecks
    large_bodies: LargeBodies


@dataclass(frozen=True, slots=True)
class UpstreamTimeouts:
    """How long to wait: for the first byte over all attempts, for each next byte, and for the whole of a reply."""

    first_byte_seconds: float
    idle_seconds: float
    total_seconds: float


@dataclass(slots=True)
class OpenStream:
    """A stream whose first events are here: `first` says what to do with them."""

    response: UpstreamResponse
    decoder: StreamDecoder
    first: RelayStep
    running: RunningCall
    pool: UpstreamPool
    is_closed: bool = False

    @property
    def route(self) -> UsableRoute:
        return self.running.route

    def reading(self) -> UsageReading:
        return self.decoder.reading()

    def interrupt(self) -> None:
        """Make whoever reads it stop."""
        self.response.interrupt()

    async def aclose(self) -> None:
        """Close the upstream's connection; again does nothing."""
        if not self.is_closed:
            self.is_closed = True
            self.pool.end(self.running)
            await self.response.aclose()


class RefusedByUpstreamError(UpstreamError):
    """The upstream answered with an error status."""

    def __init__(self, failure: UpstreamFailure) -> None:
        super().__init__(failure.reason)
        self.failure = failure


class Exchange:
    """The ways in which upstreams are called for one request. All raise UpstreamError and UpstreamProtocolError.

    `running` is ended once the reply is here or has failed; `deadline` is when its first byte must be here, by
    time.monotonic().
    """

    def __init__(
        self,
        access: UpstreamAccess,
        request: MessagesRequest,
        identity: ReplyIdentity,
        timeouts: UpstreamTimeouts,
        *,
        organization_id: int,
        request_id: str,
        trace: Trace | None = None,
    ) -> None:
        self.access = access
        self.timeouts = timeouts
        self.organization_id = organization_id
        self.request_id = request_id
        self._trace = trace
        self._request = request
        self._identity = identity

    async def fetch_whole(
        self, planned: PlannedCall, running: RunningCall, attempt: Attempt, deadline: float
    ) -> DecodedMessage:
        """Return the whole reply. Raises UnusableReplyError for one that must be billed and cannot be delivered."""
        body = await self._read_body(planned, running, attempt, deadline)
        return await self.access.large_bodies.run(
            len(body), planned.codec.decode_response, self._request, planned.target, body, self._identity
        )

    async def open_stream(
        self, planned: PlannedCall, running: RunningCall, attempt: Attempt, deadline: float
    ) -> OpenStream:
        """Return a stream that has begun."""
        response: UpstreamResponse | None = None
        try:
            response = await self._send(planned, running, attempt, deadline)
            decoder: StreamDecoder | None = None
            while decoder is None or not decoder.has_started:
                chunk = await response.next_piece(timeout_seconds=max(0.0, deadline - time.monotonic()))
                if decoder is None:
                    decoder = self._decoder_for(planned, chunk or b"")
                step = decoder.flush() if chunk is None else decoder.feed(chunk)
                if step.failure is not None and not decoder.has_started:
                    raise step.failure
            return OpenStream(response, decoder, step, running, self.access.pool)
        except BaseException:
            self.access.pool.end(running)
            if response is not None:
                await response.aclose()
            raise

    def _decoder_for(self, planned: PlannedCall, first_chunk: bytes) -> StreamDecoder:
        decoder = planned.codec.stream_decoder(self._request, planned.target, self._identity)
        if not is_whole_reply(first_chunk):
            return decoder
        decode = partial(planned.codec.decode_response, self._request, planned.target, identity=self._identity)
        return WholeReplyDecoder(decode, decoder.reading())

    async def count_tokens(self, planned: PlannedCall, running: RunningCall, attempt: Attempt, deadline: float) -> int:
        """Return how many input tokens the upstream counts."""
        body = await self._read_body(planned, running, attempt, deadline, max_bytes=MAX_COUNT_BODY_BYTES)
        return planned.codec.decode_count_tokens(body)

    async def _read_body(
        self,
        planned: PlannedCall,
        running: RunningCall,
        attempt: Attempt,
        deadline: float,
        *,
        max_bytes: int = MAX_RESPONSE_BYTES,
    ) -> bytes:
        try:
            response = await self._send(planned, running, attempt, deadline)
            try:
                return await response.read(
                    timeout_seconds=self.timeouts.idle_seconds,
                    total_seconds=self.timeouts.total_seconds,
                    max_bytes=max_bytes,
                )
            finally:
                await response.aclose()
        finally:
            self.access.pool.end(running)

    async def _send(
        self, planned: PlannedCall, running: RunningCall, attempt: Attempt, deadline: float
    ) -> UpstreamResponse:
        """Return the upstream's 200. Raises UpstreamError for everything else."""
        profile = planned.target.profile
        headers = {**PLAIN, **planned.call.headers, **planned.codec.credential_headers(running.credential, profile)}
        if profile.request_id_header:
            headers[profile.request_id_header] = self.request_id
        if self._trace is not None:
            headers.update(self._trace.begin_call(planned, attempt))
        seconds = max(0.0, deadline - time.monotonic())
        url = planned.route.base_url + planned.call.path
        response = await self.access.client.post(
            url,
            headers=headers,
            body=planned.call.body,
            timeout_seconds=seconds,
            on_connected=partial(self.access.pool.note_connected, planned.route) if running.probes else None,
        )
        attempt.status = response.status
        if response.status == 200:
            return response
        body = b""
        try:
            if not response.is_encoded:  # Else its status says enough.
                body = await response.read(
                    timeout_seconds=ERROR_BODY_SECONDS, total_seconds=ERROR_BODY_SECONDS, max_bytes=MAX_ERROR_BODY_BYTES
                )
        except UpstreamError:
            pass
        finally:
            await response.aclose()
        raise RefusedByUpstreamError(map_upstream_error(response.status, response.headers, body))
