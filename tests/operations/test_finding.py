"""The search of the admin finds whatever a person quotes, and the page of a request tells its whole story."""

import html
from typing import Any

import django.core.mail
import pytest
from django.contrib.auth.models import Permission
from django.test import Client

from accounts.staff_roles import StaffRole
from billing.approvals.codes import ask_for_codes
from billing.corrections.refunds import refund_usage
from billing.models import (
    Document,
    LedgerTransaction,
    PaymentDispute,
    PaymentMovement,
    TopUp,
    UsageQuarantine,
    UsageRecord,
)
from billing.request_id import make_request_id
from billing.usage.refusals import Refusal, write_refusals
from billing.webhooks.endpoints import add_endpoint
from billing.webhooks.queue import queue_test
from pages.mail import send_due_mails
from tests.billing.documents.months import Customer, at, sell
from tests.billing.ledger_factory import USD
from tests.support.operators import make_operator
from tests.support.people import People, client_of, make_person
from tests.support.settled_usage import billed_event, failed_event, sell_model, settle

FIND = "/admin/find/"


@pytest.fixture
def operator(people: People) -> Client:
    person = make_person("operator", is_staff=True)
    person.is_superuser = True
    person.save()
    return client_of(person)


def found(client: Client, text: str) -> str:
    """Return the page that a search leads to in the end."""
    response = client.get(FIND, {"q": text}, follow=True)
    assert response.status_code == 200
    return html.unescape(response.content.decode())


@pytest.mark.parametrize("form", ["req_{hex}", "msg_{hex}", "{hex}", "{dashed}", "  req_{hex} "])
def test_a_request_is_found_in_every_form(operator: Client, people: People, form: str) -> None:
    event = billed_event(people.key, sell_model())
    settle([event])
    page = found(operator, form.format(hex=event.request_id, dashed=UsageRecord.objects.get().request_id))
    assert "Usage and price" in page
    assert f"msg_{event.request_id}" in page


def test_a_billed_request_tells_everything(operator: Client, people: People) -> None:
    event = billed_event(people.key, sell_model())
    settle([event])
    record = UsageRecord.objects.get()
    refund_usage(
        people.organization,
        request_id=record.request_id,
        amount_nanos=1_000,
        reason="a good reason",
        actor="operator@example.com",
        idempotency_key="one",
    )
    page = found(operator, event.request_id)
    for text in (people.organization.name, people.key.name, "sandbox: served, HTTP 200", "a good reason", "Refund"):
        assert text in page
    for transaction in LedgerTransaction.objects.filter(kind__in=["usage", "refund"]):
        assert f"#{transaction.pk} {transaction.get_kind_display()}" in " ".join(page.split())


def test_a_failed_and_a_refused_request_say_why(operator: Client, people: People, settings: Any) -> None:
    event = failed_event(people.key, sell_model())
    settle([event])
    assert "upstream_overloaded" in found(operator, event.request_id)
    refusal = Refusal(
        request_id=make_request_id().hex,
        organization_id=people.organization.pk,
        key_id=people.key.pk,
        endpoint="messages",
        model_id="acme/large",
        status=402,
        error_code="insufficient_balance",
        message="The available balance is $0.00.",
        refused_at=UsageQuarantine._meta.get_field("created_at").default(),
    )
    write_refusals([refusal])
    page = found(operator, "req_" + refusal.request_id)
    assert "HTTP 402" in page
    assert "The available balance is $0.00." in page


def test_a_request_in_quarantine_is_found(operator: Client, people: People) -> None:
    request_id = make_request_id()
    row = UsageQuarantine.objects.create(
        organization=people.organization,
        shard=1,
        stream_id="1-1",
        raw_event=b'{"request_id":"%s"}' % request_id.hex.encode(),
        reason="It cannot be read.",
    )
    assert f"Event {row.pk}" in found(operator, request_id.hex)


def test_keys_people_organizations_and_payments(operator: Client, people: People) -> None:
    prefix, last_four = people.key.prefix, people.key.last_four
    for text in (prefix, last_four, people.secret):
        assert people.key.name in found(operator, text)
    assert people.secret not in found(operator, people.secret)
    assert people.bob.email in found(operator, people.bob.email.upper())
    assert people.organization.slug in found(operator, people.organization.name[:5].lower())
    order = TopUp.objects.create(
        organization=people.organization,
        amount_nanos=5_000_000_000,
        provider="sandbox",
        idempotency_key="one",
        created_by="alice",
        payment_id="pay_123",
    )
    for text in ("pay_123", str(order.reference)):
        assert people.organization.name in found(operator, text)


def test_a_key_is_found_as_pages_show_it(operator: Client, people: People) -> None:
    prefix, last_four = people.key.prefix, people.key.last_four
    shown = [f"{prefix}…{last_four}", f"{prefix}...{last_four}", f"{prefix}***{last_four}", f"…{last_four}"]
    for text in (*shown, f"{prefix}…", people.secret[:30], f"  {prefix}-"):
        assert people.key.name in found(operator, text), text
    for text in (f"{prefix}…0000", "…", "...", "-", people.secret[:-1] + "!"):
        assert people.key.name not in found(operator, text), text


