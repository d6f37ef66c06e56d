"""Amounts below each other have the same number of decimals, however large and small they are, on every page."""

from datetime import UTC, datetime, timedelta

from playwright.sync_api import Browser
from pytest_django import Settings
from pytest_django.live_server_helper import LiveServer

from accounts.keys import create_key
from accounts.models import Organization, User
from billing.credit.top_ups import grant_credit
from billing.models import CreditLot, PriceVersion
from billing.payments.orders import place_order
from tests.console.test_browser import MORE_PATHS, pages_with_content, sign_in, visit
from tests.console.test_browser import browser as browser
from tests.console.test_browser import pytestmark as pytestmark
from tests.support.settled_usage import billed_event, settle

USD = 1_000_000_000

# Of every column of every table: how many decimals its amounts have, where that is not one number.
FIND_RAGGED = r"""() => [...document.querySelectorAll("table, dl.equation, .chart-axis")].flatMap(table => {
  const amountsBy = {};
  const cells = table.matches("table")
    ? [...table.querySelectorAll("tbody td")].map(cell => [cell.cellIndex, cell])
    : [...table.querySelectorAll("dd, span")].map(cell => [0, cell]);
  for (const [column, cell] of cells) {
    const decimals = /^[+\u2212]?\$[\d,]+\.(\d+)$/.exec(cell.textContent.trim())?.[1].length;
    if (decimals) (amountsBy[column] ??= new Set()).add(decimals);
  }
  return Object.entries(amountsBy).filter(([, found]) => found.size > 1)
    .map(([column, found]) => `${table.querySelector("caption")?.textContent} ${column}: ${[...found]}`);
})"""


def test_amounts_of_one_column_have_the_same_decimals(
    browser: Browser, live_server: LiveServer, settings: Settings
) -> None:
    settings.PAYMENT_PROVIDER, settings.PAYMENT_SANDBOX_SECRET = "sandbox", "x"  # Nobody asks it for anything.
    settings.PAYMENT_SANDBOX_URL = "http://127.0.0.1:1"
    paths = pages_with_content()
    organization, version = Organization.objects.get(slug="alice"), PriceVersion.objects.get()
    owner = User.objects.get(email="alice@example.org")
    for number, amount in enumerate((1, 500_000, 12 * USD, 1_000_000 * USD + 123_456)):
        grant_credit(
            organization,
            amount_nanos=amount,
            kind=CreditLot.Kind.PAID,
            reason="because",
            actor="a",
            idempotency_key=str(number),
        )
        key, _ = create_key(organization, name=f"Key {number}", created_by=owner, fields={"daily_budget_nanos": USD})
        at = datetime.now(UTC) - timedelta(minutes=number)
        settle([billed_event(key, version, input_tokens=1000**number, output_tokens=0, at=at)])
        paid = (10 + number) * USD
        place_order(organization, amount_nanos=paid, provider="sandbox", idempotency_key=str(number), actor=owner.email)
    visitor = visit(browser, live_server)
    sign_in(visitor, owner.email)
    for path in [*paths, *MORE_PATHS, "/console/alice/billing/documents/", "/console/alice/usage/?group=key"]:
        visitor.go(path)
        visitor.page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
        assert visitor.page.evaluate(FIND_RAGGED) == [], path
