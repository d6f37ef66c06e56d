"""A customer with a history: credit, usage, refunds and corrections at given moments, through the real settlement."""

import itertools
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from uuid import UUID

from accounts.keys import create_key
from accounts.models import ApiKey, Organization
from billing.catalog.price_versions import PriceDraft, approve_price_version, draft_price
from billing.checks import CHECKS, run_checks
from billing.corrections.refunds import refund_usage
from billing.documents.invoices import close_month
from billing.documents.periods import Month
from billing.models import Document, LanguageModel, PriceVersion
from billing.usage_event import UsageEvent
from tests.billing.ledger_factory import give, make_organization
from tests.support.past import posted_at
from tests.support.settled_usage import billed_event, settle

SEPTEMBER, OCTOBER = Month(2026, 9), Month(2026, 10)
PRICES = {"input": 3_000_000, "output": 15_000_000, "cache_read": 300_000, "cache_write_5m": 3_750_000}
LONG_PROMPT = 200_001

_keys = itertools.count(1)


def at(month: int, day: int, hour: int = 12) -> datetime:
    return datetime(2026, month, day, hour, tzinfo=UTC)


def sell(model_id: str = "acme/large", *, minimum_charge_nanos: int = 0, **picos: int) -> PriceVersion:
    """Return an approved price of a model whose prompts cost double from LONG_PROMPT tokens on."""
    model, _ = LanguageModel.objects.get_or_create(
        model_id=model_id,
        defaults={"display_name": model_id, "context_tokens": 1_000_000, "max_output_tokens": 64_000},
    )
    draft = PriceDraft(
        effective_from=datetime(2026, 1, 1, tzinfo=UTC),
        source="a test",
        source_date=date(2026, 1, 1),
        tiers={name: ((0, amount), (LONG_PROMPT, 2 * amount)) for name, amount in {**PRICES, **picos}.items()},
        minimum_charge_nanos=minimum_charge_nanos,
    )
    return approve_price_version(draft_price(model, draft, created_by="alice"), approved_by="bob")


@dataclass
class Customer:
    organization: Organization = field(default_factory=make_organization)
    key: ApiKey = field(init=False)
    events: list[UsageEvent] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.key, _ = create_key(self.organization, name="Backend", created_by=None)

    def give(self, nanos: int, moment: datetime, kind: str = "paid") -> None:
        with posted_at(moment):
            give(self.organization, nanos, kind=kind)

    def use(self, version: PriceVersion, moment: datetime, *, settled: datetime | None = None, **counts: int) -> int:
        """Use a model at a moment and settle it then, or later; return what it cost."""
        event = billed_event(self.key, version, at=moment, **counts)
        with posted_at(settled or moment):
            settle([event])
        self.events.append(event)
        return event.cost_nanos

    def refund(self, moment: datetime, *, nanos: int | None = None, event: UsageEvent | None = None) -> None:
        with posted_at(moment):
            refund_usage(
                self.organization,
                request_id=UUID((event or self.events[-1]).request_id),
                amount_nanos=nanos,
                reason="It was ours",
                actor="bob",
                idempotency_key=f"refund {next(_keys)}",
            )

    def close(self, month: Month = OCTOBER) -> list[Document]:
        return close_month(self.organization, month)

    @property
    def balance_nanos(self) -> int:
        return sum(self.organization.ledger_accounts.values_list("balance_nanos", flat=True))


def lines_of(document: Document) -> list[tuple[str, str, str, int | None, int]]:
    return [
        (line.kind, line.model_id, line.component, line.quantity, line.amount_nanos) for line in document.lines.all()
    ]


def assert_books_hold() -> None:
    assert run_checks(CHECKS).breaks == []
