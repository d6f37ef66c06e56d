"""Top-level fields and beta values that change what a provider charges, or reach into an account that all share. Pure.

Fields that nobody knows pass unchanged to an upstream of the Messages protocol. Not these: our prices are those of a
plain request, and a provider keeps files, containers, skills and profiles by account, which is ours and one for all
organizations. Listed are the values that do neither; every other value is refused. Claude
Code recovers from these texts.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from gateway.protocol.errors import InvalidRequestError
from gateway.protocol.messages.validation import EXTRA_INPUTS_TEXT

PRICE_REASON = "it changes what the provider charges, and this service has no price for that"
SHARED_REASON = "it names something in an account at the provider that all organizations share"
ADDED_REASON = "it lets the provider add or run something that has no price here"
THREAD_REASON = "this service does not keep conversations. Send the full conversation without `thread`"
CODE = "not_on_sale"


# Anthropic's SDKs then send the whole conversation; "thread" is none of the features that they know, and need not be.
THREAD_DETAILS = {"error_code": "thread_unsupported_request", "unsupported": ["thread"]}


class Guard(NamedTuple):
    """`is_sent`: harmless values go to the upstream too. Others mean what leaving the field out means.

    `details` are those of the refusal: see errors.InvalidRequestError.
    """

    harmless: tuple[Any, ...]
    reason: str
    is_sent: bool = False
    details: Mapping[str, Any] | None = None


# `models`, `plugins`, `preset` and `provider` are OpenRouter's, which speaks Messages too.
GUARDED_FIELDS: dict[str, Guard] = {
    "anthropic_beta": Guard((None, []), ADDED_REASON),
    "betas": Guard((None, []), ADDED_REASON),
    "billing_policy": Guard(
        (None, {"type": "billing_policy"}, {"type": "billing_policy", "bill_to": "self"}), PRICE_REASON
    ),
    "container": Guard((None,), SHARED_REASON),
    "fallback_credit_token": Guard((None,), PRICE_REASON),
    "fallbacks": Guard((None, []), PRICE_REASON),
    "inference_geo": Guard((None, "global", "not_available"), PRICE_REASON, is_sent=True),
    "mcp_servers": Guard((None, []), ADDED_REASON),
    "models": Guard((None, []), PRICE_REASON),
    "plugins": Guard((None, []), ADDED_REASON),
    "preset": Guard((None,), SHARED_REASON),
    "provider": Guard((None, {}), PRICE_REASON),
    "service_tier": Guard((None, "auto", "standard_only"), PRICE_REASON, is_sent=True),
    "skills": Guard((None, []), SHARED_REASON),
    "speed": Guard((None, "standard"), PRICE_REASON),
    "thread": Guard((None,), THREAD_REASON, details=THREAD_DETAILS),
    "user_profile_id": Guard((None,), SHARED_REASON),
    "workspace_id": Guard((None,), SHARED_REASON),
}
# `diagnostics` names an earlier reply, by an id of ours that its upstream does not know. It only asks for a hint.
UNSENT_FIELDS = ("diagnostics", *(name for name, guard in GUARDED_FIELDS.items() if not guard.is_sent))
# Beta values that unlock such fields, tools and blocks; by their beginnings, as they end in a date. Clients send them
# without using them, so they are left out and not refused.
UNSENT_BETAS = (
    "advisor-tool-",
    "agent-memory-",
    "code-execution-",
    "fallback-credit-",
    "fast-mode-",
    "files-api-",
    "managed-agents-",
    "mcp-client-",
    "mcp-tunnels-",
    "message-batches-",
    "message-threads-",
    "server-side-fallback-",
    "skills-",
    "user-profiles-",
)


def check_guarded_fields(body: dict[str, Any]) -> None:
    """Refuse every value of these fields that is not harmless. Raises InvalidRequestError with the code CODE."""
    for name, guard in GUARDED_FIELDS.items():
        if name in body and not any(
            value == body[name] and type(value) is type(body[name]) for value in guard.harmless
        ):
            text = f"{EXTRA_INPUTS_TEXT}: {guard.reason}"
            raise InvalidRequestError(f"{name}: {text}", code=CODE, param=name, details=guard.details)


def passing_betas(client_beta: str) -> str:
    """Return the values of `anthropic-beta` that go to an upstream, as they came."""
    values = [value.strip() for value in client_beta.split(",")]
    return ",".join(value for value in values if value and not value.startswith(UNSENT_BETAS))
