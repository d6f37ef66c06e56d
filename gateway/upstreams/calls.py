"""Calls the upstreams of a model, in order, until one begins to answer or none is left.

While no byte has reached the client, another route may be tried. Each attempt is recorded with the request, served or
not.
"""

import logging
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from billing.catalog.snapshot import UsableRoute
from gateway.body_work import LargeBodies
from gateway.errors import OVERLOADED, GatewayError, invalid_request, unavailable
from gateway.metering import BROKEN, SERVED, Attempt, MeteredRequest
from gateway.protocol.codec import (
    DecodedMessage,
    RelayStep,
    ReplyIdentity,
    RouteTarget,
    StreamDecoder,
    UpstreamCall,
    UpstreamCodec,
)
from gateway.protocol.codecs import CODECS
from gateway.protocol.errors import (
    InvalidProfileError,
    InvalidRequestError,
    UnusableReplyError,
    UpstreamProtocolError,
    UpstreamStreamError,
)
from gateway.protocol.messages_request import MessagesRequest
from gateway.protocol.profile import UpstreamProfile, read_profile
from gateway.protocol.upstream_errors import Fault, UpstreamFailure, map_upstream_error
from gateway.upstreams.credential_checks import CredentialChecks
from gateway.upstreams.errors import UpstreamError, UpstreamTimeoutError, UpstreamUnreachableError
from gateway.upstreams.http_client import MAX_ERROR_BODY_BYTES, UpstreamClient, UpstreamResponse
from gateway.upstreams.pool import UpstreamPool, split_credentials
from gateway.upstreams.routing import order_routes

ERROR_BODY_SECONDS = 5.0
MAX_CREDENTIALS_TRIED = 2  # Of one upstream for one request.
MAX_KNOWN_PROFILES = 10_000

T = TypeVar("T")

logger = logging.getLogger(__name__)

# By route: the text that the catalog had, and what it says.
_profiles: dict[int, tuple[Mapping[str, object], UpstreamProfile]] = {}


class PlannedCall(NamedTuple):
    """One route, ready to be called."""

    route: UsableRoute
    codec: UpstreamCodec
    target: RouteTarget
    call: UpstreamCall


@dataclass(slots=True)
class OpenStream:
    """A stream whose first events are here: `first` says what to do with them."""

    response: UpstreamResponse
    decoder: StreamDecoder
    first: RelayStep
    route: UsableRoute
    pool: UpstreamPool
    organization_id: int
    is_closed: bool = False

    async def aclose(self) -> None:
        """Close the upstream's connection; again does nothing."""
        if not self.is_closed:
            self.is_closed = True
            self.pool.end(self.route, self.organization_id)
            await self.response.aclose()


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait: for the first byte over all attempts, for each next byte, and for the whole of a reply."""

    first_byte_seconds: float
    idle_seconds: float
    total_seconds: float


class RefusedByUpstreamError(UpstreamError):
    """The upstream answered with an error status."""

    def __init__(self, failure: UpstreamFailure) -> None:
        super().__init__(failure.reason)
        self.failure = failure


def plan_calls(
    request: MessagesRequest, routes: Sequence[UsableRoute], *, client_version: str, client_beta: str
) -> list[PlannedCall]:
    """Return the calls that can be made, in order. Raises GatewayError 400 when no route can be asked this."""
    ordered = order_routes(routes, request.conversation_fingerprint()) if len(routes) > 1 else routes
    planned: list[PlannedCall] = []
    refusal: InvalidRequestError | None = None
    for route in ordered:
        codec = CODECS[route.protocol]
        try:
            target = RouteTarget(route.upstream_model, profile_of(route), client_version, client_beta)
            same = (call for call in planned if (call.codec, call.target) == (codec, target))
            known = next(same, None)
            call = known.call if known else codec.render_request(request, target)
            planned.append(PlannedCall(route, codec, target, call))
        except InvalidRequestError as error:
            refusal = refusal or error
        except InvalidProfileError as error:
            logger.error("Upstream %s cannot be called: %s", route.upstream_name, error)
    if not planned and refusal is not None:
        raise invalid_request(refusal)
    return planned


def profile_of(route: UsableRoute) -> UpstreamProfile:
    """Return the route's profile, read once for as long as the catalog stays the same. Raises InvalidProfileError."""
    known = _profiles.get(route.route_id)
    if known is not None and known[0] is route.profile:
        return known[1]
    profile = read_profile(route.profile)
    if len(_profiles) >= MAX_KNOWN_PROFILES:
        _profiles.clear()
    _profiles[route.route_id] = (route.profile, profile)
    return profile


