"""Statements: they add up by construction, whatever was posted, and show what they sum."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from accounts.models import Organization
from billing.corrections.refunds import adjust_balance, refund_usage
from billing.credit.lots import expire_lots
from billing.documents import statement as module
from billing.documents.periods import Month
from billing.documents.posted import month_range, usage_bounds
from billing.documents.statement import Statement, StatementError, write_statement
from billing.models import LedgerTransaction, UsageRecord
from tests.billing.ledger_factory import USD, give, make_event, make_organization, posted, settle
from tests.support.past import posted_at

NOVEMBER = Month(2026, 11)


def on(day: int, hour: int = 12, month: int = 11) -> datetime:
    return datetime(2026, month, day, hour, tzinfo=UTC)


def spend(organization: Organization, nanos: int, at: datetime, model_id: str = "acme/large") -> str:
    with posted_at(at):
        event = make_event(organization, nanos, model_id=model_id, admitted_at_ms=int(at.timestamp() * 1000))
        settle(event)
    return event.request_id


def statement_of(organization: Organization, month: Month = NOVEMBER) -> Statement:
    return write_statement(organization, month_range(organization, month))


@pytest.mark.django_db
def test_usage_is_summed_by_day_and_model_and_the_rest_stands_by_itself() -> None:
    organization = make_organization()
    with posted_at(on(30, month=10)):
        give(organization, 7 * USD)
    spend(organization, 2 * USD, on(31, month=10))
    with posted_at(on(2)):
        give(organization, 10 * USD, kind="promotional")
    for nanos in (100, 20, 3):
        spend(organization, nanos, on(2, 13))
    spend(organization, 4000, on(2, 14), "acme/small")
    spend(organization, 50_000, on(3))
    with posted_at(on(1, month=12)):
        give(organization, USD)
    found = statement_of(organization)
    assert found.opening_nanos == 5 * USD
    assert [(row.day.day, row.kind, row.model_id, row.count, row.amount_nanos) for row in found.rows] == [
        (2, "promotion", "", 1, 10 * USD),
        (2, "usage", "acme/large", 3, -123),
        (2, "usage", "acme/small", 1, -4000),
        (3, "usage", "acme/large", 1, -50_000),
    ]
    assert [day.balance_nanos for day in found.days] == [15 * USD - 4123, 15 * USD - 54_123]
    assert found.closing_nanos == 15 * USD - 54_123
    assert [(total.kind, total.amount_nanos) for total in found.totals] == [("usage", -54_123), ("promotion", 10 * USD)]
    later = statement_of(organization, NOVEMBER.next)
    assert later.opening_nanos == found.closing_nanos
    assert later.closing_nanos == posted(organization)


@pytest.mark.django_db
def test_a_posting_belongs_to_the_month_of_its_microsecond() -> None:
    organization = make_organization()
    moments = [NOVEMBER.begins - timedelta(microseconds=1), NOVEMBER.begins]
    moments += [NOVEMBER.ends - timedelta(microseconds=1), NOVEMBER.ends]
    for number, moment in enumerate(moments):
        with posted_at(moment):
            give(organization, 10**number)
    assert [row.amount_nanos for row in statement_of(organization).rows] == [10, 100]
    assert statement_of(organization).opening_nanos == 1


@pytest.mark.django_db
def test_nothing_posted_is_a_statement_of_nothing() -> None:
    organization = make_organization()
    found = statement_of(organization)
    assert (found.opening_nanos, found.closing_nanos, found.rows) == (0, 0, [])


@pytest.mark.django_db
def test_usage_that_settles_weeks_late_is_in_the_month_in_which_it_was_posted() -> None:
    organization = make_organization()
    with posted_at(on(10, month=11)):
        give(organization, USD)
        settle(make_event(organization, 77, admitted_at_ms=int(on(1, month=6).timestamp() * 1000)))
    late = UsageRecord.objects.get()
    assert usage_bounds(month_range(organization, NOVEMBER)).first < late.request_id
    assert [row.amount_nanos for row in statement_of(organization).rows] == [USD, -77]


@pytest.mark.django_db
def test_too_many_postings_of_a_kind_are_summed_by_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SINGLE_POSTINGS", 2)
    organization = make_organization()
    for day in (4, 4, 5):
        with posted_at(on(day)):
            give(organization, day * USD)
    with posted_at(on(5)):
        give(organization, USD, kind="promotional")
    found = statement_of(organization)
    assert [(row.day.day, row.kind, row.count, row.amount_nanos) for row in found.rows] == [
        (4, "top_up", 2, 8 * USD),
        (5, "promotion", 1, USD),
        (5, "top_up", 1, 5 * USD),
    ]


@pytest.mark.django_db
def test_a_statement_that_does_not_add_up_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    organization = make_organization()
    with posted_at(on(4)):
        give(organization, USD)
    monkeypatch.setattr(module, "_read_postings", lambda posted: [])
    with pytest.raises(StatementError, match="come to 0"):
        statement_of(organization)


STEP = st.tuples(
    st.sampled_from(
        ["usage", "other usage", "top_up", "promotion", "expiring", "expire", "refund", "charge", "credit"]
    ),
    st.integers(1, 3 * USD),
    st.integers(0, 89),  # The day, from the first of October on.
)


@pytest.mark.django_db
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(STEP, max_size=12))
def test_whatever_is_posted_statements_add_up_and_follow_each_other(steps: list[tuple[str, int, int]]) -> None:
    organization = make_organization()
    spent: list[str] = []
    for number, (what, nanos, day) in enumerate(sorted(steps, key=lambda step: step[2])):
        at = on(1, month=10) + timedelta(days=day)
        with posted_at(at):
            _post(organization, what, nanos, at, spent, number)
    balance = 0
    rows = 0
    for month in (Month(2026, 10), NOVEMBER, Month(2026, 12)):
        found = statement_of(organization, month)
        assert found.opening_nanos == balance
        balance = found.opening_nanos + sum(row.amount_nanos for row in found.rows)
        assert found.closing_nanos == balance == (found.days[-1].balance_nanos if found.days else balance)
        assert sum(total.amount_nanos for total in found.totals) == balance - found.opening_nanos
        rows += sum(row.count for row in found.rows if row.kind != "usage")
    assert balance == sum(organization_balance(organization))
    assert rows == LedgerTransaction.objects.filter(organization=organization).exclude(kind="usage").count()


def organization_balance(organization: Organization) -> list[int]:
    return list(organization.ledger_accounts.values_list("balance_nanos", flat=True))


def _post(organization: Organization, what: str, nanos: int, at: datetime, spent: list[str], number: int) -> None:
    """Post something; where that is not possible just now, nothing."""
    names: dict[str, Any] = {"reason": "test", "actor": "alice", "idempotency_key": f"{organization.pk}:{number}"}
    if what in ("usage", "other usage"):
        spent.append(spend(organization, nanos, at, "acme/small" if what == "other usage" else "acme/large"))
    elif what in ("top_up", "promotion"):
        give(organization, nanos, kind="paid" if what == "top_up" else "promotional")
    elif what == "expiring":
        give(organization, nanos, kind="promotional", expires_at=datetime(2100, 1, 1, tzinfo=UTC))
    elif what == "expire":
        expire_lots(
            organization, available_nanos=sum(organization_balance(organization)), now=datetime(2100, 1, 2, tzinfo=UTC)
        )
    elif what == "refund" and spent:
        refund_usage(organization, request_id=UsageRecord.objects.get(pk=spent.pop()).pk, **names)
    elif what in ("charge", "credit"):
        adjust_balance(organization, amount_nanos=nanos if what == "credit" else -nanos, **names)
