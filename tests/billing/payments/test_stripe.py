"""Stripe's own library against a stand-in of Stripe, and webhooks of the documented shapes with real signatures."""

import time
from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from billing.models import PaymentBreak, PaymentDispute, PaymentRefund, TopUp
from billing.payments.automatic import run_automatic_top_ups
from billing.payments.automatic_settings import Choice, ask_for_card, choose, read_settings
from billing.payments.orders import open_payment_page
from billing.payments.provider import CheckoutRequest, PaymentProviderError, PaymentRefusedError
from billing.payments.providers import find_provider
from billing.payments.providers.stripe import StripeProvider
from billing.payments.pull import pull_orders, pull_payments
from billing.payments.refunds import complete_refund, refund_top_up
from tests.billing.ledger_factory import USD, assert_ledger_holds, make_organization, posted
from tests.billing.payments.payment_factory import order
from tests.support.stripe_stub import SECRET_KEY, WEBHOOK_SECRET, StripeStub, sign

pytestmark = pytest.mark.django_db


@pytest.fixture
def stripe(settings: Settings) -> Iterator[StripeStub]:
    with StripeStub() as stub:
        settings.PAYMENT_PROVIDER = "stripe"
        settings.STRIPE_SECRET_KEY, settings.STRIPE_WEBHOOK_SECRET = SECRET_KEY, WEBHOOK_SECRET
        settings.STRIPE_API_URL = stub.url
        yield stub
    assert_ledger_holds_but_for_breaks()


def assert_ledger_holds_but_for_breaks() -> None:
    if not PaymentBreak.objects.filter(resolved_at=None).exists():
        assert_ledger_holds()


def hear(message: tuple[bytes, dict[str, str]]) -> int:
    body, headers = message
    client = Client(raise_request_exception=False)
    return client.post("/webhooks/stripe/", body, content_type="application/json", headers=headers).status_code


def open_order(usd: int = 10) -> TopUp:
    top_up = order(make_organization(), usd, provider="stripe")
    open_payment_page(
        top_up,
        find_provider("stripe"),
        customer_email="alice@example.org",
        return_url="https://example.org/back",
        cancel_url="https://example.org/",
    )
    top_up.refresh_from_db()
    return top_up


def test_a_session_is_opened_for_the_order_once_in_dollars(stripe: StripeStub) -> None:
    top_up = open_order()
    [asked] = stripe.requests
    assert (asked.method, asked.path) == ("POST", "/v1/checkout/sessions")
    assert asked.headers["authorization"] == f"Bearer {SECRET_KEY}"
    assert asked.headers["idempotency-key"] == f"crossmodel-checkout-{top_up.reference.hex}"
    assert asked.fields == {
        "mode": "payment",
        "line_items[0][quantity]": "1",
        "line_items[0][price_data][currency]": "usd",
        "line_items[0][price_data][unit_amount]": "1000",
        "line_items[0][price_data][product_data][name]": f"Top-up {top_up.pk}",
        "payment_intent_data[metadata][reference]": top_up.reference.hex,
        "payment_intent_data[description]": f"Top-up {top_up.pk}",
        "adaptive_pricing[enabled]": "false",
        "client_reference_id": top_up.reference.hex,
        "metadata[reference]": top_up.reference.hex,
        "customer_email": "alice@example.org",
        "success_url": "https://example.org/back",
        "cancel_url": "https://example.org/",
    }
    assert top_up.checkout_id.startswith("cs_test_")
    TopUp.objects.filter(pk=top_up.pk).update(checkout_url="", checkout_id="")  # We died before it was kept.
    top_up.refresh_from_db()
    again = open_payment_page(
        top_up,
        find_provider("stripe"),
        customer_email="alice@example.org",
        return_url="https://example.org/back",
        cancel_url="https://example.org/",
    )
    assert len({again, *(row["url"] for row in stripe.objects.values())}) == 1


def test_a_completed_session_that_is_paid_credits_the_order(stripe: StripeStub) -> None:
    top_up = open_order()
    session = stripe.pay(top_up.checkout_id)
    message = stripe.event("checkout.session.completed", session)
    assert [hear(message), hear(message)] == [200, 200]
    top_up.refresh_from_db()
    assert (top_up.state, top_up.payment_id, posted(top_up.organization)) == (
        "paid",
        session["payment_intent"],
        10 * USD,
    )


