"""From a parsed request to an admitted one: who calls, what it may cost at most, and the one question to Redis.

Restrictions of the key (models, networks) are checked before ADMIT, on a copy of the key that ADMIT knows to be
current; everything else that can change from one moment to the next is checked inside it.
"""

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple

from django.conf import settings

from billing.admission.client import Admitted, Hold, NotReady, Rates, Refused
from billing.admission.errors import AdmissionUnavailableError
from billing.catalog.snapshot import OfferedModel
from billing.estimation import (
    PROMPT_WITH_5M_CACHE_WRITES,
    PROMPT_WITH_ALL_CACHE_WRITES,
    PROMPT_WITHOUT_CACHE_WRITES,
    affordable_max_tokens,
    worst_case_nanos,
)
from billing.money import format_usd
from billing.pricing import WEB_SEARCH, PriceTable
from billing.usage_event import MAX_COST_NANOS
from gateway.authentication import KeyIdentity, check_network, invalid_key
from gateway.database import DatabaseUnavailableError
from gateway.errors import GatewayError, invalid_request, unavailable
from gateway.metering import MeteredRequest, RequestFacts, orphan_event, typical_input_tokens
from gateway.prompt_bounds import bound_prompt, count_searches
from gateway.protocol.capabilities import check_capabilities
from gateway.protocol.errors import InvalidRequestError
from gateway.protocol.messages_request import MessagesRequest
from gateway.runtime import GatewayRuntime
from gateway.spool import SpoolFullError
from gateway.upstreams.calls import PlannedCall, plan_calls

MAX_ADMISSION_ROUNDS = 8  # Two loads and a stale key are usual at most; more means that something changes all the time.
MAX_CLIENT_CHARS = 200
MAX_KNOWN_SECONDS = 1_000


@dataclass(slots=True)
class Caller:
    """Who asks: the identity may be read anew while the request is admitted. `meta` is Django's META."""

    identity: KeyIdentity
    digest: bytes
    meta: Mapping[str, str]


class Proposal(NamedTuple):
    """A request that could be served: what it is, the hold that it needs, the calls that could be made."""

    facts: RequestFacts
    hold: Hold
    planned: list[PlannedCall]


async def identify_caller(runtime: GatewayRuntime, meta: Mapping[str, str]) -> Caller:
    """Return who calls. Raises GatewayError 401, or 503 when that cannot be known."""
    identity, digest = await runtime.keys.identify(meta)
    return Caller(identity, digest, meta)


def propose_request(runtime: GatewayRuntime, caller: Caller, request: MessagesRequest, *, request_id: str) -> Proposal:
    """Return what the request asks for, at which price, and how it could be served. Nothing is held yet.

    Raises GatewayError: 404 for an unknown model, 400 for what the model or its upstreams cannot do.
    """
    received_at = runtime.admission.now()
    offered, price = find_model(runtime, request.model, received_at)
    _check_abilities(request, offered)
    identity = caller.identity
    facts = RequestFacts(
        request_id=request_id,
        organization_id=identity.organization_id,
        key_id=identity.key_id,
        offered=offered,
        price=price,
        factor_ppm=runtime.catalog.factor_ppm(identity.organization_id, received_at),
        received_at=received_at,
        max_tokens=request.max_tokens,
        body_bytes=request.body_bytes - request.image_data_bytes,
        images=request.image_count,
        is_streamed=request.is_streamed,
        end_user=request.end_user,
        client=caller.meta.get("HTTP_USER_AGENT", "").replace("\x00", "")[:MAX_CLIENT_CHARS],
        web_searches=_web_searches(request, price),
        prompt_components=_prompt_components(request),
        bounds=bound_prompt(request, offered, bytes_per_token=settings.BYTES_PER_INPUT_TOKEN),
    )
    planned = plan_calls(
        request,
        offered.routes,
        client_version=caller.meta.get("HTTP_ANTHROPIC_VERSION", ""),
        client_beta=caller.meta.get("HTTP_ANTHROPIC_BETA", ""),
    )
    return Proposal(facts, _make_hold(runtime, request, facts), planned)


async def admit_request(
    runtime: GatewayRuntime, caller: Caller, proposal: Proposal
) -> tuple[MeteredRequest, dict[str, str]]:
    """Return the admitted request and the rate limit headers of its answer.

    Raises GatewayError; then nothing is held, or its release is under way.
    """
    _check_room(runtime)
    facts, hold = proposal.facts, proposal.hold
    for _ in range(MAX_ADMISSION_ROUNDS):
        await check_restrictions(runtime, caller, facts.offered)
        try:
            answer = await runtime.admission.admit(hold, key_config_version=caller.identity.config_version)
        except AdmissionUnavailableError as error:
            if error.may_have_run:
                _release_in_background(runtime, facts, hold)
            raise unavailable("Admission is temporarily unavailable.", code="admission_unavailable") from error
        except asyncio.CancelledError:
            _release_in_background(runtime, facts, hold)  # The client left, and the answer is lost.
            raise
        if isinstance(answer, Admitted):
            hold.day, hold.admitted_at_ms = answer.day, answer.admitted_at_ms
            metered = MeteredRequest(facts, hold, runtime.settler, runtime.density)
            metered.shows_cost = answer.shows_cost
            runtime.settler.watch(metered)
            return metered, rate_headers(answer.rates, facts.received_at)
        if isinstance(answer, Refused):
            raise _refusal(answer, facts, hold)
        await _make_ready(runtime, caller, answer)
    raise unavailable("Admission is temporarily unavailable.", code="admission_unavailable")


