"""`/webhooks/<provider>/`: only signed messages are heard, and a 2xx says that what they say is committed."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import OperationalError
from django.test import Client
from pytest_django import Settings

from billing.checks import CHECKS, run_checks
from billing.models import LedgerTransaction, PaymentBreak, TopUp
from billing.payments.orders import place_order
from tests.billing.checks.test_check_ledger import force
from tests.billing.ledger_factory import USD, assert_ledger_holds, make_organization, posted
from tests.support.payment_sandbox import SECRET, signed

pytestmark = pytest.mark.django_db
URL = "/webhooks/sandbox/"


@pytest.fixture(autouse=True)
def _sandbox_is_chosen(settings: Settings) -> None:
    settings.PAYMENT_PROVIDER = "sandbox"
    settings.PAYMENT_SANDBOX_URL = "http://127.0.0.1:1"
    settings.PAYMENT_SANDBOX_SECRET = SECRET


@pytest.fixture
def top_up() -> TopUp:
    return place_order(
        make_organization(), amount_nanos=10 * USD, provider="sandbox", idempotency_key="k", actor="alice@example.org"
    )


def paid_message(top_up: TopUp, **changes: Any) -> dict[str, Any]:
    now = int(time.time())
    checkout = {
        "id": "cs_1",
        "mode": "payment",
        "reference": top_up.reference.hex,
        "amount_cents": 1000,
        "discount_cents": 0,
        "currency": "usd",
        "status": "paid",
        "payment": "pay_1",
        "charge": "ch_1",
        "method": "Sandbox card ending in 4242",
        "created": now,
        "paid_at": now,
        "refunds": [],
        "disputes": [],
    }
    return {"id": "evt_1", "type": "checkout.paid", "created": now, "checkout": checkout | changes}


def send(body: bytes, headers: dict[str, str], url: str = URL) -> int:
    client = Client(raise_request_exception=False, enforce_csrf_checks=True)
    return client.post(url, body, content_type="application/json", headers=headers).status_code


def test_a_signed_message_credits_its_order_once(top_up: TopUp) -> None:
    assert [send(*signed(paid_message(top_up))) for _ in range(3)] == [200, 200, 200]
    assert posted(top_up.organization) == 10 * USD
    assert_ledger_holds()


@pytest.mark.parametrize("secret", ["", "another secret, of another shop"])
def test_a_message_with_another_secret_is_refused(top_up: TopUp, secret: str) -> None:
    assert send(*signed(paid_message(top_up), secret=secret)) == 400
    assert not LedgerTransaction.objects.exists()


def test_a_message_without_a_signature_or_with_another_body_is_refused(top_up: TopUp) -> None:
    body, headers = signed(paid_message(top_up))
    assert send(body, {}) == 400
    assert send(body.replace(b"1000", b"9000"), headers) == 400
    assert send(body, {"sandbox-signature": "t=,v1="}) == 400
    assert not LedgerTransaction.objects.exists()


def test_an_old_message_is_refused(top_up: TopUp) -> None:
    assert send(*signed(paid_message(top_up), at=int(time.time()) - 301)) == 400


def test_no_message_is_heard_where_there_is_no_secret(top_up: TopUp, settings: Settings) -> None:
    settings.PAYMENT_SANDBOX_SECRET = ""
    assert send(*signed(paid_message(top_up), secret="")) == 404
    assert not LedgerTransaction.objects.exists()


@pytest.mark.parametrize("url", ["/webhooks/stripe/", "/webhooks/nobody/"])
def test_a_provider_that_is_not_set_up_is_not_there(top_up: TopUp, url: str) -> None:
    assert send(*signed(paid_message(top_up)), url) == 404


def test_what_is_signed_and_no_event_is_refused() -> None:
    for message in ({}, {"type": "checkout.paid"}, {"type": [], "checkout": {}, "created": "x"}):
        assert send(*signed(message)) == 400


def test_an_unknown_kind_of_event_is_no_error(top_up: TopUp) -> None:
    assert send(*signed(paid_message(top_up) | {"type": "checkout.admired"})) == 200
    assert not LedgerTransaction.objects.exists()


def test_a_message_that_is_too_large_is_refused(top_up: TopUp) -> None:
    assert send(*signed(paid_message(top_up, padding="x" * 300_000))) == 413


def test_another_currency_is_a_break_and_never_dollars(top_up: TopUp) -> None:
    assert send(*signed(paid_message(top_up, currency="eur"))) == 200
    assert not LedgerTransaction.objects.exists()
    assert [row.kind for row in PaymentBreak.objects.all()] == ["foreign_currency"]


def test_only_posts_are_heard() -> None:
    assert Client().get(URL).status_code == 405


# --- 2xx only after the commit -------------------------------------------------------------------------------------


@pytest.fixture
def _commit_fails(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The database goes away in the middle: what was done so far is rolled back, and never was."""

    def lose_the_connection(*_: object, **__: object) -> None:
        raise OperationalError("server closed the connection unexpectedly")

    with monkeypatch.context() as patch:
        patch.setattr("billing.ledger.rows.update_balances", lose_the_connection)
        yield


@pytest.mark.usefixtures("_commit_fails")
def test_a_message_that_could_not_be_committed_is_not_accepted(top_up: TopUp) -> None:
    assert send(*signed(paid_message(top_up))) == 503
    top_up.refresh_from_db()
    assert (top_up.state, LedgerTransaction.objects.count()) == ("pending", 0)


def test_it_is_credited_when_it_is_sent_again(top_up: TopUp, request: pytest.FixtureRequest) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("billing.ledger.rows.insert_entries", lambda *_: (_ for _ in ()).throw(RuntimeError("a fault")))
        assert send(*signed(paid_message(top_up))) == 500
    assert send(*signed(paid_message(top_up))) == 200
    assert posted(top_up.organization) == 10 * USD
    assert_ledger_holds()


def test_a_2xx_before_the_commit_loses_the_payment(top_up: TopUp) -> None:
    """The negative control: answered before it was applied, a message that failed is never sent again."""

    def answer_first(event: object) -> Any:
        try:
            raise OperationalError("the commit comes later, and fails")
        except OperationalError:
            return type("Applied", (), {"changed": True})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("api.payment_webhooks.apply_event", answer_first)
        assert send(*signed(paid_message(top_up))) == 200, "so the provider would not send it again"
    top_up.refresh_from_db()
    assert (top_up.state, LedgerTransaction.objects.count()) == ("pending", 0), "paid, and not credited"


def test_without_its_unique_key_a_doubled_message_is_credited_twice_and_found(top_up: TopUp) -> None:
    """The negative control of the ledger's key: an order that forgot that it was credited is credited again."""
    forget = "UPDATE billing_topup SET state = 'pending', ledger_transaction_id = NULL, paid_nanos = NULL WHERE id = %s"
    assert send(*signed(paid_message(top_up))) == 200
    force(forget, top_up.pk)
    assert send(*signed(paid_message(top_up))) == 200
    assert posted(top_up.organization) == 10 * USD, "with its key it is credited once, whatever the order says"
    assert_ledger_holds()
    force(forget, top_up.pk)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("billing.credit.top_ups.payment_key", lambda *_: f"payment:sandbox:{1:032x}")
        assert send(*signed(paid_message(top_up))) == 200
    assert posted(top_up.organization) == 20 * USD
    assert any(line.startswith("I11") and "no order has it" in line for line in run_checks(CHECKS).breaks)
