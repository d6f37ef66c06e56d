"""The text of every refusal by a key, a limit or a balance: 401, 402 and 429."""

import math
from collections.abc import Mapping
from datetime import timedelta

from billing.admission.calls.admit import Refused
from billing.admission.hold import Hold
from billing.money import format_usd
from billing.pricing.estimation import affordable_max_tokens
from gateway.admission.rate_headers import rate_headers
from gateway.errors import GatewayError, unavailable
from gateway.metering.request_facts import RequestFacts

BUDGET_HOLDERS = {
    "organization": "the organization",
    "key": "the key",
    "member": "the member who owns the key",
    "end_user": "this end user",
}


def missing_key() -> GatewayError:
    return GatewayError(401, "missing_api_key", "Missing API key.", should_retry=False)


def invalid_key() -> GatewayError:
    return GatewayError(401, "invalid_api_key", "Invalid API key.", should_retry=False)


def management_key() -> GatewayError:
    message = "This is a management key, which calls no model. Use an API key."
    return GatewayError(401, "invalid_api_key", message, should_retry=False)


def network_not_allowed() -> GatewayError:
    return GatewayError(402, "network_not_allowed", "This API key may not be used from this address.")


def model_not_allowed(model_id: str) -> GatewayError:
    return GatewayError(402, "model_not_allowed", f"This API key may not use {model_id}.")


def limit_refusal(refused: Refused, facts: RequestFacts, hold: Hold) -> GatewayError:
    """Return the answer to a request that ADMIT refused."""
    now = facts.received_at
    headers = rate_headers(refused.rates, now)
    code = refused.code
    if code == "insufficient_balance":
        return GatewayError(402, code, _balance_message(refused.current, facts, hold), headers=headers)
    if code.endswith("_budget_exceeded"):
        scope, _, period = code.removesuffix("_budget_exceeded").rpartition("_")
        again = now + timedelta(microseconds=refused.reset_us)
        message = (
            f"This request may cost up to ${format_usd(hold.amount_nanos)}, and the {period} budget of"
            f" {BUDGET_HOLDERS[scope]} has"
            f" ${format_usd(max(0, refused.limit - refused.current))} of ${format_usd(refused.limit)} left."
            f" It resets at {again:%Y-%m-%dT%H:%M:%SZ}."
        )
        return GatewayError(402, code, message, headers=headers)
    if code.startswith("rate_limited_"):
        return rate_refusal(code, refused.limit, refused.reset_us, headers=headers)
    if code == "settlement_behind":
        return unavailable("Usage is being settled; try again shortly.", code=code)
    return standing_refusal(code) or GatewayError(500, "internal_error", "An internal error occurred.")


def standing_refusal(code: str) -> GatewayError | None:
    """Return the refusal of a key or organization that is closed; None when `code` is about something else."""
    if code in ("key_revoked", "key_disabled", "key_expired"):
        return GatewayError(401, code, f"This API key is {code.removeprefix('key_')}.", should_retry=False)
    if code.startswith("organization_"):
        return GatewayError(402, code, f"This organization is {code.removeprefix('organization_')}.")
    return None


def rate_refusal(code: str, limit: int, reset_us: int, *, headers: Mapping[str, str]) -> GatewayError:
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
            f" The provider may add documents or tool results to the prompt of {bounds.written_tokens} tokens,"
            f" so the hold covers {bounds.held_prompt_tokens}."
        )
    return (
        f"The available balance is ${format_usd(max(0, available_nanos))}, and this request may cost up to"
        f" ${format_usd(hold.amount_nanos)} with max_tokens of {facts.max_tokens}; {fits}.{grows}"
    )
