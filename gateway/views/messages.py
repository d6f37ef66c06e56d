"""POST /v1/messages: the whole request path, from a body to a billed answer.

parse -> admit -> call upstreams -> relay -> close the hold -> the last bytes. Each step lives in a module of its own.
"""

import asyncio
import hashlib
from functools import partial
from typing import cast

from django.conf import settings

from billing.request_id import MESSAGE_PREFIX
from gateway.admission.identify import AuthenticatedKey, identify_key
from gateway.admission.propose import propose_request
from gateway.authentication import read_key
from gateway.errors import STOPPING_CODE, GatewayError, invalid_request
from gateway.holds import UNSAFE, UNSAFE_CODE, UNSAFE_TEXT
from gateway.idempotency import MAX_CLAIMS_PER_MINUTE, Claim, claim_key
from gateway.metering.metered_request import MeteredRequest
from gateway.protocol.codec import ReplyIdentity
from gateway.protocol.errors import InvalidRequestError, UnusableReplyError
from gateway.protocol.messages.attribution import read_attribution
from gateway.protocol.messages.request import MessagesRequest, parse_messages_request
from gateway.relay import StreamRelay, StreamTimeouts
from gateway.runtime import GatewayRuntime, current_runtime
from gateway.server.handler import GatewayRequest
from gateway.server.responses import EVENT_STREAM_HEADERS, GatewayResponse, RelayResponse
from gateway.upstreams.calls import UpstreamCalls
from gateway.upstreams.exchange import Exchange
from gateway.upstreams.planning import PlannedCall

REPLAYED = {"idempotent-replayed": "true"}
# A client that leaves sooner changes nothing: the upstream is read for longer than this all the same.
UNWATCHED_SECONDS = 0.5
FIRST_FAULT_OF_OURS = 500  # Of the statuses.
COST_HEADER = "HTTP_X_CROSSMODEL_USAGE_COST"


async def create_message(request: GatewayRequest) -> GatewayResponse:
    if request.method != "POST":
        raise GatewayError(405, "method_not_allowed", "Use POST.", headers={"allow": "POST"})
    runtime = current_runtime()
    key = await identify_key(runtime.keys, request.META)
    request.identity = key.identity
    try:
        return await _receive_and_answer(runtime, request, key)
    except GatewayError as error:
        if request.metered is None:
            runtime.refusals.note(
                key.identity,
                error,
                request_id=request.request_id,
                endpoint="messages",
                model=request.model_name,
                attribution=read_attribution(request.META, request.end_user, request.session_in_body),
            )
        raise


async def _receive_and_answer(
    runtime: GatewayRuntime, request: GatewayRequest, key: AuthenticatedKey
) -> GatewayResponse:
    body_bytes = await request.receive_body(runtime.body_room, key.identity.organization_id)
    runtime.unpaid_work.charge(key.identity.organization_id, body_bytes)
    try:
        return await _answer(runtime, request, key, body_bytes)
    except GatewayError as error:
        if error.status >= FIRST_FAULT_OF_OURS and request.metered is None:
            runtime.unpaid_work.give_back(key.identity.organization_id, body_bytes)
        raise


async def _answer(
    runtime: GatewayRuntime, request: GatewayRequest, key: AuthenticatedKey, body_bytes: int
) -> GatewayResponse:
    parsed = await runtime.large_bodies.admit(key.identity.organization_id, body_bytes, parse_body, request.take_body())
    request.model_name = parsed.model
    request.end_user, request.session_in_body = parsed.end_user, parsed.session
    claim: Claim | bytes | None = None
    if "HTTP_IDEMPOTENCY_KEY" in request.META:
        claim = await _claim(runtime, request, key, parsed)
    if isinstance(claim, bytes):
        runtime.unpaid_work.give_back(key.identity.organization_id, body_bytes)
        return GatewayResponse(claim, headers=REPLAYED)
    try:
        proposal = await runtime.large_bodies.run(
            body_bytes,
            propose_request,
            runtime.catalog,
            key,
            parsed,
            request_id=request.request_id,
            received_at=runtime.admission_client.now(),
            token_estimator=runtime.token_estimator,
        )
        parsed = parsed.without_prompt()
        metered, headers = await runtime.admission.admit(key, proposal)
        request.metered = metered
        runtime.unpaid_work.give_back(key.identity.organization_id, body_bytes)
        return await _serve(runtime, request, metered, parsed, proposal.planned, headers, claim)
    except GatewayError:
        if claim is not None:
            is_billed = request.metered is not None and request.metered.is_billed
            await (claim.keep_nothing() if is_billed else claim.give_up())
        raise
    except BaseException:
        # A fault of ours, or this process stops. What was admitted tells by its record how it ended.
        if claim is not None and request.metered is None:
            runtime.background.run(claim.give_up(), organization_id=key.identity.organization_id)
        raise


async def _claim(
    runtime: GatewayRuntime, request: GatewayRequest, key: AuthenticatedKey, parsed: MessagesRequest
) -> Claim | bytes:
    """Return a claim on the request's Idempotency-Key, or the answer that was given before. Raises GatewayError."""
    # Whether the key lives is asked before its stored answer is, and before Postgres has any work by it.
    await runtime.admission.admit_free(key, kind="claims", per_minute=MAX_CLAIMS_PER_MINUTE)
    return await claim_key(
        runtime.database,
        organization_id=key.identity.organization_id,
        key_id=key.identity.key_id,
        api_key=read_key(request.META),
        idempotency_key=request.META["HTTP_IDEMPOTENCY_KEY"],
        body_sha256=await runtime.large_bodies.run(parsed.body_bytes, _sha256, parsed.raw),
        request_id=request.request_id,
    )


