"""Automatic top-up: off by default, one at a time, as large as the gap, below ceilings, and never again and again."""

import uuid
from collections.abc import Iterator
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.db import IntegrityError, transaction
from django.utils import timezone

from accounts.models import Organization
from billing.corrections.refunds import adjust_balance
from billing.models import Alert, AutomaticTopUp, LedgerTransaction, TopUp
from billing.payments.automatic import due_organizations, run_automatic_top_ups, top_up_automatically
from billing.payments.automatic_settings import (
    FAILURES_THAT_SUSPEND,
    Choice,
    InvalidAutomaticTopUpError,
    ask_for_card,
    choose,
    read_settings,
)
from billing.payments.events import apply_event
from billing.payments.provider import CardSaved, SavedCard
from tests.billing.ledger_factory import USD, assert_ledger_holds, make_organization, posted
from tests.billing.payments.payment_factory import NOON, order, paid
from tests.support.payment_sandbox import PaymentSandbox
from tests.support.together import run_together

pytestmark = pytest.mark.django_db


def keep_card(organization: Organization, method: str = "pm_1") -> None:
    reference = ask_for_card(organization).card_reference
    card = SavedCard("cus_1", method, "Sandbox card ending in 4242")
    assert apply_event(CardSaved("sandbox", reference, card, NOON)).changed


def turn_on(organization: Organization, *, method: str = "pm_1", **changes: Any) -> AutomaticTopUp:
    keep_card(organization, method)
    values: dict[str, Any] = {
        "is_on": True,
        "threshold_nanos": 10 * USD,
        "amount_nanos": 20 * USD,
        "max_day_nanos": 100 * USD,
        "max_month_nanos": 500 * USD,
        "max_day_count": 3,
        "max_month_count": 10,
    }
    return choose(organization, Choice(**{**values, **changes}), actor="alice@example.org")


@pytest.fixture
def organization(sandbox: PaymentSandbox) -> Iterator[Organization]:
    yield make_organization()
    assert_ledger_holds()


def spend(organization: Organization, nanos: int) -> None:
    adjust_balance(organization, amount_nanos=-nanos, reason="Spent", actor="test", idempotency_key=uuid.uuid4().hex)


def forget_waits() -> None:
    AutomaticTopUp.objects.update(next_attempt_at=None)


def alerts() -> list[str]:
    return list(Alert.objects.filter(cleared_at=None).order_by("id").values_list("kind", flat=True))


def test_it_is_off_until_it_is_turned_on_and_needs_a_card(organization: Organization) -> None:
    assert read_settings(organization).is_on is False
    keep_card(organization)
    assert read_settings(organization).is_on is False, "keeping a card turns nothing on"
    assert run_automatic_top_ups().placed == 0
    other = make_organization("Other")
    with pytest.raises(InvalidAutomaticTopUpError, match="Add a card"):
        choose(other, Choice(True, USD, 20 * USD, 100 * USD, 500 * USD, 3, 10), actor="a")
    with pytest.raises(IntegrityError), transaction.atomic():
        AutomaticTopUp.objects.create(organization=other, is_on=True)


@pytest.mark.parametrize(
    "changes",
    [
        {"amount_nanos": USD},
        {"max_day_nanos": 19 * USD},
        {"max_month_nanos": USD},
        {"max_day_count": 0},
        {"max_month_count": 10_000},
        {"amount_nanos": 10**18},
    ],
)
def test_settings_that_make_no_sense_are_refused(organization: Organization, changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidAutomaticTopUpError):
        turn_on(organization, **changes)


def test_it_pays_when_the_balance_is_below_the_threshold(organization: Organization) -> None:
    turn_on(organization)
    assert run_automatic_top_ups().placed == 1
    top_up = TopUp.objects.get()
    assert (top_up.state, top_up.origin, top_up.amount_nanos, posted(organization)) == (
        "paid",
        "automatic",
        20 * USD,
        20 * USD,
    )
    assert run_automatic_top_ups().placed == 0
    assert read_settings(organization).failures == 0


