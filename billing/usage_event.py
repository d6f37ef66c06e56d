"""The usage event: what the gateway observed of one admitted request, on its way from Redis to the ledger. Pure.

An event is a JSON object on one line. `v` is its schema version; workers read this one and the one before. Counts are
in tokens (or units), amounts in nano-dollars, times in milliseconds. `outcome` is `billed` or `failed`: a failed event
releases its hold and costs nothing, but records its attempts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import orjson

SCHEMA_VERSION = 1
READABLE_VERSIONS = (SCHEMA_VERSION,)
BILLED, FAILED = "billed", "failed"
PROVIDER, ESTIMATED, PARTIAL, ORPHAN = "provider", "estimated", "partial", "orphan"
BOUNDED = "bounded"  # The provider reported more than the request can have used: what is possible was billed.
USAGE_SOURCES = (PROVIDER, ESTIMATED, PARTIAL, ORPHAN, BOUNDED)
# What a request can use, in the order of the price components: tokens, and then units.
USAGE_COUNTS = (
    "input_tokens",
    "output_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "cache_read_tokens",
    "images",
    "web_searches",
)
MAX_COUNT = 10**10  # No request has more tokens or units; beyond it the event is quarantined.
MAX_COST_NANOS = 10**15
# Whom a request is counted for, in characters; the gateway cuts what is longer.
MAX_END_USER_CHARS = 256
MAX_TAG_CHARS = 64
MAX_SESSION_CHARS = 128


class InvalidEventError(ValueError):
    """The bytes are not a usage event that this version can settle; the text says why."""


@dataclass(slots=True)
class UsageEvent:
    """See billing.models.UsageRecord and FailedRequest for the meaning of each field."""

    request_id: str  # 32 hexadecimal digits.
    organization_id: int
    key_id: int
    language_model_id: int
    model_id: str
    price_version_id: int
    factor_ppm: int
    hold_nanos: int
    admitted_at_ms: int
    admitted_day: int = 0
    outcome: str = BILLED
    usage_source: str = PROVIDER
    input_tokens: int = 0
    output_tokens: int = 0
    cache_write_5m_tokens: int = 0
    cache_write_1h_tokens: int = 0
    cache_read_tokens: int = 0
    images: int = 0
    web_searches: int = 0
    cost_nanos: int = 0
    upstream: str = ""
    upstream_cost_nanos: int = 0
    attempts: list[dict[str, Any]] = field(default_factory=list)
    is_streamed: bool = False
    first_byte_ms: int | None = None
    total_ms: int = 0
    error_code: str = ""
    end_user: str = ""
    tag: str = ""
    session: str = ""
    client: str = ""
    stop_reason: str = ""
    upstream_request_id: str = ""
    v: int = SCHEMA_VERSION

    def set_counts(self, counts: Sequence[int]) -> None:
        """Take the counts, in the order of USAGE_COUNTS."""
        (
            self.input_tokens,
            self.output_tokens,
            self.cache_write_5m_tokens,
            self.cache_write_1h_tokens,
            self.cache_read_tokens,
            self.images,
            self.web_searches,
        ) = counts

    def encode(self) -> bytes:
        return orjson.dumps(self)


def encode_fields(values: Mapping[str, Any]) -> bytes:
    """Return an event of these fields alone: what is left out is read as UsageEvent has it."""
    return orjson.dumps({**values, "v": SCHEMA_VERSION})


_FIELDS = {f.name: f for f in fields(UsageEvent)}
_TEXTS = (
    "model_id",
    "upstream",
    "error_code",
    "end_user",
    "tag",
    "session",
    "client",
    "stop_reason",
    "upstream_request_id",
)


def decode_event(raw: bytes) -> UsageEvent:
    """Return the event in `raw`. Raises InvalidEventError when it cannot be settled as it stands."""
    try:
        values = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise InvalidEventError(f"not JSON: {error}") from None
    if not isinstance(values, dict):
        raise InvalidEventError("not a JSON object")
    if values.get("v") not in READABLE_VERSIONS:
        raise InvalidEventError(f"schema version {values.get('v')!r} cannot be read")
    try:
        if not values.keys() <= _FIELDS.keys():  # Of the version before or after this one.
            values = {name: value for name, value in values.items() if name in _FIELDS}
        event = UsageEvent(**values)
    except TypeError as error:
        raise InvalidEventError(str(error)) from None
    _check(event)
    return event


def _check(event: UsageEvent) -> None:
    if event.outcome not in (BILLED, FAILED) or event.usage_source not in USAGE_SOURCES:
        raise InvalidEventError(f"unknown outcome {event.outcome!r} or usage source {event.usage_source!r}")
    for name in USAGE_COUNTS:
        value = getattr(event, name)
        if type(value) is not int or not 0 <= value <= MAX_COUNT:
            raise InvalidEventError(f"{name} is {value!r}")
    for name in ("cost_nanos", "upstream_cost_nanos", "hold_nanos"):
        value = getattr(event, name)
        if type(value) is not int or not 0 <= value <= MAX_COST_NANOS:
            raise InvalidEventError(f"{name} is {value!r}")
    for name in (
        "organization_id",
        "key_id",
        "language_model_id",
        "price_version_id",
        "admitted_at_ms",
        "admitted_day",
    ):
        if type(getattr(event, name)) is not int:
            raise InvalidEventError(f"{name} is {getattr(event, name)!r}")
    for name in _TEXTS:
        value = getattr(event, name)
        if not isinstance(value, str) or "\x00" in value:
            raise InvalidEventError(f"{name} is not a text that Postgres can store")
    if event.outcome == FAILED and event.cost_nanos:
        raise InvalidEventError("a failed request cannot cost anything")
