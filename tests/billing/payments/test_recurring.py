"""Recurring credit, and welcome credit under a crowd."""

from datetime import UTC, date, datetime

import pytest
from pytest_django import Settings

from accounts.organizations import change_organization
from billing.credit.top_ups import InvalidTopUpError, welcome_credit
from billing.models import CreditLot, LedgerTransaction, RecurringCredit
from billing.payments.recurring import InvalidRecurringCreditError, end_monthly, give_monthly_credit, include_monthly
from tests.billing.ledger_factory import USD, assert_ledger_holds, make_organization
from tests.support.people import make_person
from tests.support.together import run_together

pytestmark = pytest.mark.django_db
DECEMBER = date(2999, 12, 1)


def noon(year: int, month: int, day: int) -> datetime:
    return datetime(year, month, day, 12, tzinfo=UTC)


def test_it_is_given_once_a_month_and_ends_with_it() -> None:
    include_monthly(make_organization(), amount_nanos=5 * USD, first_month=DECEMBER, reason="Plan", created_by="bob")
    assert give_monthly_credit(now=noon(2999, 11, 30)) == 0
    assert [give_monthly_credit(now=noon(2999, 12, day)) for day in (1, 2, 31)] == [1, 0, 0]
    assert give_monthly_credit(now=noon(3000, 1, 1)) == 1
    first, second = CreditLot.objects.order_by("id")
    assert (first.kind, first.amount_nanos, first.expires_at) == (
        "promotional",
        5 * USD,
        datetime(3000, 1, 1, tzinfo=UTC),
    )
    assert second.expires_at == datetime(3000, 2, 1, tzinfo=UTC)
    assert first.origin == "Plan, December 2999"
    assert_ledger_holds()


def test_a_closed_organization_is_given_nothing() -> None:
    organization = make_organization()
    include_monthly(organization, amount_nanos=USD, first_month=DECEMBER, reason="Plan", created_by="bob")
    change_organization(organization, fields={"status": "closed"})
    assert give_monthly_credit(now=noon(2999, 12, 1)) == 0
    change_organization(organization, fields={"status": "active"})
    assert give_monthly_credit(now=noon(2999, 12, 20)) == 1


def test_one_that_cannot_be_given_holds_up_no_other() -> None:
    absurd = RecurringCredit.objects.create(
        organization=make_organization(), amount_nanos=10**17, first_month=DECEMBER, reason="Plan", created_by="bob"
    )
    usual = include_monthly(
        make_organization(), amount_nanos=USD, first_month=DECEMBER, reason="Plan", created_by="bob"
    )
    assert absurd.pk < usual.pk
    with pytest.raises(InvalidTopUpError):
        give_monthly_credit(now=noon(2999, 12, 1))
    assert CreditLot.objects.get().organization == usual.organization


@pytest.mark.parametrize(("month", "ends"), [(date(2996, 2, 1), (2996, 3, 1)), (date(2999, 2, 1), (2999, 3, 1))])
def test_a_february_ends_where_march_begins(month: date, ends: tuple[int, int, int]) -> None:
    include_monthly(make_organization(), amount_nanos=USD, first_month=month, reason="Plan", created_by="bob")
    give_monthly_credit(now=datetime(month.year, 2, 28, 23, 59, 59, tzinfo=UTC))
    assert CreditLot.objects.get().expires_at == datetime(*ends, tzinfo=UTC)


def test_it_ends_with_its_last_month() -> None:
    recurring = include_monthly(
        make_organization(), amount_nanos=USD, first_month=DECEMBER, reason="Plan", created_by="bob"
    )
    end_monthly(recurring, now=noon(2999, 12, 5))
    assert [give_monthly_credit(now=noon(2999, 12, 6)), give_monthly_credit(now=noon(3000, 1, 6))] == [1, 0]


@pytest.mark.parametrize(
    ("amount", "last", "reason"),
    [(0, None, "Plan"), (10**17, None, "Plan"), (USD, date(2999, 11, 1), "Plan"), (USD, None, " ")],
)
def test_what_makes_no_sense_is_refused(amount: int, last: date | None, reason: str) -> None:
    with pytest.raises(InvalidRecurringCreditError):
        include_monthly(
            make_organization(),
            amount_nanos=amount,
            first_month=DECEMBER,
            last_month=last,
            reason=reason,
            created_by="bob",
        )


@pytest.mark.django_db(transaction=True)
def test_many_workers_give_it_once() -> None:
    include_monthly(make_organization(), amount_nanos=USD, first_month=DECEMBER, reason="Plan", created_by="bob")
    assert run_together(*[lambda: give_monthly_credit(now=noon(2999, 12, 1))] * 4) == []
    assert LedgerTransaction.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_a_person_is_welcomed_once_however_many_organizations_they_make_at_once(settings: Settings) -> None:
    settings.WELCOME_CREDIT_USD = "5"
    person = make_person("dora")
    organizations = [make_organization(f"O{number}") for number in range(6)]
    work = [lambda organization=each: welcome_credit(organization, person=person) for each in organizations * 2]
    assert run_together(*work) == []
    assert [lot.amount_nanos for lot in CreditLot.objects.all()] == [5 * USD]
    assert_ledger_holds()
