"""The whole way of a customer in a real browser: sign up, pay, use, and find the paid invoice of the month."""

import re
from datetime import timedelta
from typing import Any

import pytest
from django.core import mail
from django.core.management import call_command
from django.utils import timezone
from playwright.sync_api import Browser, expect
from pytest_django import Settings
from pytest_django.live_server_helper import LiveServer

from accounts.models import ApiKey
from billing.bulk_rows import fetch_all
from billing.models import Document, TopUp
from tests.billing.ledger_factory import assert_ledger_holds
from tests.console.test_browser import CHROMIUM, browser, visit
from tests.support.payment_sandbox import SECRET, PaymentSandbox, wait_until
from tests.support.people import PASSWORD
from tests.support.settled_usage import billed_event, sell_model, settle

__all__ = ["browser"]  # A fixture that is used here, too.

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium"),
    pytest.mark.django_db(transaction=True),
]


def test_from_sign_up_to_a_paid_invoice(
    browser: Browser, live_server: LiveServer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.WELCOME_CREDIT_USD = "0"
    version = sell_model("acme/large")
    with PaymentSandbox(webhook_url=f"{live_server.url}/webhooks/sandbox/") as sandbox:
        settings.PAYMENT_PROVIDER, settings.PAYMENT_SANDBOX_SECRET = "sandbox", SECRET
        settings.PAYMENT_SANDBOX_URL = sandbox.url
        settings.BASE_URL = live_server.url
        visitor = visit(browser, live_server)
        page = visitor.page
        visitor.go("/")
        page.get_by_role("link", name="Create an account").click()
        page.get_by_label("E-mail address").fill("dora@example.org")
        page.get_by_label("Password", exact=True).fill(PASSWORD)
        page.get_by_label("Password, again").fill(PASSWORD)
        page.get_by_role("button", name="Create account").click()
        page.get_by_label("Code").fill(mail.outbox[-1].subject.split()[1])
        page.get_by_role("button", name="Confirm").click()
        page.get_by_label("Organization name").fill("Dora & Daughters")
        page.get_by_role("button", name="Create organization").click()
        page.wait_for_url("**/console/dora-daughters/")

        page.get_by_role("link", name="Create an API key").click()
        page.get_by_label("Name", exact=True).fill("Laptop")
        page.get_by_role("button", name="Create key").click()
        page.get_by_role("link", name="I have copied it").click()

        page.get_by_role("link", name="Billing", exact=True).click()
        page.get_by_role("link", name="Top up").first.click()
        page.get_by_label(re.compile("Amount")).first.fill("25")
        page.get_by_role("button", name=re.compile("payment", re.IGNORECASE)).first.click()
        page.get_by_role("button", name="Pay 25.00 USD").click()
        wait_until(lambda: TopUp.objects.filter(state=TopUp.State.PAID).exists(), "The payment is told")
        page.goto(f"{live_server.url}/console/dora-daughters/billing/")
        expect(page.get_by_text("$25.00").first).to_be_visible()

    key = ApiKey.objects.get()
    settle([billed_event(key, version, input_tokens=1_000_000, output_tokens=100_000)])
    visitor.go("/console/dora-daughters/usage/")
    expect(page.get_by_text("$4.50").first).to_be_visible()

    end_the_month(monkeypatch)
    call_command("close_month")
    invoice = Document.objects.get(kind=Document.Kind.INVOICE)
    visitor.go(f"/console/dora-daughters/billing/documents/{invoice.label}/")
    expect(page.get_by_role("heading", name=re.compile(invoice.label)).first).to_be_visible()
    text = page.locator("main").inner_text()
    for words in ("Input", "Output", "4.50", "paid"):
        assert words.lower() in text.lower()
    assert_ledger_holds()


def end_the_month(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the clock that closing asks stand in the next month."""
    next_month = (timezone.now().replace(day=1) + timedelta(days=32)).replace(day=1, hour=1)

    def fetch(sql: str, parameters: Any = None) -> list[Any]:
        return [(next_month,)] if sql == "SELECT clock_timestamp()" else fetch_all(sql, parameters)

    for module in ("closing", "invoices"):
        monkeypatch.setattr(f"billing.documents.{module}.fetch_all", fetch)
