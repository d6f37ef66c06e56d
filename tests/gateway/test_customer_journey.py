"""The whole way of a customer in a real browser, against a real gateway and a payment provider.

Sign up, first credit, key, call, its usage, a refusal and its reason, top-up, the same call again, the invoice.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from django.utils import timezone
from playwright.sync_api import Browser, Page, expect

from accounts.models import Organization
from billing.documents.invoices import close_month
from billing.documents.periods import month_of
from billing.models import Document, TopUp
from crossmodel_site.embedded.ports import find_free_port
from tests.console.test_browser import CHROMIUM, browser, visit
from tests.console.test_from_sign_up_to_invoice import end_the_month
from tests.support.extra_gateway import ExtraGateway, extra_gateway
from tests.support.live_stack import MODEL, LiveStack
from tests.support.payment_sandbox import SECRET, PaymentSandbox, wait_until
from tests.support.people import PASSWORD

__all__ = ["browser"]  # A fixture that is used here, too.

pytestmark = [
    pytest.mark.keeps_redis,
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM, reason="no Chromium: apt-get install chromium, or set CHROMIUM"),
]
WAIT_MS = 30_000
LARGE = 64_000  # Tokens of answer: more than the welcome credit pays for.


@pytest.fixture
def shop(stack: LiveStack) -> Iterator[ExtraGateway]:
    """A gateway that greets people with a dollar of credit and takes payments."""
    payments_port = find_free_port()
    settings = {
        "CROSSMODEL_WELCOME_CREDIT_USD": "0.25",
        "CROSSMODEL_PAYMENT_PROVIDER": "sandbox",
        "CROSSMODEL_PAYMENT_SANDBOX_URL": f"http://127.0.0.1:{payments_port}",
        "CROSSMODEL_PAYMENT_SANDBOX_SECRET": SECRET,
    }
    with (
        extra_gateway(stack, "shop", **settings) as gateway,
        PaymentSandbox(port=payments_port, webhook_url=f"{gateway.base_url}/webhooks/sandbox/"),
    ):
        yield gateway


def test_from_the_landing_page_to_a_paid_invoice(
    browser: Browser, stack: LiveStack, shop: ExtraGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    visitor = visit(browser, SimpleNamespace(url=shop.base_url))  # type: ignore[arg-type]  # It asks for the address.
    page = visitor.page
    visitor.go("/")
    sign_up(page, stack.folder / "shop-var" / "mail")
    overview = page.url
    page.get_by_role("link", name="Create an API key").click()
    page.get_by_label("Name", exact=True).fill("Laptop")
    page.get_by_role("button", name="Create key").click()
    secret = page.locator("#new-key").inner_text()
    page.get_by_role("link", name="I have copied it").click()

    page.goto(overview)
    answer = call(shop, secret, max_tokens=64)
    assert answer.status_code == 200
    expect(page.get_by_text("The first request has arrived")).to_be_visible(timeout=WAIT_MS)
    stack.wait_until_quiet()
    page.get_by_role("link", name="Usage", exact=True).click()
    expect(page.locator("main")).to_contain_text(MODEL)
    expect(page.locator("main")).to_contain_text("Laptop")

    refused = call(shop, secret, max_tokens=LARGE)
    assert refused.status_code == 402
    page.get_by_role("link", name="Requests", exact=True).click()
    page.get_by_label("Id of a request").fill(refused.headers["request-id"])
    page.get_by_label("Id of a request").press("Enter")
    expect(page.get_by_role("heading", name="Refused request")).to_be_visible()
    expect(page.locator("main")).to_contain_text(re.compile(r"The available balance is \$0\.2.* would fit"))
    page.get_by_role("link", name="Top up").click()
    page.get_by_label(re.compile("Amount")).first.fill("25")
    page.get_by_role("button", name=re.compile("payment", re.IGNORECASE)).first.click()
    page.get_by_role("button", name="Pay 25.00 USD").click()
    organization = Organization.objects.get(slug="dora-daughters")
    paid = TopUp.objects.filter(organization=organization, state=TopUp.State.PAID)
    wait_until(paid.exists, "The payment is told")
    wait_until(lambda: call(shop, secret, max_tokens=LARGE).status_code == 200, "What was refused is answered")
    stack.wait_until_quiet()

    end_the_month(monkeypatch)
    close_month(organization, month_of(timezone.now()))
    invoice = Document.objects.get(kind=Document.Kind.INVOICE, organization=organization)
    page.goto(overview)
    page.get_by_role("link", name="Billing", exact=True).click()
    page.get_by_role("link", name="Statements and invoices").click()
    page.get_by_role("link", name=invoice.label).first.click()
    expect(page.get_by_role("heading", name=re.compile(invoice.label)).first).to_be_visible()
    expect(page.locator("main")).to_contain_text(re.compile("paid", re.IGNORECASE))


def sign_up(page: Page, mails: Path) -> None:
    page.get_by_role("link", name="Create an account").click()
    page.get_by_label("E-mail address").fill("newcomer@example.org")
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_label("Password, again").fill(PASSWORD)
    page.get_by_role("button", name="Create account").click()
    found = re.search(r"^Subject: \S+ (\S+)", next(mails.iterdir()).read_text(), re.MULTILINE)
    assert found
    page.get_by_label("Code").fill(found[1])
    page.get_by_role("button", name="Confirm").click()
    page.get_by_label("Organization name").fill("Dora & Daughters")
    page.get_by_role("button", name="Create organization").click()
    page.wait_for_url("**/console/dora-daughters/")


def call(gateway: ExtraGateway, secret: str, *, max_tokens: int) -> httpx.Response:
    body = {"model": MODEL, "max_tokens": max_tokens, "messages": [{"role": "user", "content": "Hello!"}]}
    headers = {"x-api-key": secret, "anthropic-version": "2023-06-01"}
    return httpx.post(f"{gateway.base_url}/v1/messages", headers=headers, json=body, timeout=60)
