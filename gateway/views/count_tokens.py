"""POST /v1/messages/count_tokens: how many input tokens a request would have. Never billed, with a limit of its own.

The upstream counts where it can; otherwise the answer is an upper bound, and a header says so.
"""

from datetime import UTC, datetime

from django.conf import settings

from billing.catalog.snapshot import CatalogModel
from gateway.admission.identify import AuthenticatedKey, check_restrictions, identify_key
from gateway.admission.propose import find_model
from gateway.errors import GatewayError, invalid_request
from gateway.metering.attempts import AttemptLog
from gateway.protocol.codec import ReplyIdentity
from gateway.protocol.errors import InvalidRequestError
from gateway.protocol.messages.attribution import read_attribution
from gateway.protocol.messages.count_tokens import ESTIMATE_HEADER, ESTIMATED, encode_token_count, estimate_input_tokens
from gateway.protocol.messages.request import MessagesRequest, parse_count_tokens_request
from gateway.runtime import GatewayRuntime, current_runtime
from gateway.server.handler import GatewayRequest
from gateway.server.responses import GatewayResponse
from gateway.upstreams.calls import UpstreamCalls
from gateway.upstreams.exchange import Exchange, UpstreamTimeouts
from gateway.upstreams.planning import plan_counts

# A count that takes longer is worth less than an estimate now.
TIMEOUTS = UpstreamTimeouts(first_byte_seconds=10.0, idle_seconds=10.0, total_seconds=10.0)


async def count_tokens(request: GatewayRequest) -> GatewayResponse:
    if request.method != "POST":
        raise GatewayError(405, "method_not_allowed", "Use POST.", headers={"allow": "POST"})
    runtime = current_runtime()
    key = await identify_key(runtime.keys, request.META)
    request.identity = key.identity
    try:
        return await _count(runtime, request, key)
    except GatewayError as error:
        runtime.refusals.note(
            key.identity,
            error,
            request_id=request.request_id,
            endpoint="count_tokens",
            model=request.model_name,
            attribution=read_attribution(request.META, request.end_user, request.session_in_body),
        )
        raise


async def _count(runtime: GatewayRuntime, request: GatewayRequest, key: AuthenticatedKey) -> GatewayResponse:
    await runtime.admission.admit_free(key, kind="count_tokens", per_minute=settings.COUNT_TOKENS_PER_MINUTE)
    body_bytes = await request.receive_body(runtime.body_room, key.identity.organization_id)
    runtime.unpaid_work.charge(key.identity.organization_id, body_bytes)  # It is never paid.
    parsed = await runtime.large_bodies.admit(
        key.identity.organization_id, body_bytes, _parse_body, request.take_body()
    )
    request.model_name = parsed.model
    request.end_user, request.session_in_body = parsed.end_user, parsed.session
    catalog_model, _ = find_model(runtime.catalog, parsed.model, datetime.now(UTC))
    await check_restrictions(runtime.keys, key, catalog_model)
    counted = await _ask_upstreams(runtime, request, key, parsed, catalog_model)
    if counted is not None:
        return GatewayResponse(encode_token_count(counted))
    estimate = estimate_input_tokens(
        parsed, max_image_tokens=catalog_model.max_image_tokens, bytes_per_token=settings.BYTES_PER_INPUT_TOKEN
    )
    return GatewayResponse(encode_token_count(estimate), headers={ESTIMATE_HEADER: ESTIMATED})


def _parse_body(body: bytes) -> MessagesRequest:
    try:
        return parse_count_tokens_request(body)
    except InvalidRequestError as error:
        raise invalid_request(error) from error


async def _ask_upstreams(
    runtime: GatewayRuntime,
    request: GatewayRequest,
    key: AuthenticatedKey,
    parsed: MessagesRequest,
    catalog_model: CatalogModel,
) -> int | None:
    """Return the count of the first upstream that counts; None when none can. Raises GatewayError for bad requests."""
    planned = await runtime.large_bodies.run(
        parsed.body_bytes,
        plan_counts,
        parsed,
        catalog_model.routes,
        client_version=key.meta.get("HTTP_ANTHROPIC_VERSION", ""),
        client_beta=key.meta.get("HTTP_ANTHROPIC_BETA", ""),
    )
    exchange = Exchange(
        runtime.upstream_access,
        parsed,
        ReplyIdentity(request.request_id, parsed.model),
        TIMEOUTS,
        organization_id=key.identity.organization_id,
        request_id=request.request_id,
        trace=request.trace,
    )
    return await UpstreamCalls(exchange, planned, AttemptLog()).count_tokens()
