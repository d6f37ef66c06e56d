"""Usage that went through the real settlement: events as the gateway writes them, settled into records and debits."""

from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

from accounts.models import ApiKey
from billing.catalog.price_versions import PriceDraft, approve_price_version, draft_price, price_table
from billing.models import LanguageModel, PriceVersion
from billing.pricing.cost import Usage, cost_nanos
from billing.request_id import first_id_at, make_request_id
from billing.settlement.batch import settle_batch
from billing.shards import shard_of
from billing.usage_event import BILLED, FAILED, UsageEvent
from billing.usage_stream import StreamEntry

USAGE_FIELDS = Usage._fields


def sell_model(model_id: str = "acme/large", **picos: int) -> PriceVersion:
    """Return an approved price version of a language model that is on sale."""
    model = LanguageModel.objects.create(
        model_id=model_id, display_name=model_id, context_tokens=200_000, max_output_tokens=64_000
    )
    prices = {"input": 3_000_000, "output": 15_000_000, "cache_read": 300_000, "cache_write_5m": 3_750_000, **picos}
    draft = PriceDraft(
        effective_from=datetime(2026, 1, 1, tzinfo=UTC),
        source="a test",
        source_date=date(2026, 1, 1),
        tiers={name: ((0, amount),) for name, amount in prices.items()},
    )
    return approve_price_version(draft_price(model, draft, created_by="alice"), approved_by="bob")


def billed_event(key: ApiKey, version: PriceVersion, *, at: datetime | None = None, **values: Any) -> UsageEvent:
    """An event of a billed request, its cost computed from the price version."""
    values = {"input_tokens": 1200, "output_tokens": 340, **values}
    usage = Usage(**{name: values[name] for name in USAGE_FIELDS if name in values})
    factor_ppm = values.pop("factor_ppm", 1_000_000)
    cost = cost_nanos(usage, price_table(version), factor_ppm)
    defaults = {"total_ms": 2100, "first_byte_ms": 640, "is_streamed": True, "upstream": "sandbox"}
    defaults["attempts"] = [{"upstream": "sandbox", "status": 200, "outcome": "served", "duration_ms": 2100}]
    return UsageEvent(
        **_identity(key, version, at),
        outcome=BILLED,
        factor_ppm=factor_ppm,
        hold_nanos=cost * 3,
        cost_nanos=cost,
        **{**defaults, **values},
    )


def failed_event(key: ApiKey, version: PriceVersion, *, at: datetime | None = None, **values: Any) -> UsageEvent:
    """An event of a request that no upstream served."""
    attempt = {"upstream": "sandbox", "status": 529, "outcome": "overloaded", "duration_ms": 90}
    values = {"error_code": "upstream_overloaded", "attempts": [attempt], "total_ms": 130, **values}
    return UsageEvent(**_identity(key, version, at), outcome=FAILED, factor_ppm=1_000_000, hold_nanos=1, **values)


def settle(events: Sequence[UsageEvent]) -> None:
    """Settle events, which may belong to several organizations."""
    by_shard: dict[int, list[StreamEntry]] = {}
    for number, event in enumerate(events):
        entry = StreamEntry(
            stream_id=f"{event.admitted_at_ms}-{number}",
            raw_event=event.encode(),
            organization_id=event.organization_id,
            key_id=event.key_id,
            cost_nanos=event.cost_nanos,
            admitted_day=event.admitted_day,
        )
        by_shard.setdefault(shard_of(event.organization_id), []).append(entry)
    for shard, entries in by_shard.items():
        assert settle_batch(shard, entries) is not None


def request_id_at(moment: datetime) -> UUID:
    """A request id as it would have been made at `moment`."""
    return UUID(int=first_id_at(moment).int | make_request_id().int & ((1 << 80) - 1))


def _identity(key: ApiKey, version: PriceVersion, at: datetime | None) -> dict[str, Any]:
    moment = at or datetime.now(UTC)
    return {
        "request_id": request_id_at(moment).hex,
        "organization_id": key.organization_id,
        "key_id": key.pk,
        "language_model_id": version.language_model_id,
        "model_id": version.language_model.model_id,
        "price_version_id": version.pk,
        "admitted_at_ms": int(moment.timestamp() * 1000),
        "admitted_day": int(moment.timestamp()) // 86_400,
    }