def test_a_charge_that_is_told_before_its_session_is_known_by_its_reference(stripe: StripeStub) -> None:
    top_up = open_order()
    session = stripe.pay(top_up.checkout_id)
    charge = next(row for row in stripe.objects.values() if row["object"] == "charge")
    assert hear(stripe.event("charge.succeeded", charge)) == 200
    assert hear(stripe.event("checkout.session.completed", session)) == 200
    top_up.refresh_from_db()
    assert (top_up.charge_id, top_up.payment_method) == (charge["id"], "Visa ending in 4242")


@pytest.mark.parametrize("ending", ["succeeded", "failed"])
def test_a_bank_debit_waits_for_its_ending(stripe: StripeStub, ending: str) -> None:
    top_up = open_order()
    session = stripe.pay(top_up.checkout_id, status="unpaid")
    assert hear(stripe.event("checkout.session.completed", session)) == 200
    top_up.refresh_from_db()
    assert top_up.state == "pending"
    assert top_up.processing_since is not None
    if ending == "succeeded":
        stripe.charge(session["payment_intent"])
        session["payment_status"] = "paid"
    assert hear(stripe.event(f"checkout.session.async_payment_{ending}", session)) == 200
    top_up.refresh_from_db()
    assert top_up.state == {"succeeded": "paid", "failed": "failed"}[ending]


def test_a_session_of_nothing_and_a_discounted_one_complete(stripe: StripeStub) -> None:
    free, cheaper = open_order(), open_order()
    hear(
        stripe.event("checkout.session.completed", stripe.pay(free.checkout_id, status="no_payment_required", total=0))
    )
    hear(stripe.event("checkout.session.completed", stripe.pay(cheaper.checkout_id, total=700)))
    assert [posted(top_up.organization) for top_up in (free, cheaper)] == [10 * USD, 10 * USD]
    assert list(TopUp.objects.order_by("id").values_list("paid_nanos", flat=True)) == [0, 7 * USD]


def test_an_expired_session_fails_and_one_declined_card_does_not(stripe: StripeStub) -> None:
    top_up = open_order()
    declined = stripe.keep(
        "pi", object="payment_intent", status="requires_payment_method", metadata={"reference": top_up.reference.hex}
    )
    assert hear(stripe.event("payment_intent.payment_failed", declined)) == 200
    top_up.refresh_from_db()
    assert top_up.state == "pending"
    expired = stripe.objects[top_up.checkout_id] | {"status": "expired"}
    assert hear(stripe.event("checkout.session.expired", expired)) == 200
    top_up.refresh_from_db()
    assert top_up.state == "failed"


def test_refunds_are_cumulative_and_a_failed_one_comes_back(stripe: StripeStub) -> None:
    top_up = open_order()
    hear(stripe.event("checkout.session.completed", stripe.pay(top_up.checkout_id)))
    charge = next(row for row in stripe.objects.values() if row["object"] == "charge")
    now = int(time.time())
    hear(stripe.event("charge.refunded", charge | {"amount_refunded": 300}, created=now + 1))
    second = stripe.refund(charge["id"], 500)
    hear(stripe.event("charge.refunded", charge | {"amount_refunded": 500}, created=now + 2))
    hear(stripe.event("charge.refunded", charge | {"amount_refunded": 300}, created=now + 1))
    assert posted(top_up.organization) == 5 * USD
    hear(stripe.event("refund.failed", second | {"amount": 200, "status": "failed"}, created=now + 9))
    assert posted(top_up.organization) == 7 * USD


