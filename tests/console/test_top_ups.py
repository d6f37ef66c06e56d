"""Paying from the console, with the sandbox payment provider over real HTTP and its webhooks to a real server."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone
from playwright.sync_api import Browser, expect
from pytest_django import Settings
from pytest_django.live_server_helper import LiveServer

from accounts.models import Role
from billing.models import AutomaticTopUp, TopUp
from billing.payments.automatic_settings import read_settings
from billing.payments.events import apply_event
from billing.payments.provider import CardSaved, PaymentRefusedError, SavedCard
from console.views import top_ups
from crossmodel_site.embedded.ports import find_free_port
from tests.billing.ledger_factory import USD, assert_ledger_holds, posted
from tests.billing.payments.payment_factory import NOON, buy, order, refunded
from tests.console.test_browser import CHROMIUM, browser, sign_in, visit
from tests.support.payment_sandbox import SECRET, PaymentSandbox, wait_until
from tests.support.people import People, client_of

__all__ = ["browser"]  # A fixture that is used here, too.

PAGE = "/console/alice/billing/top-ups/"


@pytest.fixture(scope="module")
def sandbox_process() -> Iterator[PaymentSandbox]:
    with PaymentSandbox() as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(sandbox_process: PaymentSandbox, settings: Settings) -> PaymentSandbox:
    choose_sandbox(settings, sandbox_process.url)
    sandbox_process.control(down=False, webhooks="")
    return sandbox_process


def choose_sandbox(settings: Settings, url: str) -> None:
    settings.PAYMENT_PROVIDER = "sandbox"
    settings.PAYMENT_SANDBOX_URL = url
    settings.PAYMENT_SANDBOX_SECRET = SECRET


@pytest.fixture
def alice(people: People) -> Client:
    return client_of(people.alice)


def key_of(client: Client) -> str:
    key: str = client.get(PAGE).context["form"]["key"].value()
    return key


def test_the_form_makes_an_order_and_leads_to_its_payment_page(
    alice: Client, people: People, sandbox: PaymentSandbox
) -> None:
    response = alice.post(PAGE, {"amount_nanos": "25", "key": key_of(alice)})
    top_up = TopUp.objects.get()
    assert (top_up.organization, top_up.amount_nanos, top_up.created_by) == (
        people.organization,
        25 * USD,
        "alice@example.org",
    )
    assert response.status_code == 302
    assert response.headers["location"] == top_up.checkout_url
    assert top_up.checkout_url.startswith(f"{sandbox.url}/pay/")


def test_a_double_submit_is_one_order_and_one_page(alice: Client, sandbox: PaymentSandbox) -> None:
    form = {"amount_nanos": "25", "key": key_of(alice)}
    assert alice.post(PAGE, form).headers["location"] == alice.post(PAGE, form).headers["location"]
    assert TopUp.objects.count() == 1
    assert alice.post(PAGE, form | {"amount_nanos": "26"}).status_code == 422
    assert TopUp.objects.count() == 1


def test_each_form_has_a_key_of_its_own(alice: Client, sandbox: PaymentSandbox) -> None:
    assert key_of(alice) != key_of(alice)


@pytest.mark.parametrize("amount", ["", "4.99", "10000.01", "-5", "5.001", "5e9", "NaN", "Infinity", "1e999999", "ten"])
def test_a_wrong_amount_is_told_beside_the_field(alice: Client, sandbox: PaymentSandbox, amount: str) -> None:
    response = alice.post(PAGE, {"amount_nanos": amount, "key": key_of(alice)})
    assert response.status_code == 422
    assert response.context["form"].errors["amount_nanos"]
    assert not TopUp.objects.exists()


def test_only_those_who_see_billing_may_pay_and_nobody_sees_anothers(people: People, sandbox: PaymentSandbox) -> None:
    for role in (Role.VIEWER, Role.DEVELOPER):
        people.give_bob(role)
        assert client_of(people.bob).get(PAGE).status_code == 403
    people.give_bob(Role.BILLING)
    bob = client_of(people.bob)
    assert bob.post(PAGE, {"amount_nanos": "25", "key": key_of(bob)}).status_code == 302
    address = f"{PAGE}{TopUp.objects.get().pk}/"
    assert bob.get(address).status_code == 200
    charlie = client_of(people.charlie)
    assert charlie.get(address).status_code == 404
    assert charlie.get(address.replace("/alice/", "/charlie/")).status_code == 404
    assert charlie.post(address.replace("/alice/", "/charlie/")).status_code == 404


def test_a_provider_that_is_down_is_told_and_the_same_form_goes_on(alice: Client, sandbox: PaymentSandbox) -> None:
    form = {"amount_nanos": "25", "key": key_of(alice)}
    sandbox.control(down=True)
    response = alice.post(PAGE, form)
    assert response.status_code == 503
    assert "nothing was paid" in response.content.decode()
    sandbox.control(down=False)
    assert alice.post(PAGE, form).status_code == 302
    assert TopUp.objects.count() == 1


def test_a_provider_that_is_gone_is_told(alice: Client, settings: Settings) -> None:
    choose_sandbox(settings, f"http://127.0.0.1:{find_free_port()}")
    assert alice.post(PAGE, {"amount_nanos": "25", "key": key_of(alice)}).status_code == 503


def test_without_a_provider_there_is_no_form(alice: Client, settings: Settings) -> None:
    settings.PAYMENT_PROVIDER = "none"
    assert "not set up here" in alice.get(PAGE).content.decode()
    assert alice.post(PAGE, {"amount_nanos": "25", "key": "k"}).status_code == 422
    assert not TopUp.objects.exists()


def test_the_return_page_says_that_nothing_is_known_yet(alice: Client, people: People, sandbox: PaymentSandbox) -> None:
    """The customer is back before the webhook: the page tells the truth, and looks again by itself."""
    checkout = alice.post(PAGE, {"amount_nanos": "25", "key": key_of(alice)}).headers["location"]
    back = sandbox.choose(checkout, "pay")
    page = alice.get(back.removeprefix("http://localhost:8000")).content.decode()
    assert "has not told us yet" in page
    assert 'http-equiv="refresh"' in page
    assert not TopUp.objects.filter(state="paid").exists()


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ({}, "Not paid yet"),
        ({"processing_since": NOON}, "On its way"),
        ({"state": "failed", "failed_at": NOON, "failure": "It bounced."}, "Failed"),
    ],
)
def test_the_state_of_an_order_is_one_word(alice: Client, people: People, values: dict[str, Any], shown: str) -> None:
    top_up = order(people.organization, provider="sandbox")
    TopUp.objects.filter(pk=top_up.pk).update(**values)
    assert state_shown(alice, top_up) == shown


def test_what_was_taken_back_stands_beside_the_state(alice: Client, people: People) -> None:
    top_up = buy(people.organization)
    assert state_shown(alice, top_up) == "Paid"
    apply_event(refunded(top_up, 4))
    assert state_shown(alice, top_up) == "Paid 4.00 USD taken back"
    apply_event(refunded(top_up, 10, seconds=20))
    assert state_shown(alice, top_up) == "Refunded"


def state_shown(client: Client, top_up: TopUp) -> str:
    """Return the words beside the amount, as a person reads them."""
    page = client.get(f"{PAGE}{top_up.pk}/").content.decode()
    line = page.partition('<p class="top-up-amount">')[2].partition("</p>")[0]
    return " ".join(re.sub(r"<[^>]+>", " ", line).split()).partition(" ")[2].replace("$", "")


def test_pages_whose_forms_lead_away_say_so_in_their_policy_and_others_do_not(
    alice: Client, sandbox: PaymentSandbox
) -> None:
    policy = alice.get(PAGE).headers["content-security-policy"]
    assert policy.endswith(f"form-action 'self' https://checkout.stripe.com {sandbox.url}")
    assert alice.get("/console/alice/billing/").headers["content-security-policy"].endswith("form-action 'self'")


AUTOMATIC = "/console/alice/billing/automatic/"
SETTINGS = {
    "threshold_nanos": "10",
    "amount_nanos": "20",
    "max_day_nanos": "100",
    "max_day_count": "3",
    "max_month_nanos": "500",
    "max_month_count": "10",
}


def test_automatic_top_up_is_off_until_its_own_form_turns_it_on(
    alice: Client, people: People, sandbox: PaymentSandbox
) -> None:
    assert alice.get(AUTOMATIC).context["form"]["is_on"].value() is False
    assert alice.post(AUTOMATIC, SETTINGS | {"is_on": "on"}).status_code == 422, "there is no card yet"
    page = alice.post(f"{AUTOMATIC}card/").headers["location"]
    sandbox.choose(page, "pay")
    waits = alice.get(f"{AUTOMATIC}?returned").content.decode()
    assert "has not told us of your card yet" in waits and 'http-equiv="refresh"' in waits
    reference = read_settings(people.organization).card_reference
    apply_event(CardSaved("sandbox", reference, SavedCard("cus_1", "pm_1", "Card ending in 4242"), timezone.now()))
    kept = alice.get(f"{AUTOMATIC}?returned").content.decode()
    assert "Card ending in 4242" in kept and 'http-equiv="refresh"' not in kept
    assert read_settings(people.organization).is_on is False, "a card turns nothing on"
    alice.post(PAGE, {"amount_nanos": "25", "key": key_of(alice), "is_on": "on", **SETTINGS})
    alice.post("/console/alice/billing/", {"code": "x", "is_on": "on"})
    assert read_settings(people.organization).is_on is False, "and no other form"
    assert alice.post(AUTOMATIC, SETTINGS | {"is_on": "on"}).status_code == 302
    stored = read_settings(people.organization)
    assert (stored.is_on, stored.amount_nanos, stored.changed_by) == (True, 20 * USD, "alice@example.org")
    assert alice.post(AUTOMATIC, SETTINGS).status_code == 302
    assert read_settings(people.organization).is_on is False


@pytest.mark.parametrize("changes", [{"amount_nanos": "1e30"}, {"max_day_count": "0"}, {"threshold_nanos": "-1"}])
def test_automatic_settings_that_make_no_sense_are_told(
    alice: Client, people: People, sandbox: PaymentSandbox, changes: dict[str, str]
) -> None:
    assert alice.post(AUTOMATIC, SETTINGS | changes).status_code == 422
    assert not AutomaticTopUp.objects.exists()


def test_an_order_that_cannot_be_paid_now_says_why(
    alice: Client, sandbox: PaymentSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox.control(down=True)
    assert alice.post(PAGE, {"amount_nanos": "25", "key": key_of(alice)}).status_code == 503
    page = f"{PAGE}{TopUp.objects.get().pk}/"
    response = alice.post(page)
    assert (response.status_code, "cannot be reached right now" in response.content.decode()) == (503, True)

    def refuse(*_: object, **__: object) -> str:
        raise PaymentRefusedError("no such country")

    monkeypatch.setattr(top_ups, "open_payment_page", refuse)
    text = alice.post(page).content.decode()
    assert "The payment provider refused: no such country" in text
    assert "cannot be reached" not in text


def test_a_provider_that_is_down_keeps_no_card(alice: Client, sandbox: PaymentSandbox) -> None:
    sandbox.control(down=True)
    response = alice.post(f"{AUTOMATIC}card/", follow=True)
    assert "cannot be reached right now" in response.content.decode()


@pytest.mark.browser
@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif(not CHROMIUM, reason="no Chromium: apt-get install chromium, or set CHROMIUM")
def test_paying_in_a_browser(browser: Browser, live_server: LiveServer, people: People, settings: Settings) -> None:
    """Double click, decline, pay, the page that waits, the back button; then a debit that bounces, and a dispute."""
    settings.BASE_URL = live_server.url
    with PaymentSandbox(webhook_url=f"{live_server.url}/webhooks/sandbox/") as sandbox:
        choose_sandbox(settings, sandbox.url)
        sandbox.control(webhooks="late")
        visitor = visit(browser, live_server)
        page = visitor.page
        sign_in(visitor, "alice@example.org")
        visitor.go("/console/alice/billing/")
        page.get_by_role("link", name="Top up").click()
        page.get_by_label("Amount").fill("25")
        page.get_by_role("button", name="Continue to payment").dblclick()
        page.wait_for_url(f"{sandbox.url}/pay/**")
        page.get_by_role("button", name="Pay with a card that is declined").click()
        page.get_by_role("button", name="Try again").click()
        page.get_by_role("button", name="Pay 25.00 USD").click()
        page.wait_for_url("**/top-ups/**")
        expect(page.get_by_text("has not told us yet")).to_be_visible()
        expect(page.get_by_text("is part of the balance")).to_be_visible(timeout=30_000)
        page.go_back()
        expect(page.get_by_text("This is paid.")).to_be_visible()
        assert [(top_up.state, top_up.amount_nanos) for top_up in TopUp.objects.all()] == [("paid", 25 * USD)]
        assert posted(people.organization) == 25 * USD

        sandbox.control(webhooks="double")
        visitor.go(PAGE)
        page.get_by_label("Amount").fill("50")
        page.get_by_role("button", name="Continue to payment").click()
        page.wait_for_url(f"{sandbox.url}/pay/**")
        page.get_by_role("button", name="bank debit").click()
        page.wait_for_url("**/top-ups/**")
        expect(page.get_by_text("is on its way since")).to_be_visible(timeout=30_000)
        debit = TopUp.objects.latest("id")
        sandbox.step(debit.checkout_id, "bounce")
        wait_until(lambda: TopUp.objects.filter(pk=debit.pk, state="failed").exists(), "The debit fails")
        page.reload()
        expect(page.get_by_text("The bank returned the debit.")).to_be_visible()

        paid = TopUp.objects.earliest("id")
        sandbox.step(paid.checkout_id, "dispute")
        wait_until(lambda: TopUp.objects.filter(pk=paid.pk, state="refunded").exists(), "The dispute takes it back")
        sandbox.wait_until_heard()
        assert posted(people.organization) == 0
        assert_ledger_holds()
