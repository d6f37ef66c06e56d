"""Usage records as settlement would have written them, for tests of what reads them."""

import os
from datetime import datetime
from typing import Any
from uuid import UUID

from accounts.models import Organization
from billing.models import UsageRecord
from billing.request_id import first_id_at


def request_id_at(moment: datetime) -> UUID:
    """A request id that was made at `moment`."""
    return UUID(int=first_id_at(moment).int | 0x7 << 76 | int.from_bytes(os.urandom(8), "big") >> 2)


def add_record(organization: Organization, *, admitted_at: datetime, **values: Any) -> UsageRecord:
    attempts = values.pop("attempts", [])
    defaults: dict[str, Any] = {
        "request_id": request_id_at(admitted_at),
        "organization_id": organization.pk,
        "key_id": 1,
        "language_model_id": 1,
        "model_id": "acme/large",
        "price_version_id": 1,
        "factor_ppm": 1_000_000,
        "usage_source": UsageRecord.Source.PROVIDER,
        "input_tokens": 0,
        "output_tokens": 0,
        "cache_write_5m_tokens": 0,
        "cache_write_1h_tokens": 0,
        "cache_read_tokens": 0,
        "images": 0,
        "web_searches": 0,
        "cost_nanos": 0,
        "hold_nanos": 0,
        "upstream": attempts[-1]["upstream"] if attempts else "acme",
        "upstream_cost_nanos": sum(attempt["upstream_cost_nanos"] for attempt in attempts),
        "attempts": attempts,
        "is_streamed": False,
        "admitted_at": admitted_at,
        "admitted_day": int(admitted_at.timestamp()) // 86_400,
        "total_ms": 1,
        "settled_at": admitted_at,
    }
    return UsageRecord.objects.create(**{**defaults, **values})