def _check_room(runtime: GatewayRuntime) -> None:
    if runtime.is_draining:
        raise unavailable("This gateway is shutting down.", code="shutting_down")
    try:
        runtime.spool.check_room()
    except SpoolFullError as error:
        raise unavailable("Usage cannot be recorded right now.", code="spool_full") from error


def find_model(runtime: GatewayRuntime, name: str, moment: datetime) -> tuple[OfferedModel, PriceTable]:
    """Return a model that can be called, and its price at `moment`. Raises GatewayError 404."""
    offered = runtime.catalog.find(name)
    price = offered.price_at(moment) if offered is not None else None
    if offered is None or price is None or not offered.routes:
        raise GatewayError(404, "model_not_found", f"model: {name}")
    return offered, price


async def check_restrictions(runtime: GatewayRuntime, caller: Caller, offered: OfferedModel | None = None) -> None:
    """Raise GatewayError 402 `network_not_allowed` or `model_not_allowed` when the key may not be used like this.

    A refusal ends before ADMIT could say that this process' copy of the key is old, so the key is read again first.
    """
    try:
        _check_restrictions(caller, offered)
    except GatewayError:
        caller.identity = await runtime.keys.reload(caller.digest)
        _check_restrictions(caller, offered)


def _check_restrictions(caller: Caller, offered: OfferedModel | None) -> None:
    check_network(caller.identity, caller.meta)
    allowed = caller.identity.allowed_models
    if offered is not None and allowed and offered.id not in allowed:
        raise GatewayError(402, "model_not_allowed", f"This API key may not use {offered.id}.")


def _check_abilities(request: MessagesRequest, offered: OfferedModel) -> None:
    try:
        check_capabilities(request, offered.capabilities)
    except InvalidRequestError as error:
        raise invalid_request(error) from error
    if request.max_tokens > offered.max_output_tokens:
        raise GatewayError(
            400,
            "max_tokens_too_large",
            f"max_tokens: {request.max_tokens} > {offered.max_output_tokens}, which is the maximum allowed number of"
            f" output tokens for {request.model}",
        )


def _make_hold(runtime: GatewayRuntime, request: MessagesRequest, facts: RequestFacts) -> Hold:
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
        orphan_event=orphan_event(facts, amount, typical_input_tokens(facts, runtime.density)),
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


async def admit_free(runtime: GatewayRuntime, caller: Caller, *, kind: str, per_minute: int) -> None:
    """Let a request through that costs nothing, if the key lives and may be used from here. Raises GatewayError."""
    for _ in range(MAX_ADMISSION_ROUNDS):
        await check_restrictions(runtime, caller)
        identity = caller.identity
        try:
            answer = await runtime.admission.admit_free(
                organization_id=identity.organization_id,
                key_id=identity.key_id,
                key_config_version=identity.config_version,
                kind=kind,
                per_minute=per_minute,
            )
        except AdmissionUnavailableError as error:
            raise unavailable("Admission is temporarily unavailable.", code="admission_unavailable") from error
        if isinstance(answer, NotReady):
            await _make_ready(runtime, caller, answer)
            continue
        if answer.refused_code:
            raise _standing_refusal(answer.refused_code) or _rate_refusal(
                answer.refused_code, per_minute, answer.reset_us, headers={}
            )
        return
    raise unavailable("Admission is temporarily unavailable.", code="admission_unavailable")


async def _make_ready(runtime: GatewayRuntime, caller: Caller, answer: NotReady) -> None:
    """Bring up to date what ADMIT found missing or old. Raises GatewayError."""
    if answer.reason == "STALE":
        caller.identity = await runtime.keys.reload(caller.digest)
    else:
        await _load(runtime, answer, caller.identity)


async def _load(runtime: GatewayRuntime, answer: NotReady, identity: KeyIdentity) -> None:
    """Bring into Redis what ADMIT missed. Raises GatewayError."""
    try:
        if answer.reason == "LOAD org" and await runtime.load_organization(
            identity.organization_id, epoch=answer.epoch
        ):
            return
        if answer.reason == "LOAD key" and await runtime.load_key(identity.key_id, epoch=answer.epoch):
            return
    except (DatabaseUnavailableError, AdmissionUnavailableError) as error:
        raise unavailable("The account cannot be loaded right now.", code="account_unavailable") from error
    if answer.reason.startswith("LOAD"):
        raise invalid_key()  # Deleted meanwhile.
    raise unavailable("Admission is being rebuilt.", code="admission_rebuilding")