async def _serve(
    runtime: GatewayRuntime,
    request: GatewayRequest,
    metered: MeteredRequest,
    parsed: MessagesRequest,
    planned: list[PlannedCall],
    headers: dict[str, str],
    claim: Claim | None,
) -> GatewayResponse:
    metered.shows_cost = metered.shows_cost or request.META.get(COST_HEADER, "").lower() in ("1", "true")
    identity = ReplyIdentity(MESSAGE_PREFIX + request.request_id, parsed.model)
    exchange = Exchange(
        runtime.upstream_access,
        parsed,
        identity,
        runtime.timeouts,
        organization_id=metered.hold.organization_id,
        request_id=request.request_id,
        trace=request.trace,
    )
    upstream_calls = UpstreamCalls(exchange, planned, metered.attempts)
    try:
        if parsed.is_streamed:
            return await _stream(runtime, request, metered, upstream_calls, headers)
        body = await _serve_whole(runtime, request, metered, upstream_calls, claim)
    except GatewayError as error:
        error.headers = {**headers, **error.headers}
        raise
    return GatewayResponse(body, headers=headers)


def _sha256(raw: bytes) -> bytes:
    return hashlib.sha256(raw).digest()


def parse_body(body: bytes) -> MessagesRequest:
    """Return the checked request. Raises GatewayError 400."""
    try:
        return parse_messages_request(body)
    except InvalidRequestError as error:
        raise invalid_request(error) from error


async def _stream(
    runtime: GatewayRuntime,
    request: GatewayRequest,
    metered: MeteredRequest,
    upstream_calls: UpstreamCalls,
    headers: dict[str, str],
) -> GatewayResponse:
    organization_id = metered.hold.organization_id
    times = StreamTimeouts(
        ping_seconds=settings.GATEWAY.ping_seconds,
        idle_seconds=runtime.timeouts.idle_seconds,
        total_seconds=runtime.timeouts.total_seconds,
        drain_seconds=partial(runtime.background.drain_seconds, organization_id),
        stall_seconds=settings.GATEWAY.client_stall_seconds,
    )
    request.watch.cancel_on_departure()
    relay = StreamRelay(
        metered,
        upstream_calls,
        request_header=request.request_header,
        times=times,
        run_in_background=partial(runtime.background.run, organization_id=organization_id),
        has_client_left=lambda: request.watch.has_left,
    )
    await relay.open()
    return RelayResponse(relay.run, {**EVENT_STREAM_HEADERS, **headers})


async def _serve_whole(
    runtime: GatewayRuntime,
    request: GatewayRequest,
    metered: MeteredRequest,
    upstream_calls: UpstreamCalls,
    claim: Claim | None,
) -> bytes:
    """Return the body of the reply. A client that leaves does not stop it at once: its upstream bills for the whole."""
    serving = cast("asyncio.Task[None]", asyncio.current_task())
    organization_id = metered.hold.organization_id

    def go_on_alone() -> None:
        work = _end_in_time(serving, runtime.background.drain_seconds(organization_id))
        runtime.background.run(work, organization_id=organization_id)

    request.watch.start_later(UNWATCHED_SECONDS, go_on_alone)
    try:
        decoded = await upstream_calls.fetch_whole()
    except GatewayError as error:
        await metered.release(error.code)
        raise
    except UnusableReplyError as error:
        await metered.complete(error.reading)
        raise GatewayError(502, error.code, error.client_message, should_retry=False) from error
    except asyncio.CancelledError:
        if request.watch.has_left:
            runtime.background.run(_close_unserved(metered, was_accepted=upstream_calls.is_accepted))
        else:
            runtime.background.run(_release_for_stop(metered))
        raise
    except Exception:
        await metered.release("internal_error")
        raise
    metered.note_first_byte()
    outcome = await metered.complete(decoded.reading)
    if outcome == UNSAFE:
        raise GatewayError(500, UNSAFE_CODE, UNSAFE_TEXT, should_retry=False)
    body = await runtime.large_bodies.run(
        decoded.reading.delivered_bytes,
        decoded.encode,
        usage=metered.shown_usage,
        extra_usage=metered.extra_usage(),
    )
    if claim is not None:
        await claim.keep(body)
    return body


async def _end_in_time(serving: "asyncio.Task[None]", seconds: float) -> None:
    """Let a request whose client has left go on for so long."""
    await asyncio.wait((serving,), timeout=seconds)
    if not serving.done():
        serving.cancel()


async def _close_unserved(metered: MeteredRequest, *, was_accepted: bool) -> None:
    """End a request that is given up: its client left too long ago."""
    if was_accepted:
        await metered.end_for_left_client(None)
    else:
        await metered.release("client_left")


async def _release_for_stop(metered: MeteredRequest) -> None:
    """End a request that this process stops before its reply is whole: nothing was delivered, and nothing is billed."""
    if not metered.has_ended:
        await metered.release(STOPPING_CODE)