def test_a_dispute_is_found_by_its_charge_and_only_funds_move_money(stripe: StripeStub) -> None:
    top_up = open_order()
    hear(stripe.event("checkout.session.completed", stripe.pay(top_up.checkout_id)))
    charge = next(row for row in stripe.objects.values() if row["object"] == "charge")
    hear(stripe.event("charge.succeeded", charge))
    dispute = stripe.dispute(charge["id"]) | {"payment_intent": None}
    assert hear(stripe.event("charge.dispute.created", dispute)) == 200
    assert posted(top_up.organization) == 10 * USD
    hear(stripe.event("charge.dispute.funds_withdrawn", dispute))
    assert posted(top_up.organization) == 0
    hear(stripe.event("charge.dispute.closed", dispute | {"status": "won"}, created=int(time.time()) + 5))
    assert posted(top_up.organization) == 0
    hear(stripe.event("charge.dispute.funds_reinstated", dispute))
    assert posted(top_up.organization) == 10 * USD
    assert PaymentDispute.objects.get().status == "won"


def test_another_currency_is_a_break(stripe: StripeStub) -> None:
    top_up = open_order()
    session = stripe.pay(top_up.checkout_id) | {"currency": "eur"}
    assert hear(stripe.event("checkout.session.completed", session)) == 200
    top_up.refresh_from_db()
    assert top_up.state == "pending"
    assert [row.kind for row in PaymentBreak.objects.all()] == ["foreign_currency"]


def test_what_another_shop_of_the_same_account_sells_is_passed_over(stripe: StripeStub) -> None:
    top_up = open_order()
    for metadata in ({}, {"reference": "order 17"}, None):
        session = stripe.pay(top_up.checkout_id) | {"metadata": metadata}
        assert hear(stripe.event("checkout.session.completed", session)) == 200
    assert hear(stripe.event("customer.created", {"id": "cus_1", "object": "customer"})) == 200
    assert not PaymentBreak.objects.exists()
    top_up.refresh_from_db()
    assert top_up.state == "pending"


def test_signatures_are_judged_by_stripes_library(stripe: StripeStub) -> None:
    top_up = open_order()
    body, _ = stripe.event("checkout.session.completed", stripe.pay(top_up.checkout_id))
    wrong = sign(body, secret="whsec_of_somebody_else")
    old = sign(body, at=int(time.time()) - 400)
    for headers in ({}, {"stripe-signature": wrong}, {"stripe-signature": old}, {"stripe-signature": "t=1,v1="}):
        assert hear((body, headers)) == 400
    assert hear((body.replace(b"1000", b"9000"), {"stripe-signature": sign(body)})) == 400
    top_up.refresh_from_db()
    assert top_up.state == "pending"
    with pytest.raises(ValueError, match="empty one would let everybody in"):
        StripeProvider(SECRET_KEY, "")


def test_asking_stripe_finds_a_payment_its_refund_and_its_dispute(stripe: StripeStub) -> None:
    top_up = open_order()
    stripe.pay(top_up.checkout_id)
    assert pull_orders(now=timezone.now() + timedelta(minutes=5)).credited == [top_up]
    charge = next(row for row in stripe.objects.values() if row["object"] == "charge")
    stripe.refund(charge["id"], 400)
    pull_orders(now=timezone.now() + timedelta(days=2))
    assert posted(top_up.organization) == 6 * USD
    stripe.dispute(charge["id"]) | {"amount": 600}
    pull_orders(now=timezone.now() + timedelta(days=4))
    top_up.refresh_from_db()
    assert (posted(top_up.organization), top_up.state) == (0, "refunded")


def test_stripes_list_is_gone_through_page_by_page(stripe: StripeStub) -> None:
    orders = [open_order(5) for _ in range(5)]
    for top_up in orders[:4]:
        stripe.pay(top_up.checkout_id)
    stripe.pay(orders[4].checkout_id, status="no_payment_required", total=0)
    now = timezone.now()
    pulled = pull_payments("stripe", now - timedelta(days=1), now + timedelta(days=1))
    assert {top_up.pk for top_up in pulled.credited} == {top_up.pk for top_up in orders}


