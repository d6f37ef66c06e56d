"""POST /v1/messages/count_tokens: how many input tokens a request would have. Never billed, with a limit of its own.

The upstream counts where it can; otherwise the answer is an upper bound, and a header says so.
"""

from datetime import UTC, datetime

from django.conf import settings

from billing.catalog.snapshot import OfferedModel
from gateway.admitting import admit_free, check_restrictions, find_model, identify_caller
from gateway.errors import GatewayError, invalid_request
from gateway.handler import GatewayRequest
from gateway.protocol.codec import RouteTarget
from gateway.protocol.codecs import CODECS
from gateway.protocol.count_tokens import ESTIMATE_HEADER, ESTIMATED, encode_token_count, estimate_input_tokens
from gateway.protocol.errors import InvalidProfileError, InvalidRequestError, UpstreamProtocolError
from gateway.protocol.messages_request import MessagesRequest, parse_count_tokens_request
from gateway.protocol.upstream_errors import map_upstream_error
from gateway.responses import GatewayResponse
from gateway.runtime import GatewayRuntime, current_runtime
from gateway.upstreams.calls import profile_of
from gateway.upstreams.errors import UpstreamError
from gateway.upstreams.http_client import MAX_ERROR_BODY_BYTES

UPSTREAM_SECONDS = 10.0  # A count that takes longer is worth less than an estimate now.


async def count_tokens(request: GatewayRequest) -> GatewayResponse:
    if request.method != "POST":
        raise GatewayError(405, "method_not_allowed", "Use POST.", headers={"allow": "POST"})
    runtime = current_runtime()
    caller = await identify_caller(runtime, request.META)
    await admit_free(runtime, caller, kind="count_tokens", per_minute=settings.COUNT_TOKENS_PER_MINUTE)
    body_bytes = await request.receive_body(runtime.body_room, caller.identity.key_id)
    runtime.unpaid_work.charge(caller.identity.key_id, body_bytes)  # It is never paid.
    parsed = await runtime.large_bodies.admit(body_bytes, _parse_body, request.take_body())
    offered, _ = find_model(runtime, parsed.model, datetime.now(UTC))
    await check_restrictions(runtime, caller, offered)
    counted = await _ask_upstream(runtime, request, parsed, offered)
    if counted is not None:
        return GatewayResponse(encode_token_count(counted))
    estimate = estimate_input_tokens(
        parsed, max_image_tokens=offered.max_image_tokens, bytes_per_token=settings.BYTES_PER_INPUT_TOKEN
    )
    return GatewayResponse(encode_token_count(estimate), headers={ESTIMATE_HEADER: ESTIMATED})


def _parse_body(body: bytes) -> MessagesRequest:
    try:
        return parse_count_tokens_request(body)
    except InvalidRequestError as error:
        raise invalid_request(error) from error


async def _ask_upstream(
    runtime: GatewayRuntime, request: GatewayRequest, parsed: MessagesRequest, offered: OfferedModel
) -> int | None:
    """Return the count of the first route that can count; None when none can. Raises GatewayError for bad requests."""
    for route in offered.routes:
        codec = CODECS[route.protocol]
        try:
            profile = profile_of(route)
        except InvalidProfileError:
            continue  # The request path logs it.
        if not codec.serves_count_tokens(profile):
            continue
        credential = runtime.pool.choose_credential(route)
        if route.credential and not credential:  # All of them are suspended.
            continue
        target = RouteTarget(
            route.upstream_model,
            profile,
            request.META.get("HTTP_ANTHROPIC_VERSION", ""),
            request.META.get("HTTP_ANTHROPIC_BETA", ""),
        )
        try:
            call = await runtime.large_bodies.run(parsed.body_bytes, codec.render_count_tokens, parsed, target)
            headers = {**call.headers, **codec.credential_headers(credential, profile)}
            response = await runtime.upstreams.post(
                route.base_url + call.path, headers=headers, body=call.body, timeout_seconds=UPSTREAM_SECONDS
            )
            try:
                body = await response.read(
                    timeout_seconds=UPSTREAM_SECONDS, total_seconds=UPSTREAM_SECONDS, max_bytes=MAX_ERROR_BODY_BYTES
                )
            finally:
                await response.aclose()
            if response.status == 200:
                return codec.decode_count_tokens(body)
            failure = map_upstream_error(response.status, response.headers, body)
            if not failure.can_fail_over:
                raise GatewayError(failure.status, failure.code, failure.message, details=failure.details)
        except InvalidRequestError as error:
            raise invalid_request(error) from error
        except (UpstreamError, UpstreamProtocolError):
            continue
    return None