def _release_in_background(runtime: GatewayRuntime, facts: RequestFacts, hold: Hold) -> None:
    """Nobody knows whether the hold was written: see to it that it is not."""
    hold.day = int(facts.received_at.timestamp()) // 86_400
    metered = MeteredRequest(facts, hold, runtime.settler, runtime.density)

    async def release() -> None:
        await metered.release("admission_unanswered")

    runtime.run_in_background(release())


def _refusal(refused: Refused, facts: RequestFacts, hold: Hold) -> GatewayError:
    now = facts.received_at
    headers = rate_headers(refused.rates, now)
    code = refused.code
    if code == "insufficient_balance":
        return GatewayError(402, code, _balance_message(refused.figure, facts, hold), headers=headers)
    if code.endswith("_budget_exceeded"):
        scope, period = code.split("_")[:2]
        again = now + timedelta(microseconds=refused.reset_us)
        message = (
            f"This request may cost up to ${format_usd(hold.amount_nanos)}, and the {period} budget of the {scope} has"
            f" ${format_usd(max(0, refused.limit - refused.figure))} of ${format_usd(refused.limit)} left."
            f" It begins anew at {again:%Y-%m-%dT%H:%M:%SZ}."
        )
        return GatewayError(402, code, message, headers=headers)
    if code.startswith("rate_limited_"):
        return _rate_refusal(code, refused.limit, refused.reset_us, headers=headers)
    if code == "settlement_behind":
        return unavailable("Usage is being settled; try again shortly.", code=code)
    return _standing_refusal(code) or GatewayError(500, "internal_error", "An internal error occurred.")


def _standing_refusal(code: str) -> GatewayError | None:
    """Return the refusal of a key or organization that is closed; None when `code` is about something else."""
    if code in ("key_revoked", "key_expired"):
        return GatewayError(401, code, f"This API key is {code.removeprefix('key_')}.", should_retry=False)
    if code.startswith("organization_"):
        return GatewayError(402, code, f"This organization is {code.removeprefix('organization_')}.")
    return None


def _rate_refusal(code: str, limit: int, reset_us: int, *, headers: Mapping[str, str]) -> GatewayError:
    seconds = max(1, math.ceil(reset_us / 1_000_000))
    if code == "rate_limited_concurrency":
        message = f"Too many requests at once: {limit} may run at the same time."
    else:
        unit = code.removeprefix("rate_limited_").replace("_", " ")
        message = f"The limit of {limit} {unit} per minute is reached. Try again in {seconds} s."
    return GatewayError(429, code, message, retry_after_seconds=seconds, headers=headers)


def _balance_message(available_nanos: int, facts: RequestFacts, hold: Hold) -> str:
    bounds = facts.bounds
    affordable = affordable_max_tokens(
        available_nanos,
        facts.price,
        input_tokens=bounds.held_prompt_tokens,
        ceiling=bounds.held_output_tokens,
        **facts.extras,
    )
    affordable //= bounds.samplings
    fits = f"max_tokens of at most {affordable} would fit" if affordable else "no max_tokens would fit"
    grows = ""
    if bounds.may_grow:
        grows = (
            f" The provider may add documents or results of tools to its prompt of {bounds.written_tokens} tokens,"
            f" so {bounds.held_prompt_tokens} are held for."
        )
    return (
        f"The available balance is ${format_usd(max(0, available_nanos))}, and this request may cost up to"
        f" ${format_usd(hold.amount_nanos)} with max_tokens of {facts.max_tokens}; {fits}.{grows}"
    )


def rate_headers(rates: Rates, now: datetime) -> dict[str, str]:
    """Return the `anthropic-ratelimit-*` headers; `tokens` is the tighter of input and output."""
    figures = {"requests": rates.requests, "input-tokens": rates.input_tokens, "output-tokens": rates.output_tokens}
    limited = [rate for rate in (rates.input_tokens, rates.output_tokens) if rate.limit >= 0]
    if limited:
        figures["tokens"] = min(limited, key=lambda rate: rate.remaining)
    headers = {}
    for name, rate in figures.items():
        if rate.limit < 0:
            continue
        reset_second = int(now.timestamp() + rate.reset_us / 1_000_000)
        headers[f"anthropic-ratelimit-{name}-limit"] = str(rate.limit)
        headers[f"anthropic-ratelimit-{name}-remaining"] = str(rate.remaining)
        headers[f"anthropic-ratelimit-{name}-reset"] = _format_second(reset_second)
    return headers


@lru_cache(maxsize=MAX_KNOWN_SECONDS)
def _format_second(second: int) -> str:
    """Return the time as RFC 3339 has it, UTC: the same few seconds are told over and over."""
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
