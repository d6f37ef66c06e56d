"""Each role walks through the console in a real browser: what is offered can be opened, and the rest is refused.

docs/roles.md says what a role may open. From the overview the walk follows every link, so that it also finds what a
role may open and no page leads to.
"""

from urllib.parse import urlsplit

import pytest
from django.urls import resolve
from playwright.sync_api import Browser
from pytest_django import Settings
from pytest_django.live_server_helper import LiveServer

from accounts.models import Role, User
from tests.console.test_browser import CHROMIUM, Visitor, browser, pages_with_content, sign_in, visit
from tests.support.roles import pages, who

__all__ = ["browser"]  # A fixture that is used here, too.

pytestmark = [
    pytest.mark.long,
    pytest.mark.browser,
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(not CHROMIUM, reason="no Chromium: apt-get install chromium, or set CHROMIUM"),
]

NAVIGATION = {
    "Overview": "overview",
    "API keys": "keys",
    "Usage": "usage",
    "Requests": "requests",
    "Models": "models",
    "Playground": "playground",
    "Limits and budgets": "limits",
    "Billing": "billing",
    "Members": "members",
    "Settings": "organization_settings",
}
# What no page links to: files, pieces that scripts ask for, and what is shown once.
NOT_LINKED = {"overview_steps", "requests_live", "kept_form"}
# The same page with another filter is the same page: so many of each are opened.
MOST_OF_A_PAGE = 2
FILES = ("usage_csv", "usage_export", "document_file", "statement_file", "statement_usage")
# Attributes, not properties: those of a link in a picture, or of a form with a field called `action`, are other things.
FIND_LINKS = """() => [...document.querySelectorAll("a[href]")]
    .map(link => new URL(link.getAttribute("href"), location.href).href)"""
FIND_FORMS = """() => [...document.querySelectorAll("form[method=post]")]
    .map(form => new URL(form.getAttribute("action") || "", location.href).href)"""


@pytest.mark.parametrize("role", list(Role))
def test_what_is_offered_opens_and_the_rest_is_refused(
    browser: Browser, live_server: LiveServer, settings: Settings, role: Role
) -> None:
    settings.PAYMENT_PROVIDER, settings.PAYMENT_SANDBOX_SECRET = "sandbox", "x"  # Nobody asks it for anything.
    settings.PAYMENT_SANDBOX_URL = "http://127.0.0.1:1"
    pages_with_content()
    bob = User.objects.get(email="bob@example.org")
    bob.memberships.update(role=role)
    allowed = {name for name, roles in who().items() if role in roles}
    visitor = visit(browser, live_server)
    sign_in(visitor, bob.email)
    visitor.go("/console/alice/")
    named = visitor.page.locator(".sidebar nav a").all_inner_texts()
    expected = [word for word, name in NAVIGATION.items() if name in allowed]
    assert named == (expected if "organization_settings" in allowed else [*expected, "Alerts"])
    seen = walk(visitor, allowed)
    without_ids = {name for name, (address, _) in pages().items() if address.count("<") == 1}
    readable = {name for name in without_ids & allowed if is_read(visitor, name)}
    assert readable - seen - NOT_LINKED - set(FILES) == set(), "No page leads there."
    for name in sorted(without_ids - allowed):
        answer = visitor.page.goto(live_server.url + address_of(name))
        assert answer is not None and answer.status in {403, 405}, name
        assert visitor.page.get_by_role("heading", level=1).is_visible(), name


def walk(visitor: Visitor, allowed: set[str]) -> set[str]:
    """Follow every link of the organization's pages; return the names of the pages that were found."""
    waiting, opened, found = ["/console/alice/"], {"/console/alice/"}, dict.fromkeys(allowed, 0)
    while waiting:
        path = waiting.pop(0)
        answer = visitor.page.goto(visitor.base_url + path)
        assert answer is not None and answer.status == 200, path
        for address in visitor.page.evaluate(FIND_FORMS):
            name = name_of(address)
            assert name is None or name in allowed, f"{path} has a form for {name}, which is refused"
        for address in visitor.page.evaluate(FIND_LINKS):
            name = name_of(address)
            if name is None:
                continue
            assert name in allowed, f"{path} links to {name}, which is refused"
            target = urlsplit(address)._replace(scheme="", netloc="", fragment="").geturl()
            if target not in opened and found[name] < MOST_OF_A_PAGE and name not in FILES:
                found[name] += 1
                opened.add(target)
                waiting.append(target)
    return {name for name, times in found.items() if times} | {"overview"}


def name_of(address: str) -> str | None:
    """Return the name of an address within the organization, None for every other."""
    path = urlsplit(address).path
    return resolve(path).url_name if path.startswith("/console/alice/") else None


def address_of(name: str) -> str:
    return pages()[name][0].replace("<slug>", "alice")


def is_read(visitor: Visitor, name: str) -> bool:
    """Say whether the page is opened, not only sent to."""
    return visitor.page.request.head(visitor.base_url + address_of(name)).status != 405
