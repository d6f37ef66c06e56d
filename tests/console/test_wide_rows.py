"""Rows with the longest words that there are, in a real Chromium: nothing is cut off."""

from datetime import UTC, datetime
from typing import Any

import pytest
from playwright.sync_api import Browser
from pytest_django.live_server_helper import LiveServer

from accounts.models import Organization
from billing.request_id import make_request_id
from billing.usage.refusals import Refusal, write_refusals
from tests.console.test_browser import DESKTOP, FIND_CROWDED, PHONE, pages_with_content, sign_in, visit
from tests.console.test_browser import browser as browser
from tests.console.test_browser import pytestmark as pytestmark


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_cost_stays_in_view_beside_many_refusals(
    browser: Browser, live_server: LiveServer, viewport: dict[str, Any]
) -> None:
    pages_with_content()
    organization = Organization.objects.get(slug="alice")
    organization.keys.update(name="Nightly evaluation of every model, production")
    key = organization.keys.get()
    write_refusals([
        Refusal(
            make_request_id().hex, organization.pk, key.pk, "messages", "anthropic/claude-sonnet-with-a-long-name",
            402, "organization_monthly_budget_exceeded", "No.", datetime.now(UTC), "user@example.org", "nightly-tag",
            repeats=1_234_567,
        )
    ])  # fmt: skip
    visitor = visit(browser, live_server, viewport=viewport)
    sign_in(visitor, "alice@example.org")
    for path in ("", "requests/"):
        visitor.go(f"/console/alice/{path}")
        assert visitor.page.get_by_text("1,234,567 more like it").is_visible()
        assert visitor.page.evaluate(FIND_CROWDED) == [], path
