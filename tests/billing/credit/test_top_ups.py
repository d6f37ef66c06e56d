"""Money coming in and credit given away, from code and from the command line."""

import time
from datetime import UTC, datetime, timedelta
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone
from pytest_django import Settings

from accounts.models import AdmissionChange, Member, Role, User
from accounts.staff_roles import StaffRole
from billing.credit.top_ups import MAX_TOP_UP_NANOS, InvalidTopUpError, grant_credit, record_payment, welcome_credit
from billing.ledger.book import IdempotencyConflictError
from billing.models import CreditLot, LedgerTransaction
from tests.billing.ledger_factory import (
    USD,
    account_balances,
    assert_ledger_holds,
    entries_of,
    give,
    make_organization,
    posted,
)
from tests.support.operators import as_root, make_operator

pytestmark = pytest.mark.django_db


def test_paid_credit_comes_from_cash_and_promotional_credit_from_promotion_expense() -> None:
    organization = make_organization()
    give(organization, 2 * USD, kind="paid")
    give(organization, USD, kind="promotional")
    top_up, promotion = LedgerTransaction.objects.filter(organization=organization).order_by("id")
    assert (top_up.kind, entries_of(top_up.pk)) == ("top_up", {"prepaid": 2 * USD, "cash": -2 * USD})
    assert (promotion.kind, entries_of(promotion.pk)) == ("promotion", {"promotional": USD, "promotion_expense": -USD})
    assert account_balances(organization) == {"prepaid": 2 * USD, "promotional": USD}
    assert (top_up.actor, top_up.reason) == ("alice", "test")
    assert_ledger_holds()


@pytest.mark.parametrize("amount", [0, -1, MAX_TOP_UP_NANOS + 1])
def test_an_amount_that_makes_no_sense_is_refused(amount: int) -> None:
    organization = make_organization()
    with pytest.raises(InvalidTopUpError):
        give(organization, amount)
    assert not CreditLot.objects.exists()


def test_credit_that_would_have_expired_is_refused_but_a_late_retry_is_answered() -> None:
    organization = make_organization()
    with pytest.raises(InvalidTopUpError, match="expired"):
        give(organization, USD, expires_at=timezone.now() - timedelta(seconds=1))
    expires_at = timezone.now() + timedelta(seconds=2)
    give(organization, USD, expires_at=expires_at, idempotency_key="same")
    time.sleep((expires_at - timezone.now()).total_seconds() + 0.01)
    again = grant_credit(
        organization,
        amount_nanos=USD,
        kind=CreditLot.Kind.PAID,
        reason="test",
        actor="alice",
        idempotency_key="same",
        expires_at=expires_at,
    )
    assert not again.is_new


def test_a_payment_counts_once_for_its_providers_id() -> None:
    organization, other = make_organization(), make_organization("Other")
    first = record_payment(organization, payment_provider="stripe", payment_id="pi_1", amount_nanos=USD)
    again = record_payment(organization, payment_provider="stripe", payment_id="pi_1", amount_nanos=USD)
    assert (first.is_new, again.is_new) == (True, False)
    for wrong, nanos in [(organization, 2 * USD), (other, USD)]:
        with pytest.raises(IdempotencyConflictError):
            record_payment(wrong, payment_provider="stripe", payment_id="pi_1", amount_nanos=nanos)
    record_payment(other, payment_provider="paypal", payment_id="pi_1", amount_nanos=USD)
    assert (posted(organization), posted(other)) == (USD, USD)
    assert_ledger_holds()


def test_a_person_is_welcomed_once(settings: Settings) -> None:
    person = User.objects.create_user("dora@example.org")
    organization, other = make_organization(), make_organization("Other")
    settings.WELCOME_CREDIT_USD = "5"
    first = welcome_credit(organization, person=person)
    settings.WELCOME_CREDIT_USD = "7"
    again = welcome_credit(organization, person=person)
    assert first is not None
    assert again is not None
    assert (first.is_new, again.is_new) == (True, False)
    assert welcome_credit(other, person=person) is None
    lot = CreditLot.objects.get()
    assert (lot.kind, lot.amount_nanos, lot.origin) == ("promotional", 5 * USD, "welcome")


