"""Operators' pages of payments: a refund shows what it would post before it is done; breaks are resolved by a note."""

import uuid
from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from billing.models import PaymentBreak, PaymentRefund, ReconciliationBreak, RecurringCredit, TopUp
from billing.payments.events import apply_event
from billing.payments.orders import open_payment_page, place_order
from billing.payments.provider import CheckoutFailed
from billing.payments.providers import find_provider
from billing.payments.pull import pull_orders
from billing.reconciliation.breaks import note_differences
from billing.reconciliation.payments import open_payment_breaks
from tests.billing.ledger_factory import USD, assert_ledger_holds, posted
from tests.support.payment_sandbox import SECRET, PaymentSandbox
from tests.support.people import People, client_of, make_people, make_person

pytestmark = pytest.mark.django_db


@pytest.fixture
def people() -> People:
    return make_people()


@pytest.fixture
def operator(people: People) -> Client:
    person = make_person("operator", is_staff=True)
    person.is_superuser = True
    person.save()
    return client_of(person)


@pytest.fixture(scope="module")
def sandbox_process() -> Iterator[PaymentSandbox]:
    with PaymentSandbox() as sandbox:
        yield sandbox


@pytest.fixture
def top_up(people: People, sandbox_process: PaymentSandbox, settings: Settings) -> TopUp:
    settings.PAYMENT_PROVIDER = "sandbox"
    settings.PAYMENT_SANDBOX_URL, settings.PAYMENT_SANDBOX_SECRET = sandbox_process.url, SECRET
    ordered = place_order(
        people.organization, amount_nanos=10 * USD, provider="sandbox", idempotency_key="k", actor="alice@example.org"
    )
    provider = find_provider("sandbox")
    url = open_payment_page(ordered, provider, customer_email="", return_url="", cancel_url="")
    sandbox_process.choose(url, "pay")
    pull_orders(now=timezone.now() + timedelta(minutes=5))
    ordered.refresh_from_db()
    assert ordered.state == "paid"
    return ordered


@pytest.mark.parametrize(
    "page", ["topup", "paymentbreak", "automatictopup", "recurringcredit", "topup/{pk}/change", "recurringcredit/add"]
)
def test_the_pages_open_and_change_nothing(operator: Client, top_up: TopUp, page: str) -> None:
    assert operator.get(f"/admin/billing/{page.format(pk=top_up.pk)}/").status_code == 200
    assert operator.post(f"/admin/billing/topup/{top_up.pk}/change/", {"state": "refunded"}).status_code == 403


def test_a_refund_is_shown_and_then_done_once(operator: Client, top_up: TopUp) -> None:
    url = f"/admin/billing/topup/{top_up.pk}/pay-back/"
    form = operator.get(url).context["form"]
    sent = {"amount_nanos": "4", "reason": "Asked for it", "form_id": str(form["form_id"].value())}
    shown = operator.post(url, sent)
    assert "organization -4.00, cash +4.00" in shown.content.decode()
    assert "The balance would be 6.00 USD" in shown.content.decode()
    assert not PaymentRefund.objects.exists()
    confirmed = sent | {"shown_nanos": str(shown.context["form"]["shown_nanos"].value())}
    assert [operator.post(url, confirmed).status_code for _ in range(2)] == [302, 302]
    assert posted(top_up.organization) == 6 * USD
    assert PaymentRefund.objects.get().created_by == "operator@example.org"
    assert_ledger_holds()


def test_another_amount_than_was_shown_is_shown_again(operator: Client, top_up: TopUp) -> None:
    url = f"/admin/billing/topup/{top_up.pk}/pay-back/"
    form_id = str(operator.get(url).context["form"]["form_id"].value())
    sent = {"amount_nanos": "5", "reason": "x", "form_id": form_id, "shown_nanos": str(4 * USD)}
    assert operator.post(url, sent).status_code == 200
    assert operator.post(url, sent | {"amount_nanos": "11"}).status_code == 422
    assert not PaymentRefund.objects.exists()


