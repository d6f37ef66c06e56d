"""What a webhook did not tell is found by asking; what operators pay back is paid back once."""

from datetime import UTC, datetime, timedelta
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone
from pytest_django import Settings

from accounts.models import Organization
from billing.approvals.book import ask
from billing.models import Approval, LedgerTransaction, PaymentMovement, PaymentRefund, TopUp
from billing.payments.events import adopt_waiting, apply_event
from billing.payments.orders import open_payment_page
from billing.payments.provider import DisputeFundsMoved, PaymentProviderError, PaymentRefusedError
from billing.payments.providers import find_provider
from billing.payments.providers.sandbox import SandboxProvider
from billing.payments.pull import pull_orders, pull_payments
from billing.payments.refunds import (
    DisputedPaymentError,
    InvalidPaymentRefundError,
    plan_refund,
    refund_top_up,
    resume_refunds,
)
from tests.billing.ledger_factory import (
    USD,
    assert_ledger_holds,
    entries_of,
    make_event,
    make_organization,
    posted,
    settle,
)
from tests.billing.payments.payment_factory import at, order, paid, withdrawn
from tests.support.payment_sandbox import PaymentSandbox
from tests.support.people import make_person
from tests.support.together import run_together

pytestmark = pytest.mark.django_db
LATER = timedelta(minutes=5)


def open_order(organization: Organization, usd: int = 10) -> TopUp:
    """Return an order whose payment page is open."""
    top_up = order(organization, usd, provider="sandbox")
    open_payment_page(top_up, find_provider("sandbox"), customer_email="a@example.org", return_url="", cancel_url="")
    top_up.refresh_from_db()
    return top_up


def buy_at(sandbox: PaymentSandbox, organization: Organization, usd: int = 10) -> TopUp:
    """Return an order that was paid at the sandbox and credited."""
    top_up = open_order(organization, usd)
    sandbox.choose(top_up.checkout_url, "pay")
    assert pull_orders(now=timezone.now() + LATER).credited == [top_up]
    top_up.refresh_from_db()
    return top_up


def test_a_payment_whose_webhook_was_lost_is_credited_by_asking(sandbox: PaymentSandbox) -> None:
    organization = make_organization()
    top_up = open_order(organization)
    sandbox.choose(top_up.checkout_url, "pay")
    assert pull_orders().credited == [], "webhooks get half a minute"
    pulled = pull_orders(now=timezone.now() + LATER)
    assert (pulled.asked, pulled.credited) == (1, [top_up])
    assert posted(organization) == 10 * USD
    assert pull_orders(now=timezone.now() + LATER).asked == 0, "and is not asked about again for a day"
    assert_ledger_holds()


def test_a_payment_is_credited_by_the_providers_list_although_we_died_before_its_page_was_kept(
    sandbox: PaymentSandbox,
) -> None:
    organization = make_organization()
    top_up = open_order(organization)
    url = top_up.checkout_url
    TopUp.objects.filter(pk=top_up.pk).update(checkout_id="", checkout_url="")
    sandbox.choose(url, "pay")
    now = timezone.now()
    pulled = pull_payments("sandbox", now - timedelta(days=1), now + timedelta(days=1))
    assert pulled.credited == [top_up]
    assert posted(organization) == 10 * USD


def test_a_refund_and_a_dispute_that_were_not_told_are_found_the_next_day(sandbox: PaymentSandbox) -> None:
    organization = make_organization()
    top_up = buy_at(sandbox, organization)
    sandbox.step(top_up.checkout_id, "refund_half")
    tomorrow = timezone.now() + timedelta(days=1, hours=1)
    pull_orders(now=tomorrow)
    assert posted(organization) == 5 * USD
    sandbox.step(top_up.checkout_id, "dispute")
    pull_orders(now=tomorrow + timedelta(days=2))
    assert posted(organization) == 0
    sandbox.step(top_up.checkout_id, "win")
    TopUp.objects.filter(pk=top_up.pk).update(checked_at=None)
    for event in find_provider("sandbox").read_checkout(reference=top_up.reference, checkout_id="", payment_id=""):
        apply_event(event)
    assert posted(organization) == 5 * USD
    assert_ledger_holds()


def test_a_provider_that_is_down_is_asked_later_and_loses_nothing(sandbox: PaymentSandbox) -> None:
    organization = make_organization()
    top_up = open_order(organization)
    sandbox.choose(top_up.checkout_url, "pay")
    sandbox.control(down=True)
    assert pull_orders(now=timezone.now() + LATER).failed == 1
    sandbox.control(down=False)
    assert pull_orders(now=timezone.now() + LATER).credited == [top_up]


