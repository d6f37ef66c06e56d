"""Provider profiles: how one upstream differs from its protocol's rule, as the catalog's `profile` says. Pure."""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from gateway.protocol.errors import InvalidProfileError

MAX_PROFILE_ITEMS = 100
AUTO = "auto"
X_API_KEY, BEARER, NO_AUTH = "x-api-key", "bearer", "none"
DROP, REFUSE = "drop", "refuse"
REASONING_EFFORT, REASONING_OBJECT = "reasoning_effort", "reasoning"
_CHOICES = {
    "auth": ("", X_API_KEY, BEARER, NO_AUTH),
    "max_tokens_field": ("max_tokens", "max_completion_tokens"),
    "reasoning": (DROP, REASONING_EFFORT, REASONING_OBJECT),
    "server_tools": (DROP, REFUSE),
    "thinking_history": (DROP, "reasoning_content", "reasoning"),
    "system_role": ("system", "developer"),
}


_MINIMA = {"max_stop_sequences": 0, "max_tool_name_chars": 16}


@dataclass(frozen=True, slots=True)
class UpstreamProfile:
    """Every setting has a default that suits the protocol's own provider (Anthropic, OpenAI's older models)."""

    # Both protocols.
    headers: Mapping[str, str] = field(default_factory=dict)  # Added to every call.
    path: str = ""  # Instead of the protocol's path under `base_url`.
    credential_check_path: str = (
        ""  # Where our credential is checked, by a GET; empty is the protocol's list of models.
    )
    auth: str = ""  # "x-api-key", "bearer" or "none"; empty is the protocol's own way.
    request_id_header: str = ""  # The header in which the upstream is told our request id; empty tells it nothing.
    drop_fields: tuple[str, ...] = ()  # Top-level fields left out of the body that is sent.
    refuse_fields: tuple[str, ...] = ()  # Top-level fields of the client's body that are refused.

    max_concurrent: int = 0  # Calls at once from one gateway process; 0 is no bound.

    # Messages.
    api_version: str = AUTO  # `anthropic-version`: "auto" is the client's own wherever the request works under it.
    count_tokens: bool = True  # It serves /v1/messages/count_tokens.

    # Chat Completions: what it takes.
    max_tokens_field: str = "max_tokens"
    max_stop_sequences: int = 4
    max_tool_name_chars: int = 64
    parallel_tool_calls: bool = True  # It knows the field of that name.
    stream_usage: bool = True  # It knows stream_options.include_usage.
    top_k: bool = False
    system_role: str = "system"
    reasoning: str = DROP  # Where thinking and effort go: nowhere, `reasoning_effort`, or OpenRouter's `reasoning`.
    thinking_history: str = DROP  # The field in which thinking goes back beside the calls that came of it.
    server_tools: str = DROP
    extra_body: Mapping[str, Any] = field(default_factory=dict)  # Merged into the body last.

    # Chat Completions: what its usage means.
    cached_outside_prompt: bool = False  # Its prompt_tokens do not contain the cached ones.
    reasoning_outside_completion: bool = False  # Its completion_tokens do not contain the reasoning ones.


DEFAULT_PROFILE = UpstreamProfile()
_FIELDS = {f.name: f for f in fields(UpstreamProfile)}


def read_profile(table: Mapping[str, Any]) -> UpstreamProfile:
    """Return the profile in `table`. Raises InvalidProfileError for unknown names and wrong values."""
    values: dict[str, Any] = {}
    for name, value in table.items():
        known = _FIELDS.get(name)
        if known is None:
            raise InvalidProfileError(f"profile.{name}: no such setting")
        default = {} if known.default is MISSING else known.default
        values[name] = _read_value(name, value, default)
    return UpstreamProfile(**values)


def _read_value(name: str, value: Any, default: Any) -> Any:
    if isinstance(default, tuple):
        if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
            raise InvalidProfileError(f"profile.{name}: should be a list of names")
        if len(value) > MAX_PROFILE_ITEMS:
            raise InvalidProfileError(f"profile.{name}: more than {MAX_PROFILE_ITEMS} items")
        return tuple(value)
    if isinstance(default, dict):
        if not isinstance(value, Mapping) or len(value) > MAX_PROFILE_ITEMS:
            raise InvalidProfileError(f"profile.{name}: should be a table of at most {MAX_PROFILE_ITEMS} items")
        if name == "headers" and not all(isinstance(text, str) for text in value.values()):
            raise InvalidProfileError("profile.headers: values should be strings")
        return dict(value)
    if type(value) is not type(default):
        raise InvalidProfileError(f"profile.{name}: should be of type {type(default).__name__}")
    if name in _CHOICES and value not in _CHOICES[name]:
        raise InvalidProfileError(f"profile.{name}: should be one of {', '.join(filter(None, _CHOICES[name]))}")
    if type(value) is int and value < _MINIMA.get(name, 0):
        raise InvalidProfileError(f"profile.{name}: should be at least {_MINIMA.get(name, 0)}")
    return value