def test_a_document_is_found_by_what_stands_on_it(operator: Client, people: People) -> None:
    customer = Customer(people.organization)
    customer.give(USD, at(10, 1))
    customer.use(sell(), at(10, 2), input_tokens=100_000, output_tokens=0)
    document = next(each for each in customer.close() if each.kind == Document.Kind.INVOICE)
    for text in (document.label, document.label.lower(), f"INV {document.number}", f"inv#{document.number}"):
        assert operator.get(FIND, {"q": text})["Location"] == f"/admin/billing/document/{document.pk}/change/", text
    assert document.label in found(operator, str(document.number))
    assert "Nothing that you may see" in found(operator, document.label.replace("INV", "CN"))


def test_a_payment_is_found_by_every_id_of_the_provider(operator: Client, people: People) -> None:
    order = TopUp.objects.create(
        organization=people.organization,
        amount_nanos=5_000_000_000,
        provider="sandbox",
        idempotency_key="one",
        created_by="alice",
        payment_id="pay_1",
        charge_id="ch_1",
        checkout_id="cs_1",
    )
    movement = {"provider": "sandbox", "amount_nanos": 1, "occurred_at": order.created_at}
    PaymentMovement.objects.create(top_up=order, kind="refund_total", reference="re_1", **movement)
    PaymentMovement.objects.create(top_up=None, kind="refund_total", reference="re_2", **movement)
    PaymentDispute.objects.create(
        top_up=order, provider="sandbox", dispute_id="dp_1", status="lost", status_as_of=order.created_at
    )
    for text in ("pay_1", "ch_1", "cs_1", "re_1", "dp_1", order.reference.hex, str(order.reference), f"#{order.pk}"):
        assert f"Top-up {order.pk}" in found(operator, text) or "Pay back" in found(operator, text), text
    assert operator.get(FIND, {"q": "re_1"})["Location"] == f"/admin/billing/topup/{order.pk}/change/"
    assert "Nothing that you may see" in found(operator, "re_2")


def test_people_codes_approvals_and_webhooks(operator: Client, people: People) -> None:
    assert people.bob.email in found(operator, "bob")
    root = make_operator("root", is_superuser=True)
    wanted = {"amount_nanos": 10**9, "reason": "r", "count": 1, "max_redemptions": 1}
    asked, [new] = ask_for_codes(wanted, asked_by=root, idempotency_key="k", created_by="root")
    for text in (new.text, new.text.lower(), new.code.prefix, f"{new.code.prefix}…"):
        assert "Nobody redeems it" in found(operator, text) or new.code.prefix in found(operator, text), text
    assert str(asked.approval) in found(operator, f"#{asked.approval.pk}")
    delivery = queue_test(add_endpoint(people.organization, url="https://example.org/", created_by=people.alice)[0])
    assert operator.get(FIND, {"q": delivery.event_id})["Location"].endswith(f"/webhookdelivery/{delivery.pk}/change/")


@pytest.mark.parametrize(
    "text", ["", "nothing", "req_123", "cm-", "' OR 1=1 --", "\x00", "9" * 18, "<b>x</b>", "é" * 500]
)
def test_whatever_is_typed_is_answered(operator: Client, text: str) -> None:
    response = operator.get(FIND, {"q": text}, follow=True)
    assert response.status_code == 200
    assert "<b>x</b>" not in response.content.decode()


def test_staff_finds_only_what_it_may_open(people: People) -> None:
    event = billed_event(people.key, sell_model())
    settle([event])
    person = make_person("support", is_staff=True)
    client = client_of(person)
    assert "Nothing that you may see" in found(client, event.request_id)
    assert client.get(f"/admin/requests/{event.request_id}/").status_code == 403
    person.user_permissions.add(Permission.objects.get(codename="view_usagerecord"))
    client = client_of(type(person).objects.get(pk=person.pk))
    page = found(client, event.request_id)
    assert "Usage and price" in page
    assert "Postings" not in page
    assert people.key.name not in found(client, people.key.last_four)


def test_nobody_else_gets_in(people: People) -> None:
    for path in (FIND, f"/admin/requests/{make_request_id().hex}/"):
        assert client_of(people.alice).get(path).status_code in (302, 403)
        assert Client().get(path).status_code == 302


def test_a_request_is_sent_to_support(operator: Client, people: People) -> None:
    event = billed_event(people.key, sell_model())
    settle([event])
    page = f"/admin/requests/{event.request_id}/support/"
    form = {"note": "Was this one streamed?", "form_id": "0" * 32}
    assert "Send to support" in found(operator, event.request_id)
    assert "Nobody has the staff role support yet." in operator.post(page, form).content.decode()
    sam = make_operator("sam", StaffRole.SUPPORT)
    make_operator("fay", StaffRole.FINANCE)
    for _ in range(2):
        assert operator.post(page, form).status_code == 302
    assert operator.post(page, {**form, "note": ""}).status_code == 422
    assert send_due_mails() == 1
    [mail] = django.core.mail.outbox
    assert mail.to == [sam.email]
    for text in (f"req_{event.request_id}", "Was this one streamed?", "operator@example.org", "billed, usage provider"):
        assert text in mail.body
    assert f"/admin/requests/{event.request_id}/" in mail.body
    assert operator.post(page, {**form, "form_id": "1" * 32}).status_code == 302
    assert send_due_mails() == 1
    assert client_of(people.alice).post(page, form).status_code == 302
    assert operator.post(f"/admin/requests/{make_request_id().hex}/support/", form).status_code == 404