def test_an_order_that_cannot_be_credited_holds_up_no_other(
    sandbox: PaymentSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    absurd, usual = open_order(make_organization(), 20), open_order(make_organization())
    monkeypatch.setattr("billing.credit.top_ups.MAX_TOP_UP_NANOS", 15 * USD)  # Of what the ledger takes at once.
    for top_up in (absurd, usual):
        sandbox.choose(top_up.checkout_url, "pay")
    pulled = pull_orders(now=timezone.now() + LATER)
    assert (pulled.asked, pulled.failed, pulled.credited) == (2, 1, [usual])
    now = timezone.now()
    listed = pull_payments("sandbox", now - timedelta(days=1), now + timedelta(days=1))
    assert listed.failed == 1


def test_an_order_that_nobody_paid_ends(sandbox: PaymentSandbox) -> None:
    unopened = order(make_organization(), provider="sandbox")
    opened = open_order(make_organization())
    pull_orders(now=timezone.now() + timedelta(days=3))
    pull_orders(now=timezone.now() + timedelta(days=31))
    assert dict(TopUp.objects.values_list("pk", "failure")) == {
        unopened.pk: "It was never paid.",
        opened.pk: "The payment never came.",
    }


def test_a_movement_and_its_order_that_missed_each_other_find_each_other() -> None:
    organization = make_organization()
    top_up = order(organization)
    apply_event(paid(top_up))
    event = withdrawn(top_up)
    PaymentMovement.objects.create(
        provider=event.provider,
        kind="dispute_withdrawn",
        reference=event.dispute_id,
        charge_id=event.charge_id,
        amount_nanos=event.amount_nanos,
        occurred_at=at(5),
    )
    assert adopt_waiting() == 1
    assert (adopt_waiting(), posted(organization)) == (0, 0)
    assert_ledger_holds()


def run(*arguments: str) -> list[str]:
    output = StringIO()
    call_command("reconcile_payments", *arguments, stdout=output)
    return output.getvalue().splitlines()


@pytest.mark.usefixtures("sandbox")
def test_the_command_tells_what_it_credited(settings: Settings) -> None:
    organization = make_organization()
    with PaymentSandbox() as sandbox:  # Its list has nobody else's payments.
        settings.PAYMENT_SANDBOX_URL = sandbox.url
        top_up = open_order(organization)
        sandbox.choose(top_up.checkout_url, "pay")
        lines = run()
    assert lines[1].endswith("1 credited now")
    assert lines[2] == f"  Top-up {top_up.pk} of {organization.slug}: 10.00 USD"
    assert lines[-1] == "0 open breaks of payments"
    with pytest.raises(CommandError, match="no payment provider 'nobody'"):
        run("--provider", "nobody")


# --- Paying back ----------------------------------------------------------------------------------------------------


def pay_back(top_up: TopUp, usd: int, key: str = "k", *, even_if_disputed: bool = False) -> PaymentRefund:
    return refund_top_up(
        top_up,
        amount_nanos=usd * USD,
        reason="Asked for it",
        actor="bob@example.org",
        idempotency_key=key,
        even_if_disputed=even_if_disputed,
    )


def test_a_refund_is_shown_before_and_does_what_was_shown(sandbox: PaymentSandbox) -> None:
    organization = make_organization()
    top_up = buy_at(sandbox, organization)
    settle(make_event(organization, 7 * USD))
    plan = plan_refund(top_up, amount_nanos=6 * USD)
    assert plan.postings == [("organization", -6 * USD), ("cash", 6 * USD)]
    assert (plan.balance_after_nanos, plan.warning) == (-3 * USD, "")
    assert LedgerTransaction.objects.filter(kind="reversal").count() == 0
    assert pay_back(top_up, 6).done_at is not None
    assert posted(organization) == -3 * USD
    reversal = top_up.reversals.get()
    assert entries_of(reversal.ledger_transaction_id) == {"prepaid": -3 * USD, "receivable": -3 * USD, "cash": 6 * USD}
    assert_ledger_holds()


def test_the_same_key_pays_back_once_and_no_more_than_is_left(sandbox: PaymentSandbox) -> None:
    organization = make_organization()
    top_up = buy_at(sandbox, organization)
    pay_back(top_up, 6)
    pay_back(top_up, 6)
    with pytest.raises(InvalidPaymentRefundError, match="used for another"):
        pay_back(top_up, 5)
    with pytest.raises(InvalidPaymentRefundError, match=r"4\.00 USD of it are left"):
        pay_back(top_up, 5, "other")
    assert posted(organization) == 4 * USD


@pytest.mark.django_db(transaction=True)
def test_two_operators_at_once_pay_back_once(sandbox: PaymentSandbox) -> None:
    organization = make_organization()
    top_up = buy_at(sandbox, organization)
    run_together(*[lambda key=key: pay_back(top_up, 10, key) for key in ("a", "b", "a")])
    assert posted(organization) == 0
    assert PaymentRefund.objects.exclude(done_at=None).count() == 1
    assert_ledger_holds()


def test_paying_a_disputed_payment_back_warns(sandbox: PaymentSandbox) -> None:
    organization = make_organization()
    top_up = buy_at(sandbox, organization, 20)
    apply_event(withdrawn_at_sandbox(top_up, 5))
    assert "card holder twice" in plan_refund(top_up, amount_nanos=USD).warning
    with pytest.raises(DisputedPaymentError, match="card holder twice"):
        pay_back(top_up, 10)
    pay_back(top_up, 10, even_if_disputed=True)
    assert posted(organization) == 5 * USD


def withdrawn_at_sandbox(top_up: TopUp, usd: int) -> DisputeFundsMoved:
    return DisputeFundsMoved("sandbox", "dp_1", top_up.charge_id, "", usd * USD, is_withdrawal=True, occurred_at=at(1))


def test_a_refund_that_the_provider_refuses_takes_nothing(sandbox: PaymentSandbox) -> None:
    organization = make_organization()
    top_up = buy_at(sandbox, organization)
    sandbox.step(top_up.checkout_id, "dispute")  # We have not heard of it yet.
    with pytest.raises(PaymentRefusedError, match="is disputed"):
        pay_back(top_up, 10)
    assert PaymentRefund.objects.get().refused
    assert posted(organization) == 10 * USD


def test_a_refund_without_an_answer_is_asked_for_again_and_paid_once(sandbox: PaymentSandbox) -> None:
    organization = make_organization()
    top_up = buy_at(sandbox, organization)
    sandbox.control(down=True)
    with pytest.raises(PaymentProviderError):
        pay_back(top_up, 10)
    assert posted(organization) == 10 * USD
    with pytest.raises(InvalidPaymentRefundError, match="under way"):
        pay_back(top_up, 10, "another")
    sandbox.control(down=False)
    PaymentRefund.objects.update(created_at=timezone.now() - LATER)
    assert (resume_refunds(), resume_refunds()) == (1, 0)
    assert posted(organization) == 0
    assert_ledger_holds()


def test_a_worker_that_dies_between_provider_and_posting_is_made_good(
    sandbox: PaymentSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    organization = make_organization()
    top_up = buy_at(sandbox, organization)

    def die(_: object) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr("billing.payments.refunds.apply_event", die)
        with pytest.raises(SystemExit):
            pay_back(top_up, 4)
    assert posted(organization) == 10 * USD
    PaymentRefund.objects.update(created_at=timezone.now() - LATER)
    resume_refunds()
    assert posted(organization) == 6 * USD


def test_what_was_refused_is_not_asked_for_again_under_its_key(sandbox: PaymentSandbox) -> None:
    organization = make_organization()
    top_up = buy_at(sandbox, organization)
    sandbox.step(top_up.checkout_id, "dispute")
    with pytest.raises(PaymentRefusedError, match="is disputed"):
        pay_back(top_up, 10)
    sandbox.step(top_up.checkout_id, "win")
    with pytest.raises(PaymentRefusedError, match="is disputed"):
        pay_back(top_up, 10)
    assert posted(organization) == 10 * USD


def test_an_operator_who_dies_after_the_decision_has_paid_back_all_the_same(
    sandbox: PaymentSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The decision and the order to pay back are one: what is applied is never forgotten."""
    organization = make_organization()
    top_up = buy_at(sandbox, organization)

    def die(_: object) -> None:
        raise SystemExit

    monkeypatch.setattr("billing.approvals.book.finish", die)
    with pytest.raises(SystemExit):
        ask(
            Approval.Kind.PAYMENT_REFUND,
            organization=organization,
            terms={"top_up_id": top_up.pk, "amount_nanos": 4 * USD, "even_if_disputed": False},
            amount_nanos=4 * USD,
            reason="Asked for it",
            asked_by=make_person("root", is_staff=True, is_superuser=True),
            idempotency_key="payment_refund:1",
        )
    assert Approval.objects.get().state == Approval.State.APPLIED
    PaymentRefund.objects.update(created_at=timezone.now() - LATER)
    assert resume_refunds() == 1
    assert posted(organization) == 6 * USD
    assert_ledger_holds()


def test_a_provider_whose_settings_were_taken_away_is_told(sandbox: PaymentSandbox, settings: Settings) -> None:
    top_up = buy_at(sandbox, make_organization())
    settings.PAYMENT_SANDBOX_URL = ""
    with pytest.raises(PaymentProviderError, match="no payment provider"):
        pay_back(top_up, 4)


def test_a_list_holds_what_was_paid_in_the_last_part_of_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """Providers take whole seconds, and leave the last one out."""
    asked: list[str] = []

    def call(path: str) -> dict[str, list[object]]:
        asked.append(path)
        return {"payments": []}

    provider = SandboxProvider("http://127.0.0.1:1", "secret")
    monkeypatch.setattr(provider, "_call", call)
    start = datetime(1970, 1, 1, 0, 0, 5, 900_000, UTC)
    list(provider.list_payments(start, start + timedelta(seconds=3.5)))
    assert asked == ["/v1/payments?start=5&end=10"]