class UpstreamCaller:
    """The attempts of one admitted request."""

    def __init__(
        self,
        client: UpstreamClient,
        pool: UpstreamPool,
        checks: CredentialChecks,
        metered: MeteredRequest,
        request: MessagesRequest,
        planned: Sequence[PlannedCall],
        identity: ReplyIdentity,
        patience: Patience,
        large_bodies: LargeBodies,
    ) -> None:
        self._client = client
        self._pool = pool
        self._checks = checks
        self._metered = metered
        self._organization_id = metered.hold.organization_id
        self._request = request
        self._planned = planned
        self._drains_anywhere = any(call.route.bills_when_cancelled for call in planned)
        self._identity = identity
        self._patience = patience
        self._large_bodies = large_bodies
        # True while an upstream that accepted the call is at work: if we leave it now, it may charge us.
        self.is_accepted = False
        self._has_client = True

    @property
    def drains_anywhere(self) -> bool:
        """True when an upstream that may be at work bills on after its client left."""
        return self._drains_anywhere

    def forget_prompt(self) -> None:
        """Let go of what was sent, once nothing of it can be sent again: a stream may last for many minutes."""
        self._planned = ()

    def note_client_left(self) -> None:
        """Call no further upstream."""
        self._has_client = False

    async def fetch_whole(self) -> DecodedMessage:
        """Return the whole reply of the first upstream that gives one.

        Raises GatewayError when none does, UnusableReplyError when one did that must be billed and cannot be delivered.
        """
        return await self._first_success(self._fetch_whole)

    async def open_stream(self) -> OpenStream:
        """Return the stream of the first upstream that begins one. Raises GatewayError when none does."""
        return await self._first_success(self._open_stream)

    async def _first_success(self, call: Callable[[PlannedCall, str, Attempt, float], Awaitable[T]]) -> T:
        deadline = time.monotonic() + self._patience.first_byte_seconds
        failure = self._no_route()
        waiting = deque(self._planned)
        tried: dict[str, int] = {}
        while waiting and self._has_client:
            planned = waiting.popleft()
            route = planned.route
            seconds_left = deadline - time.monotonic()
            if seconds_left <= 0:
                break  # Who is given no time would be blamed for a time-out.
            most_at_once = planned.target.profile.max_concurrent
            if not self._pool.may_call(route, self._organization_id, most_at_once=most_at_once):
                continue
            attempt = Attempt(route.upstream_name)
            self._metered.attempts.append(attempt)
            self.is_accepted = False
            credential = self._pool.choose_credential(route)
            try:
                # A silent upstream must leave time for those after it.
                result = await call(planned, credential, attempt, time.monotonic() + seconds_left / (1 + len(waiting)))
            except RefusedByUpstreamError as refused:
                failure = self._take_refusal(planned, credential, attempt, refused.failure)
                if not refused.failure.can_fail_over:
                    break
                tried[route.upstream_name] = tried.get(route.upstream_name, 0) + 1
                has_more = tried[route.upstream_name] < min(
                    MAX_CREDENTIALS_TRIED, len(split_credentials(route.credential))
                )
                if refused.failure.fault is Fault.CREDENTIAL and has_more:
                    waiting.appendleft(planned)  # With another of its credentials.
            except UnusableReplyError as error:
                logger.warning("Request %s at %s: %s", self._metered.hold.request_id, attempt.upstream, error)
                attempt.end(BROKEN)
                self._pool.note_success(route, self._organization_id)
                raise
            except (UpstreamError, UpstreamProtocolError) as error:
                failure = self._take_fault(route, attempt, error)
            else:
                attempt.end(SERVED)
                self._pool.note_success(route, self._organization_id)
                return result
        self.is_accepted = False
        raise failure

    def _no_route(self) -> GatewayError:
        """Return the answer for when no route may be called, with the time until one may be again."""
        waits = [self._pool.seconds_until_usable(planned.route, self._organization_id) for planned in self._planned]
        seconds = max(1, math.ceil(min(waits, default=0)))
        return unavailable("The model is temporarily unavailable.", code="no_route", retry_after_seconds=seconds)

    def _take_refusal(
        self, planned: PlannedCall, credential: str, attempt: Attempt, failure: UpstreamFailure
    ) -> GatewayError:
        """Note what the upstream's error status says about it; return what the client gets if nothing else helps."""
        route = planned.route
        logger.warning("Request %s at %s: %s", self._metered.hold.request_id, attempt.upstream, failure.reason)
        attempt.end(failure.code)
        if failure.fault is Fault.UPSTREAM:
            self._pool.note_failure(route, self._organization_id)
        else:
            self._pool.note_success(route, self._organization_id)  # It is alive, and refuses this.
        if failure.fault in (Fault.CREDENTIAL, Fault.FORBIDDEN) and credential:
            self._checks.doubt(route, planned.codec, planned.target.profile, credential)
        elif failure.fault is Fault.ACCOUNT:
            self._pool.tell_of_account(route)
        return GatewayError(
            failure.status,
            failure.code,
            failure.message,
            retry_after_seconds=failure.retry_after_seconds,
            should_retry=False if failure.fault is Fault.FORBIDDEN else failure.should_retry,
            details=failure.details,
        )

    def _take_fault(
        self, route: UsableRoute, attempt: Attempt, error: UpstreamError | UpstreamProtocolError
    ) -> GatewayError:
        logger.warning("Request %s at %s: %s", self._metered.hold.request_id, attempt.upstream, error)
        self._note_fault(route, error)
        if isinstance(error, UpstreamStreamError):  # It said itself that it failed, though with a status of 200.
            attempt.end(error.code)
            if error.error_type == OVERLOADED:
                return unavailable(error.client_message, code=error.code)
            return GatewayError(502, error.code, error.client_message)
        if isinstance(error, UpstreamUnreachableError):
            attempt.end("upstream_unreachable")
            return unavailable("The model is temporarily unavailable.", code="upstream_unreachable")
        if isinstance(error, UpstreamTimeoutError):
            attempt.end("upstream_timeout")
            return GatewayError(502, "upstream_timeout", "The model service did not answer in time.")
        attempt.end("upstream_broken")
        return GatewayError(502, "upstream_broken", "The model service returned an abnormal response.")

    def note_broken(self, stream: "OpenStream", failure: UpstreamProtocolError) -> None:
        """Note that a stream which had begun broke off."""
        self._note_fault(stream.route, failure)

    def _note_fault(self, route: UsableRoute, error: UpstreamError | UpstreamProtocolError) -> None:
        if isinstance(error, UpstreamUnreachableError):
            self._pool.note_unreachable(route)
        elif isinstance(error, UpstreamProtocolError) and not error.is_upstream_fault:
            self._pool.note_success(route, self._organization_id)  # It is alive.
        else:
            self._pool.note_failure(route, self._organization_id)

    async def _fetch_whole(
        self, planned: PlannedCall, credential: str, attempt: Attempt, deadline: float
    ) -> DecodedMessage:
        self._pool.begin(planned.route, self._organization_id)
        try:
            response = await self._send(planned, credential, attempt, deadline)
            try:
                body = await response.read(
                    timeout_seconds=self._patience.idle_seconds, total_seconds=self._patience.total_seconds
                )
            finally:
                await response.aclose()
        finally:
            self._pool.end(planned.route, self._organization_id)
        return await self._large_bodies.run(
            len(body), planned.codec.decode_response, self._request, planned.target, body, self._identity
        )

    async def _open_stream(
        self, planned: PlannedCall, credential: str, attempt: Attempt, deadline: float
    ) -> OpenStream:
        self._pool.begin(planned.route, self._organization_id)
        response: UpstreamResponse | None = None
        try:
            response = await self._send(planned, credential, attempt, deadline)
            decoder = planned.codec.stream_decoder(self._request, planned.target, self._identity)
            while not decoder.has_started:
                chunk = await response.next_chunk(timeout_seconds=max(0.0, deadline - time.monotonic()))
                step = decoder.flush() if chunk is None else decoder.feed(chunk)
                if step.failure is not None and not decoder.has_started:
                    raise step.failure
            return OpenStream(response, decoder, step, planned.route, self._pool, self._organization_id)
        except BaseException:
            self._pool.end(planned.route, self._organization_id)
            if response is not None:
                await response.aclose()
            raise

    async def _send(self, planned: PlannedCall, credential: str, attempt: Attempt, deadline: float) -> UpstreamResponse:
        """Return the upstream's 200. Raises UpstreamError for everything else."""
        profile = planned.target.profile
        headers = {**planned.call.headers, **planned.codec.credential_headers(credential, profile)}
        if profile.request_id_header:
            headers[profile.request_id_header] = self._metered.hold.request_id
        seconds = max(0.0, deadline - time.monotonic())
        url = planned.route.base_url + planned.call.path
        response = await self._client.post(url, headers=headers, body=planned.call.body, timeout_seconds=seconds)
        attempt.status = response.status
        if response.status == 200:
            self.is_accepted = True
            return response
        try:
            body = await response.read(
                timeout_seconds=ERROR_BODY_SECONDS, total_seconds=ERROR_BODY_SECONDS, max_bytes=MAX_ERROR_BODY_BYTES
            )
        except UpstreamError:
            body = b""
        finally:
            await response.aclose()
        raise RefusedByUpstreamError(map_upstream_error(response.status, response.headers, body))