def test_an_operators_refund_is_asked_for_once(stripe: StripeStub) -> None:
    top_up = open_order()
    stripe.pay(top_up.checkout_id)
    pull_orders(now=timezone.now() + timedelta(minutes=5))
    top_up.refresh_from_db()
    refund_top_up(top_up, amount_nanos=4 * USD, reason="Asked", actor="bob", idempotency_key="k")
    assert posted(top_up.organization) == 6 * USD
    asked = stripe.requests[-1]
    key = asked.fields.pop("metadata[refund]")
    assert asked.fields == {"amount": "400", "charge": top_up.charge_id, "expand[0]": "charge"}
    assert asked.headers["idempotency-key"].startswith(f"crossmodel-refund-{top_up.reference.hex}-")
    for _ in range(3):  # More than a page of the list.
        stripe.refund(top_up.charge_id, 100)
    PaymentRefund.objects.update(done_at=None)
    posts = [one.path for one in stripe.requests if one.method == "POST"]
    assert complete_refund(PaymentRefund.objects.get()).done_at is not None
    assert posts == [one.path for one in stripe.requests if one.method == "POST"], "its list has it"
    provider = find_provider("stripe")
    assert provider.find_refund(charge_id=top_up.charge_id, payment_id="", key=key) is not None
    assert provider.find_refund(charge_id=top_up.charge_id, payment_id="", key="another") is None


def turn_on(top_up: TopUp, stripe: StripeStub, method: str) -> None:
    """Keep a card through Stripe's page in setup mode, as its webhook tells, and turn automatic top-up on."""
    reference = ask_for_card(top_up.organization).card_reference
    request = CheckoutRequest(reference, 0, "Card", "alice@example.org", "https://a.example/", "https://a.example/")
    page = find_provider("stripe").open_card_page(request, customer_id="")
    stripe.keep("x", object="payment_method")
    card = {"id": method, "type": "card", "card": {"brand": "mastercard", "last4": "4444"}}
    stripe.objects[method] = card
    intent = stripe.keep("seti", object="setup_intent", payment_method=method)
    session = stripe.objects[page.checkout_id] | {"status": "complete", "setup_intent": intent["id"]}
    assert hear(stripe.event("checkout.session.completed", session)) == 200
    stored = read_settings(top_up.organization)
    assert (stored.customer_id, stored.method_id, stored.method_label) == ("cus_1", method, "Mastercard ending in 4444")
    choose(top_up.organization, Choice(True, 10 * USD, 20 * USD, 100 * USD, 500 * USD, 3, 10), actor="alice")


def test_a_kept_card_is_charged_off_session(stripe: StripeStub) -> None:
    top_up = open_order()
    turn_on(top_up, stripe, "pm_card_visa")
    assert run_automatic_top_ups().placed == 1
    automatic = TopUp.objects.get(origin="automatic")
    assert (automatic.state, posted(top_up.organization)) == ("paid", 20 * USD)
    asked = stripe.requests[-1].fields
    assert (asked["off_session"], asked["confirm"], asked["customer"]) == ("true", "true", "cus_1")
    intent = stripe.objects[automatic.payment_id]
    assert hear(stripe.event("payment_intent.succeeded", intent)) == 200
    assert posted(top_up.organization) == 20 * USD, "told again by webhook, it changes nothing"


def test_a_declined_card_fails_the_order_with_stripes_words(stripe: StripeStub) -> None:
    top_up = open_order()
    turn_on(top_up, stripe, "pm_card_chargeDeclined")
    run_automatic_top_ups()
    automatic = TopUp.objects.get(origin="automatic")
    assert (automatic.state, automatic.failure) == ("failed", "Your card was declined.")


def test_stripe_away_or_broken_is_no_answer_and_a_refusal_is_one(stripe: StripeStub) -> None:
    top_up = order(make_organization(), provider="stripe")
    request = CheckoutRequest(top_up.reference, 10 * USD, "x", "a@example.org", "https://a/", "https://a/")
    provider = find_provider("stripe")
    for status in (500, 503, 429, 401):
        stripe.answers.append((status, {"error": {"type": "api_error", "message": "no"}}))
        with pytest.raises(PaymentProviderError):
            provider.open_checkout(request)
    stripe.answers.append((400, {"error": {"type": "invalid_request_error", "message": "Not a valid URL"}}))
    with pytest.raises(PaymentRefusedError, match="Not a valid URL"):
        provider.open_checkout(request)
    gone = StripeProvider(SECRET_KEY, WEBHOOK_SECRET, api_url="http://127.0.0.1:1")
    with pytest.raises(PaymentProviderError):
        gone.open_checkout(request)