def test_a_refund_without_an_answer_is_decided_by_a_person(operator: Client, top_up: TopUp) -> None:
    refund = {"top_up": top_up, "amount_nanos": 4 * USD, "reason": "Asked", "created_by": "bob"}
    page = f"/admin/billing/topup/{top_up.pk}/"
    assert "ask-again" not in operator.get(f"{page}change/").content.decode()
    for button, sent in (("give-up", {"reason": "It has none."}), ("ask-again", {})):
        PaymentRefund.objects.create(**refund, idempotency_key=button)
        assert button in operator.get(f"{page}change/").content.decode()
        assert "$4.00" in operator.get(f"{page}{button}/").content.decode()
        assert operator.post(f"{page}{button}/", sent).status_code == 302
    given_up, done = PaymentRefund.objects.order_by("pk")
    assert (given_up.done_at, given_up.refused) == (None, "Given up: It has none.")
    assert (done.done_at is not None, posted(top_up.organization)) == (True, 6 * USD)
    assert [operator.post(f"{page}{button}/").status_code for button in ("give-up", "ask-again")] == [302, 302]
    assert posted(top_up.organization) == 6 * USD


def test_staff_without_the_permission_pay_nothing_back(top_up: TopUp) -> None:
    operator = client_of(make_person("operator", is_staff=True))
    assert operator.post(f"/admin/billing/topup/{top_up.pk}/pay-back/", {"amount_nanos": "4"}).status_code == 403


def test_a_break_is_resolved_by_a_note(operator: Client, top_up: TopUp) -> None:
    apply_event(CheckoutFailed("sandbox", top_up.reference, "It bounced.", timezone.now(), top_up.checkout_id))
    row = PaymentBreak.objects.get()
    note_differences("payments", open_payment_breaks(), day=None)
    url = f"/admin/billing/paymentbreak/{row.pk}/resolve/"
    assert operator.post(url, {"resolution": " "}).status_code == 422
    assert operator.post(url, {"resolution": "The bank confirmed that it has paid."}).status_code == 302
    row.refresh_from_db()
    assert (row.resolved_by, row.resolution) == ("operator@example.org", "The bank confirmed that it has paid.")
    assert ReconciliationBreak.objects.get().state == "resolved", "the list of all breaks shows no more of it"


def test_a_break_of_payments_is_resolved_in_the_list_of_all_breaks(operator: Client, top_up: TopUp) -> None:
    apply_event(CheckoutFailed("sandbox", top_up.reference, "It bounced.", timezone.now(), top_up.checkout_id))
    assert note_differences("payments", open_payment_breaks(), day=None) == 1
    url = f"/admin/billing/reconciliationbreak/{ReconciliationBreak.objects.get().pk}/resolve/"
    assert operator.post(url, {"note": "The bank confirmed it."}).status_code == 302
    assert PaymentBreak.objects.get().resolution == "The bank confirmed it."
    assert note_differences("payments", open_payment_breaks(), day=None) == 0


def test_an_amount_each_month_is_included_and_ended(operator: Client, people: People) -> None:
    form = {
        "organization": people.organization.slug,
        "form_id": str(uuid.uuid4()),
        "amount_nanos": "20",
        "first_month": "2026-11-28",
        "reason": "Team plan",
    }
    assert operator.post("/admin/billing/recurringcredit/add/", form | {"amount_nanos": "0"}).status_code == 422
    assert operator.post("/admin/billing/recurringcredit/add/", form).status_code == 302
    row = RecurringCredit.objects.get()
    assert (row.amount_nanos, str(row.first_month), row.created_by) == (20 * USD, "2026-11-01", "operator@example.org")
    assert operator.post(f"/admin/billing/recurringcredit/{row.pk}/end/").status_code == 302
    row.refresh_from_db()
    assert row.last_month is not None
