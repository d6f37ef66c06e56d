"""POST /api/v1/estimate: what a request would hold and cost. The body is one of `/v1/messages`; nothing comes of it.

Everything is judged as the request itself would be, by the same code, up to ADMIT: nothing is held, called, noted or
billed. Rates and budgets are judged by ADMIT alone, so they are not asked here; the balance is.
"""

from typing import Any

from billing.admission.calls.state import AdmissionState
from billing.admission.errors import AdmissionUnavailableError
from billing.money import format_usd
from billing.pricing.cost import INPUT
from billing.pricing.estimation import affordable_max_tokens, worst_case_nanos
from gateway.admission.identify import AuthenticatedKey, check_restrictions, identify_key
from gateway.admission.propose import Proposal, propose_request
from gateway.errors import GatewayError, unavailable
from gateway.metering.meter import typical_input_tokens
from gateway.runtime import GatewayRuntime, current_runtime
from gateway.server.handler import GatewayRequest
from gateway.server.responses import GatewayResponse, json_response
from gateway.views.messages import parse_body

ESTIMATES_PER_MINUTE = 600  # Of one API key.


async def estimate(request: GatewayRequest) -> GatewayResponse:
    if request.method != "POST":
        raise GatewayError(405, "method_not_allowed", "Use POST.", headers={"allow": "POST"})
    runtime = current_runtime()
    key = await identify_key(runtime.keys, request.META)
    await runtime.admission.admit_free(key, kind="estimates", per_minute=ESTIMATES_PER_MINUTE)
    body_bytes = await request.receive_body(runtime.body_room, key.identity.organization_id)
    runtime.unpaid_work.charge(key.identity.organization_id, body_bytes)  # It is never paid.
    proposal = await _propose(runtime, request, key, body_bytes)
    await check_restrictions(runtime.keys, key, proposal.facts.catalog_model)
    state = await _read_state(runtime, key.identity.organization_id)
    return json_response({"data": _describe(runtime, proposal, state)}, headers={"cache-control": "private, no-store"})


async def _propose(
    runtime: GatewayRuntime, request: GatewayRequest, key: AuthenticatedKey, body_bytes: int
) -> Proposal:
    parsed = await runtime.large_bodies.admit(key.identity.organization_id, body_bytes, parse_body, request.take_body())
    request.model_name = parsed.model
    return await runtime.large_bodies.run(
        body_bytes,
        propose_request,
        runtime.catalog,
        key,
        parsed,
        request_id=request.request_id,
        received_at=runtime.admission_client.now(),
        token_estimator=runtime.token_estimator,
    )


async def _read_state(runtime: GatewayRuntime, organization_id: int) -> AdmissionState:
    """Return what the organization has and owes; whoever was let in before is known to Redis."""
    try:
        state = await runtime.admission_client.read_state(organization_id)
    except AdmissionUnavailableError as error:
        raise unavailable("The balance cannot be read right now.", code="admission_unavailable") from error
    if state is None:
        raise unavailable("The account cannot be loaded right now.", code="account_unavailable")
    return state


def _describe(runtime: GatewayRuntime, proposal: Proposal, state: AdmissionState) -> dict[str, Any]:
    facts, hold = proposal.facts, proposal.hold
    bounds, available = facts.bounds, state.available_nanos
    prompt_tokens = typical_input_tokens(facts, runtime.token_estimator)
    affordable = affordable_max_tokens(
        available,
        facts.price,
        input_tokens=bounds.held_prompt_tokens,
        ceiling=bounds.held_output_tokens,
        **facts.extras,
    )
    return {
        "model": facts.catalog_model.id,
        "currency": "USD",
        "hold": format_usd(hold.amount_nanos),
        "available": format_usd(available),
        "is_covered": hold.amount_nanos <= available,
        "affordable_max_tokens": affordable // bounds.samplings,
        "estimated_input_tokens": prompt_tokens,
        "max_input_tokens": bounds.held_prompt_tokens,
        "max_tokens": facts.max_tokens,
        "cost_of_input": format_usd(_usual_nanos(proposal, prompt_tokens, 0)),
        "cost_with_max_tokens": format_usd(_usual_nanos(proposal, prompt_tokens, facts.max_tokens)),
        "price_version": facts.price.price_version_id,
        "factor_ppm": facts.factor_ppm,
    }


def _usual_nanos(proposal: Proposal, input_tokens: int, output_tokens: int) -> int:
    """Return what so many tokens cost at the usual prices: nothing read from a cache or written to it."""
    facts = proposal.facts
    return worst_case_nanos(
        facts.price,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        factor_ppm=facts.factor_ppm,
        prompt_components=(INPUT,),
        images=facts.extras["images"],
    )
