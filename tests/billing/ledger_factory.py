"""Organizations, prices and usage events for tests of the book of record. One input token costs one nano-dollar."""

import itertools
import time
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any

from django.db import connection

from accounts.models import Organization
from accounts.organizations import create_organization
from billing.catalog.price_versions import PriceDraft, approve_price_version, draft_price
from billing.checks import CHECKS, run_checks
from billing.credit.top_ups import grant_credit
from billing.models import (
    CreditLot,
    LanguageModel,
    LedgerAccount,
    LedgerEntry,
    OrganizationBalance,
    PriceVersion,
)
from billing.request_id import make_request_id
from billing.settlement.batch import settle_batch
from billing.shards import shard_of
from billing.usage_event import UsageEvent
from billing.usage_stream import SettledBatch, StreamEntry

USD = 1_000_000_000
KEY = 7
PICOS_OF_ONE_NANO = 1_000

_numbers = itertools.count(1)


def make_organization(name: str = "Acme") -> Organization:
    return create_organization(name=name, slug=f"{name.lower()}-{next(_numbers)}")


def make_price() -> PriceVersion:
    language_model, _ = LanguageModel.objects.get_or_create(
        model_id="acme/large", defaults={"context_tokens": 1_000_000, "max_output_tokens": 64_000}
    )
    draft = PriceDraft(
        effective_from=datetime(2026, 1, 1, tzinfo=UTC),
        source="test",
        source_date=date(2026, 1, 1),
        tiers={"input": ((0, PICOS_OF_ONE_NANO),), "output": ((0, 5 * PICOS_OF_ONE_NANO),)},
    )
    return approve_price_version(draft_price(language_model, draft, created_by="alice"), approved_by="bob")


def make_event(organization: Organization, cost_nanos: int = 1_000, **values: Any) -> UsageEvent:
    now_ms = time.time_ns() // 1_000_000
    admitted_at_ms = values.pop("admitted_at_ms", now_ms)
    version = PriceVersion.objects.filter(upstream=None).order_by("-id").first() or make_price()
    defaults: dict[str, Any] = {
        "request_id": make_request_id().hex,
        "organization_id": organization.pk,
        "key_id": KEY,
        "language_model_id": version.language_model_id,
        "model_id": "acme/large",
        "price_version_id": version.pk,
        "factor_ppm": 1_000_000,
        "hold_nanos": cost_nanos,
        "admitted_at_ms": admitted_at_ms,
        "admitted_day": admitted_at_ms // 86_400_000,
        "input_tokens": cost_nanos,
        "cost_nanos": cost_nanos,
        "upstream": "acme",
        "total_ms": 5,
    }
    return UsageEvent(**{**defaults, **values})


def make_failed_event(organization: Organization, **values: Any) -> UsageEvent:
    return make_event(organization, 0, outcome="failed", error_code="upstream_error", **values)


def entry_of(event: UsageEvent, *, raw_event: bytes | None = None, **values: Any) -> StreamEntry:
    defaults: dict[str, Any] = {
        "stream_id": f"1700000000000-{next(_numbers)}",
        "raw_event": event.encode() if raw_event is None else raw_event,
        "organization_id": event.organization_id,
        "key_id": event.key_id,
        "cost_nanos": event.cost_nanos,
        "admitted_day": event.admitted_day,
    }
    return StreamEntry(**{**defaults, **values})


def settle(*events: UsageEvent) -> SettledBatch:
    """Settle events of one shard and return the batch; it must not have been busy."""
    return settle_entries([entry_of(event) for event in events])


def settle_entries(entries: Sequence[StreamEntry]) -> SettledBatch:
    batch = settle_batch(shard_of(entries[0].organization_id), entries)
    assert batch is not None
    return batch


def give(organization: Organization, nanos: int, *, kind: str = "paid", **values: Any) -> CreditLot:
    """Grant credit and return its lot."""
    posted = grant_credit(
        organization,
        amount_nanos=nanos,
        kind=CreditLot.Kind(kind),
        reason="test",
        actor="alice",
        idempotency_key=values.pop("idempotency_key", f"test:{next(_numbers)}"),
        **values,
    )
    return CreditLot.objects.get(entries__transaction=posted.transaction, entries__amount_nanos=nanos)


def posted(organization: Organization) -> int:
    return OrganizationBalance.objects.get(pk=organization.pk).posted_nanos


def account_balances(organization: Organization) -> dict[str, int]:
    """What is in the organization's own accounts, without the empty ones."""
    accounts = LedgerAccount.objects.filter(organization=organization).exclude(balance_nanos=0)
    return dict(accounts.values_list("kind", "balance_nanos"))


def entries_of(transaction_id: int) -> dict[str, int]:
    """The amounts of a transaction by the kind of account."""
    rows = LedgerEntry.objects.filter(transaction_id=transaction_id)
    return dict(rows.values_list("account__kind", "amount_nanos"))


def remaining(*lots: CreditLot) -> list[int]:
    for lot in lots:
        lot.refresh_from_db()
    return [lot.remaining_nanos for lot in lots]


def assert_ledger_holds() -> None:
    assert run_checks(CHECKS).breaks == []


def refresh_statistics() -> None:
    """Let Postgres look at its tables now. In the background it may have looked while another test had filled them, and
    then plans the checks of a long history so that they take minutes.
    """
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