def test_who_was_welcomed_before_it_was_kept_by_person_is_not_again(settings: Settings) -> None:
    person = User.objects.create_user("dora@example.org")
    old = make_organization()
    Member.objects.create(organization=old, user=person, role=Role.OWNER)
    grant_credit(
        old,
        amount_nanos=USD,
        kind=CreditLot.Kind.PROMOTIONAL,
        reason="Welcome credit",
        actor="system",
        idempotency_key=f"welcome:{old.pk}",
    )
    settings.WELCOME_CREDIT_USD = "5"
    assert welcome_credit(make_organization("New"), person=person) is None


def test_no_welcome_credit_in_the_settings_posts_nothing(settings: Settings) -> None:
    settings.WELCOME_CREDIT_USD = "0"
    person = User.objects.create_user("dora@example.org")
    assert welcome_credit(make_organization(), person=person) is None
    assert not LedgerTransaction.objects.exists()


# --- manage.py grant_credit ---------------------------------------------------------------------------------------


BOB = ("--actor", "bob@example.org", "--yes")


def run(*arguments: str) -> list[str]:
    output = StringIO()
    call_command("grant_credit", *arguments, stdout=output)
    return output.getvalue().splitlines()


def test_the_command_grants_publishes_and_prints_the_new_balance() -> None:
    make_operator("bob", StaffRole.FINANCE)
    organization = make_organization()
    lines = run(organization.slug, "2.5", "--reason", "Sorry", "--expires", "2999-12-31", *BOB)
    assert lines == [f"Granted 2.50 USD to {organization.slug}.", "Balance: 2.50 USD"]
    lot = CreditLot.objects.get()
    assert (lot.kind, lot.amount_nanos, lot.expires_at) == (
        "promotional",
        2_500_000_000,
        datetime(2999, 12, 31, tzinfo=UTC),
    )
    ledger = LedgerTransaction.objects.get()
    assert ledger.actor.startswith("bob@example.org (shell:")
    assert ledger.reason == "Sorry"
    assert not AdmissionChange.objects.exists()


def test_the_command_takes_an_id_and_a_key_that_grants_once() -> None:
    organization = make_organization()
    arguments = [str(organization.pk), "1", "--reason", "x", "--kind", "paid", "--idempotency-key", "k", *as_root()]
    run(*arguments)
    assert run(*arguments)[0].startswith("Granted before, as transaction ")
    assert account_balances(organization) == {"prepaid": USD}
    with pytest.raises(CommandError, match="used before, for something else"):
        run(str(organization.pk), "2", *arguments[2:])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nobody", "1", "--reason", "x"], "No organization has the slug or id 'nobody'"),
        (["SLUG", "much", "--reason", "x"], "is not a decimal number"),
        (["SLUG", "0.0000000001", "--reason", "x"], "finer than one nano-dollar"),
        (["SLUG", "-1", "--reason", "x"], "must be above 0"),
        (["SLUG", "1", "--reason", " "], "--reason is empty"),
        (["SLUG", "1", "--reason", "x", "--expires", "soon"], "is not a date"),
        (["SLUG", "1", "--reason", "x", "--expires", "2026-13-01"], "month must be in"),
        (["SLUG", "1", "--reason", "x", "--expires", "2020-01-01"], "would have expired"),
        (["SLUG", "1", "--reason", "x", "--priority", "99999"], "--priority lies between"),
        (["SLUG", "1"], "--reason"),
    ],
)
def test_the_command_says_what_is_wrong(arguments: list[str], message: str) -> None:
    organization = make_organization()
    with pytest.raises(CommandError, match=message):
        run(*(organization.slug if word == "SLUG" else word for word in arguments), *as_root())
    assert not LedgerTransaction.objects.exists()


def test_the_command_survives_redis_being_down(settings: Settings) -> None:
    organization = make_organization()
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    lines = run(organization.slug, "1", "--reason", "x", *as_root())
    assert lines[:2] == [f"Granted 1.00 USD to {organization.slug}.", "Balance: 1.00 USD"]
    assert "it gets the new balance once it is back" in lines[2]
    assert posted(organization) == USD
    assert AdmissionChange.objects.filter(organization=organization).exists()
