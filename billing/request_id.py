"""Request ids: one UUIDv7 on hold, event, record, attempt, log line and response header. Pure.

The source of the layout is RFC 9562, section 5.7: 48 bits of milliseconds since 1970, then random bits.
"""

import os
import time
from datetime import UTC, datetime
from uuid import UUID

MESSAGE_PREFIX = "msg_"
REQUEST_PREFIX = "req_"
_VERSION_AND_VARIANT = (0x7 << 76) | (0b10 << 62)
_RANDOM_MASK = ~((0xF << 76) | (0b11 << 62)) & ((1 << 80) - 1)


def make_request_id() -> UUID:
    """Return a new id that sorts by the time at which it was made."""
    milliseconds = time.time_ns() // 1_000_000
    random_bits = int.from_bytes(os.urandom(10), "big") & _RANDOM_MASK
    return UUID(int=(milliseconds << 80) | _VERSION_AND_VARIANT | random_bits)


def first_id_at(moment: datetime) -> UUID:
    """Return the smallest id that can be made at or after `moment`: a bound for ranges of ids, not an id in use."""
    return UUID(int=(int(moment.timestamp() * 1000) << 80))


def time_of(request_id: UUID) -> datetime:
    """Return when the id was made, to the millisecond, UTC."""
    return datetime.fromtimestamp((request_id.int >> 80) / 1000, tz=UTC)


def parse_request_id(text: str) -> UUID | None:
    """Return the id in `msg_<hex>`, `req_<hex>`, `<hex>` or dashed form, or None when it is none of these."""
    for prefix in (MESSAGE_PREFIX, REQUEST_PREFIX):
        text = text.removeprefix(prefix)
    if len(text) not in (32, 36):
        return None
    try:
        return UUID(text)
    except ValueError:
        return None