def test_it_closes_the_gap(organization: Organization) -> None:
    spend(organization, 45 * USD + 1)
    turn_on(organization)
    run_automatic_top_ups()
    assert TopUp.objects.get().amount_nanos == 55 * USD + 10**7, "rounded up to a cent"
    assert posted(organization) >= 10 * USD


@pytest.mark.django_db(transaction=True)
def test_many_workers_at_once_pay_once(organization: Organization) -> None:
    turn_on(organization)
    assert run_together(*[lambda: top_up_automatically(organization)] * 4) == []
    assert (TopUp.objects.count(), posted(organization)) == (1, 20 * USD)


def test_one_order_is_pending_at_a_time(organization: Organization) -> None:
    order(organization, origin=TopUp.Origin.AUTOMATIC)
    with pytest.raises(IntegrityError), transaction.atomic():
        order(organization, origin=TopUp.Origin.AUTOMATIC)


def spend_and_run(organization: Organization, times: int) -> int:
    placed = 0
    for _ in range(times):
        spend(organization, 20 * USD)
        forget_waits()
        placed += run_automatic_top_ups().placed
    return placed


def test_the_ceiling_in_number_holds(organization: Organization) -> None:
    turn_on(organization, max_day_count=2)
    assert spend_and_run(organization, 5) == 2
    assert "ceiling" in read_settings(organization).reason.lower()
    assert alerts() == ["automatic_top_up_failed"]


def test_the_ceiling_in_money_holds_and_the_last_one_is_smaller(organization: Organization) -> None:
    turn_on(organization, max_day_nanos=50 * USD, max_day_count=20)
    spend_and_run(organization, 6)
    amounts = list(TopUp.objects.order_by("id").values_list("amount_nanos", flat=True))
    assert sum(amounts) == 50 * USD


def test_what_failed_counts_in_number_and_not_in_money(organization: Organization) -> None:
    turn_on(organization, max_month_nanos=30 * USD, max_day_count=2)
    TopUp.objects.filter(pk=order(organization, 20, origin=TopUp.Origin.AUTOMATIC).pk).update(state="failed")
    assert run_automatic_top_ups().placed == 1
    assert spend_and_run(organization, 1) == 0


def test_three_failures_in_a_row_suspend_it_and_it_is_not_asked_again(
    organization: Organization, sandbox: PaymentSandbox
) -> None:
    turn_on(organization, method="pm_1_declines", max_day_count=20)
    for _ in range(FAILURES_THAT_SUSPEND + 5):
        forget_waits()
        run_automatic_top_ups()
    assert [top_up.state for top_up in TopUp.objects.all()] == ["failed"] * FAILURES_THAT_SUSPEND
    stored = read_settings(organization)
    assert stored.suspended_at is not None
    assert stored.reason == "The card was declined."
    assert alerts() == ["automatic_top_up_failed", "automatic_top_up_suspended"]
    assert due_organizations(timezone.now()) == []


def test_after_a_decline_it_waits_longer_each_time(organization: Organization) -> None:
    turn_on(organization, method="pm_1_declines")
    waits = []
    for _ in range(2):
        forget_waits()
        run_automatic_top_ups()
        waits.append(read_settings(organization).next_attempt_at)
        assert run_automatic_top_ups().placed == 0
    assert waits[0] is not None
    assert waits[1] is not None
    assert waits[1] - timezone.now() > timedelta(minutes=29)


def suspend(organization: Organization) -> None:
    turn_on(organization, method="pm_1_declines", max_day_count=20)
    for _ in range(FAILURES_THAT_SUSPEND):
        forget_waits()
        run_automatic_top_ups()
    assert read_settings(organization).suspended_at


def test_another_card_lets_it_go_on(organization: Organization) -> None:
    suspend(organization)
    keep_card(organization, "pm_2")
    assert alerts() == []
    run_automatic_top_ups()
    assert posted(organization) == 20 * USD


