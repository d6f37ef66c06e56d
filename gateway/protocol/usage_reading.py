"""What the gateway knows about the usage of one call to an upstream, at any moment of it. Pure."""

from enum import StrEnum
from typing import NamedTuple

from billing.pricing.cost import Usage

MAX_USAGE_TOKENS = 100_000_000  # A hundred prompts of a million tokens: no single call uses more.
MAX_USAGE_UNITS = 10_000  # Searches of one call.
MAX_STOP_REASON_CHARS = 40
MAX_UPSTREAM_ID_CHARS = 100


class UsageState(StrEnum):
    """How far the counts of a reading can be trusted."""

    FINAL = "final"  # The upstream completed its reply and said what it used.
    PARTIAL = "partial"  # Something was said, but the reply is not complete, or its output count never came.
    ABSENT = "absent"  # Nothing was said.
    UNUSABLE = "unusable"  # What was said cannot be true: negative, absurd, contradictory or no whole numbers.


class UsageReading(NamedTuple):
    """`usage` holds disjoint counts as last said by the upstream; what was not said, or cannot be true, is 0 in it.

    `has_input` and `has_output` tell an explicit zero from silence: only what is False may be replaced by an estimate.
    A placeholder at the start of a stream is no output count. `delivered_bytes` are the UTF-8 bytes of text, thinking
    and tool arguments decoded so far. With `has_thinking` the output tokens may be more than those of these bytes.
    """

    state: UsageState
    usage: Usage
    has_input: bool
    has_output: bool
    delivered_bytes: int
    is_complete: bool
    stop_reason: str
    upstream_message_id: str
    problem: str = ""
    has_thinking: bool = False


def utf8_length(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def storable_text(value: object, max_chars: int) -> str:
    """Return `value` as text that Postgres can store, or "" when it is no text. A NUL is legal JSON, but not there."""
    return value.replace("\x00", "")[:max_chars] if isinstance(value, str) else ""
