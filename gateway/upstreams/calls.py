"""Calls the upstreams of a model, in order, until one begins to answer or none is left.

While no byte has reached the client, another route may be tried. Each attempt is recorded with the request, served or
not.
"""

import logging
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from billing.catalog.snapshot import UsableRoute
from gateway.errors import (
    OVERLOADED,
    TOO_MANY_CONNECTIONS_CODE,
    GatewayError,
    no_route,
    too_many_connections,
    unavailable,
)
from gateway.http.errors import NoRoomError, UpstreamError, UpstreamTimeoutError, UpstreamUnreachableError
from gateway.metering.attempts import BROKEN, SERVED, Attempt, AttemptLog
from gateway.metering.line_budget import LineBudget
from gateway.protocol.codec import DecodedMessage
from gateway.protocol.errors import UnusableReplyError, UpstreamProtocolError, UpstreamStreamError
from gateway.protocol.upstream_errors import Fault, UpstreamFailure
from gateway.upstreams.exchange import Exchange, OpenStream, RefusedByUpstreamError
from gateway.upstreams.planning import PlannedCall
from gateway.upstreams.pool import RunningCall, breaker_of_counts, split_credentials

ACCEPTED = 200  # The status with which an upstream takes a call on.
MAX_CREDENTIALS_TRIED = 2  # Of one upstream for one request.

WARNINGS_PER_MINUTE = 60  # Of one organization.

T = TypeVar("T")

_warnings = LineBudget(WARNINGS_PER_MINUTE, WARNINGS_PER_MINUTE)
logger = logging.getLogger(__name__)


class UpstreamCalls:
    """The attempts of one request."""

    def __init__(self, exchange: Exchange, planned: Sequence[PlannedCall], attempts: AttemptLog) -> None:
        self._exchange = exchange
        self._pool = exchange.access.pool
        self._checks = exchange.access.checks
        self._organization_id = self._breaker_id = exchange.organization_id
        self._planned = planned
        self._attempts = attempts
        self._drains_anywhere = any(call.route.bills_when_cancelled for call in planned)
        self._has_client = True
        # True once an upstream has refused what was asked: no other one is asked then.
        self._was_refused = False

    @property
    def is_accepted(self) -> bool:
        """True while an upstream that accepted the call is at work: if we leave it now, it may charge us."""
        last = self._attempts.last
        return last is not None and last.status == ACCEPTED and last.has_replied

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
        return await self._first_success(self._exchange.fetch_whole)

    async def open_stream(self) -> OpenStream:
        """Return the stream of the first upstream that begins one. Raises GatewayError when none does."""
        return await self._first_success(self._exchange.open_stream)

    async def count_tokens(self) -> int | None:
        """Return the count of the first upstream that counts; None when none can now.

        Raises GatewayError for what an upstream refuses to count.
        """
        self._breaker_id = breaker_of_counts(self._organization_id)
        try:
            return await self._first_success(self._exchange.count_tokens)
        except GatewayError:
            if self._was_refused:
                raise
            return None

    async def _first_success(self, call: Callable[[PlannedCall, RunningCall, Attempt, float], Awaitable[T]]) -> T:
        deadline = time.monotonic() + self._exchange.timeouts.first_byte_seconds
        failure: GatewayError | None = None
        waiting = deque(self._planned)
        tried: dict[str, int] = {}
        while waiting and self._has_client:
            planned = waiting.popleft()
            route = planned.route
            seconds_left = deadline - time.monotonic()
            if seconds_left <= 0:
                break  # Who is given no time would be blamed for a time-out.
            most_at_once = planned.target.profile.max_concurrent
            running = self._pool.begin(
                route, self._organization_id, most_at_once=most_at_once, breaker_id=self._breaker_id
            )
            if running is None:
                continue
            attempt = self._attempts.begin(route.upstream_name)
            try:
                # A silent upstream must leave time for those after it.
                result = await call(planned, running, attempt, time.monotonic() + seconds_left / (1 + len(waiting)))
            except RefusedByUpstreamError as refused:
                failure = self._take_refusal(planned, running.credential, attempt, refused.failure)
                if not refused.failure.can_fail_over:
                    self._was_refused = True
                    break
                tried[route.upstream_name] = tried.get(route.upstream_name, 0) + 1
                has_more = tried[route.upstream_name] < min(
                    MAX_CREDENTIALS_TRIED, len(split_credentials(route.credential))
                )
                if refused.failure.fault is Fault.CREDENTIAL and has_more:
                    waiting.appendleft(planned)  # With another of its credentials.
            except UnusableReplyError as error:
                self._warn(attempt, error)
                attempt.end(BROKEN)
                self._pool.note_success(route, self._breaker_id)
                raise
            except (UpstreamError, UpstreamProtocolError) as error:
                failure = self._take_fault(route, attempt, error)
            else:
                attempt.end(SERVED)
                self._pool.note_success(route, self._breaker_id)
                return result
        raise failure or self._no_route()

    def _no_route(self) -> GatewayError:
        """Return the answer for when no route may be called, with the time until one may be again."""
        waits = [self._pool.seconds_until_usable(planned.route, self._breaker_id) for planned in self._planned]
        return no_route(max(1, math.ceil(min(waits, default=0))))

    def _take_refusal(
        self, planned: PlannedCall, credential: str, attempt: Attempt, failure: UpstreamFailure
    ) -> GatewayError:
        """Note what the upstream's error status says about it; return what the client gets if nothing else helps."""
        route = planned.route
        # What a provider says of a request may repeat the prompt; what it says of us is for operators.
        is_about_us = failure.fault in (Fault.CREDENTIAL, Fault.ACCOUNT, Fault.RATE_LIMIT)
        self._warn(attempt, failure.reason if is_about_us else f"{failure.code} ({failure.fault})")
        attempt.end(failure.code)
        if failure.fault is Fault.UPSTREAM:
            self._pool.note_failure(route, self._breaker_id)
        else:
            self._pool.note_success(route, self._breaker_id)  # It is alive, and refuses this.
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
        self._warn(attempt, error.log_text if isinstance(error, UpstreamProtocolError) else error)
        if isinstance(error, NoRoomError):
            attempt.end(TOO_MANY_CONNECTIONS_CODE)
            return too_many_connections()
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
            self._pool.note_success(route, self._breaker_id)  # It is alive.
        else:
            self._pool.note_failure(route, self._breaker_id)

    def _warn(self, attempt: Attempt, reason: object) -> None:
        """Write a line, unless the organization has had its lines of this minute."""
        if _warnings.allows(self._organization_id):
            extra = {"upstream": attempt.upstream, "organization": self._organization_id}
            logger.warning("Request %s at %s: %s", self._exchange.request_id, attempt.upstream, reason, extra=extra)