def test_a_payment_that_succeeds_lets_it_go_on(organization: Organization) -> None:
    suspend(organization)
    apply_event(paid(order(organization, 5)))
    stored = read_settings(organization)
    assert (stored.suspended_at, stored.failures, stored.reason) == (None, 0, "")
    assert alerts() == []


def test_no_answer_is_asked_about_again_and_paid_once(organization: Organization, sandbox: PaymentSandbox) -> None:
    turn_on(organization)
    sandbox.control(down=True)
    assert run_automatic_top_ups().placed == 1
    assert TopUp.objects.get().state == "pending"
    forget_waits()
    assert run_automatic_top_ups().placed == 0, "one at a time"
    sandbox.control(down=False)
    assert run_automatic_top_ups(now=timezone.now() + timedelta(minutes=2)).resumed == 1
    assert (TopUp.objects.get().state, posted(organization)) == ("paid", 20 * USD)


def test_whoever_has_turned_it_off_meanwhile_is_not_charged(
    organization: Organization, sandbox: PaymentSandbox
) -> None:
    turn_on(organization)
    sandbox.control(down=True)
    assert run_automatic_top_ups().placed == 1
    sandbox.control(down=False)
    AutomaticTopUp.objects.update(is_on=False)
    assert run_automatic_top_ups(now=timezone.now() + timedelta(minutes=2)).resumed == 0
    assert TopUp.objects.get().state == "pending"
    assert run_automatic_top_ups(now=timezone.now() + timedelta(hours=21)).resumed == 1
    assert TopUp.objects.get().state == "failed"
    assert not LedgerTransaction.objects.exists()


def test_a_worker_killed_between_provider_and_posting_is_made_good_and_charges_once(
    organization: Organization, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn_on(organization)

    def die(_: object) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr("billing.payments.automatic.apply_event", die)
        with pytest.raises(SystemExit):
            top_up_automatically(organization)
    assert read_settings(organization).failures == 1, "counted before the provider was called"
    assert run_automatic_top_ups(now=timezone.now() + timedelta(minutes=2)).resumed == 1
    assert (TopUp.objects.count(), posted(organization)) == (1, 20 * USD)


def test_an_order_without_an_answer_ends_before_the_provider_forgets_its_key(
    organization: Organization, sandbox: PaymentSandbox
) -> None:
    turn_on(organization)
    sandbox.control(down=True)
    run_automatic_top_ups()
    sandbox.control(down=False)
    forget_waits()
    run_automatic_top_ups(now=timezone.now() + timedelta(hours=21))
    assert [top_up.state for top_up in TopUp.objects.order_by("id")] == ["failed", "paid"]


def test_a_page_for_cards_that_is_not_the_last_one_keeps_nothing(organization: Organization) -> None:
    first = ask_for_card(organization).card_reference
    ask_for_card(organization)
    assert not apply_event(CardSaved("sandbox", first, SavedCard("c", "pm", ""), NOON)).changed
    assert not read_settings(organization).method_id


def test_a_suspended_organization_is_charged_nothing(organization: Organization) -> None:
    turn_on(organization)
    Organization.objects.update(status=Organization.Status.SUSPENDED)
    assert run_automatic_top_ups().placed == 0


def test_one_that_was_closed_while_others_were_charged_is_charged_nothing(organization: Organization) -> None:
    turn_on(organization)
    [due] = due_organizations(timezone.now())
    for status in (Organization.Status.SUSPENDED, Organization.Status.CLOSED):
        Organization.objects.update(status=status)
        assert not top_up_automatically(due)
    assert not TopUp.objects.exists()


def test_the_command_shows_who_is_due_and_tops_them_up(organization: Organization) -> None:
    turn_on(organization)
    output = StringIO()
    call_command("automatic_top_ups", "--dry-run", stdout=output)
    assert f"{organization.slug}: balance 0.00 USD" in output.getvalue()
    assert not TopUp.objects.filter(organization=organization).exists()
    call_command("automatic_top_ups", stdout=output)
    assert "1 automatic top-ups ordered" in output.getvalue()
    assert TopUp.objects.filter(organization=organization).count() == 1
