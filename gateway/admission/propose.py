"""What a request asks for, at which price, what it may cost at most, and how it could be served. Holds nothing."""

from datetime import datetime
from typing import NamedTuple

from django.conf import settings

from billing.admission.hold import Hold
from billing.budgets.spenders import digest_of
from billing.catalog.snapshot import CatalogModel, CatalogSnapshot
from billing.pricing.cost import WEB_SEARCH, PriceTable
from billing.pricing.estimation import (
    PROMPT_WITH_5M_CACHE_WRITES,
    PROMPT_WITH_ALL_CACHE_WRITES,
    PROMPT_WITHOUT_CACHE_WRITES,
    worst_case_nanos,
)
from billing.usage_event import MAX_COST_NANOS
from gateway.admission.identify import AuthenticatedKey
from gateway.errors import GatewayError, invalid_request, no_route
from gateway.metering.meter import orphan_event, typical_input_tokens
from gateway.metering.request_facts import RequestFacts
from gateway.prompt_bounds import bound_prompt, count_searches
from gateway.protocol.errors import InvalidRequestError
from gateway.protocol.messages.attribution import read_attribution
from gateway.protocol.messages.capabilities import check_capabilities
from gateway.protocol.messages.request import MessagesRequest
from gateway.token_estimator import TokensPerByteEstimator
from gateway.upstreams.planning import PlannedCall, plan_calls

MAX_CLIENT_CHARS = 200
UNSERVED_RETRY_SECONDS = 30  # Until an operator has acted; nobody knows when.


class Proposal(NamedTuple):
    """A request that could be served: what it is, the hold that it needs, the calls that could be made."""

    facts: RequestFacts
    hold: Hold
    planned: list[PlannedCall]


def propose_request(
    catalog: CatalogSnapshot,
    key: AuthenticatedKey,
    request: MessagesRequest,
    *,
    request_id: str,
    received_at: datetime,
    token_estimator: TokensPerByteEstimator,
) -> Proposal:
    """Return what the request asks for, at which price, and how it could be served. Nothing is held yet.

    Raises GatewayError: 404 for an unknown model, 400 for what the model or its upstreams cannot do.
    """
    catalog_model, price = find_model(catalog, request.model, received_at)
    _check_abilities(request, catalog_model)
    identity = key.identity
    attribution = read_attribution(key.meta, request.end_user, request.session)
    facts = RequestFacts(
        request_id=request_id,
        organization_id=identity.organization_id,
        key_id=identity.key_id,
        catalog_model=catalog_model,
        price=price,
        factor_ppm=catalog.factor_ppm(identity.organization_id, received_at),
        received_at=received_at,
        max_tokens=request.max_tokens,
        body_bytes=request.body_bytes - request.image_data_bytes,
        images=request.image_count,
        is_streamed=request.is_streamed,
        end_user=attribution.end_user,
        tag=attribution.tag,
        session=attribution.session,
        client=key.meta.get("HTTP_USER_AGENT", "").replace("\x00", "")[:MAX_CLIENT_CHARS],
        web_searches=_web_searches(request, price),
        prompt_components=_prompt_components(request),
        bounds=bound_prompt(request, catalog_model, bytes_per_token=settings.BYTES_PER_INPUT_TOKEN),
    )
    planned = plan_calls(
        request,
        catalog_model.routes,
        client_version=key.meta.get("HTTP_ANTHROPIC_VERSION", ""),
        client_beta=key.meta.get("HTTP_ANTHROPIC_BETA", ""),
    )
    return Proposal(facts, _make_hold(request, facts, token_estimator), planned)


def find_model(catalog: CatalogSnapshot, name: str, moment: datetime) -> tuple[CatalogModel, PriceTable]:
    """Return a model that can be called, and its price at `moment`.

    Raises GatewayError: 404 for what is not on sale, 503 for what is and nobody serves now, or not at a price. A client
    that gets 404 gives the model up; that an upstream was disabled is over some day.
    """
    catalog_model = catalog.find(name)
    if catalog_model is None:
        raise GatewayError(404, "model_not_found", f"model: {name}")
    price = catalog_model.price_at(moment)
    if price is None or not catalog_model.routes:
        raise no_route(UNSERVED_RETRY_SECONDS)
    return catalog_model, price


def _check_abilities(request: MessagesRequest, catalog_model: CatalogModel) -> None:
    try:
        check_capabilities(request, catalog_model.capabilities)
    except InvalidRequestError as error:
        raise invalid_request(error) from error
    if request.max_tokens > catalog_model.max_output_tokens:
        raise GatewayError(
            400,
            "max_tokens_too_large",
            f"max_tokens: {request.max_tokens} > {catalog_model.max_output_tokens}, which is the maximum allowed number"
            f" of output tokens for {request.model}",
        )


def _make_hold(request: MessagesRequest, facts: RequestFacts, token_estimator: TokensPerByteEstimator) -> Hold:
    """Return the hold that covers the worst case. Raises GatewayError 400 when that is absurd."""
    bounds = facts.bounds
    amount = worst_case_nanos(
        facts.price,
        input_tokens=bounds.held_prompt_tokens,
        output_tokens=bounds.held_output_tokens,
        **facts.extras,
    )
    if amount > MAX_COST_NANOS:
        raise GatewayError(400, "request_too_expensive", "This request may cost more than any request can.")
    return Hold(
        request_id=facts.request_id,
        organization_id=facts.organization_id,
        key_id=facts.key_id,
        amount_nanos=amount,
        input_tokens=bounds.written_tokens,
        output_tokens=request.max_tokens,
        end_user=digest_of(facts.end_user),
        orphan_event=orphan_event(facts, amount, typical_input_tokens(facts, token_estimator)),
    )


def _prompt_components(request: MessagesRequest) -> tuple[str, ...]:
    if request.writes_cache_1h:
        return PROMPT_WITH_ALL_CACHE_WRITES
    return PROMPT_WITH_5M_CACHE_WRITES if request.writes_cache else PROMPT_WITHOUT_CACHE_WRITES


def _web_searches(request: MessagesRequest, price: PriceTable) -> int:
    """Return how many searches to hold for. Raises GatewayError 400 for a priced tool that has no price here."""
    searches = count_searches(request)
    if searches and not price.has_price(WEB_SEARCH):
        raise GatewayError(400, "tool_without_price", "tools: web search has no price for this model")
    return searches
