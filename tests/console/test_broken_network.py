"""Pages that ask for more while they are open: when nothing comes any more, their reader is told so."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from playwright.sync_api import Browser, Locator, Page, expect
from playwright.sync_api import Route as NetworkRoute
from pytest_django.live_server_helper import LiveServer

from accounts.models import ApiKey, Member
from billing.models import PriceVersion
from tests.console.test_browser import Visitor, pages_with_content, sign_in, visit
from tests.console.test_browser import browser as browser
from tests.console.test_browser import pytestmark as in_a_browser
from tests.support.people import make_people
from tests.support.settled_usage import billed_event, settle

pytestmark = [*in_a_browser, pytest.mark.long]

WAIT_MS = 30_000  # The list asks every three seconds.
ROWS = 5


def open_requests(browser: Browser, live_server: LiveServer) -> Visitor:
    """Open a list of several requests."""
    pages_with_content()
    key, version = ApiKey.objects.get(name="Backend"), PriceVersion.objects.get()
    settle([billed_event(key, version, at=datetime.now(UTC) - timedelta(minutes=n)) for n in range(1, ROWS)])
    visitor = visit(browser, live_server)
    sign_in(visitor, "alice@example.org")
    visitor.go("/console/alice/requests/")
    return visitor


def told(page: Page) -> Locator:
    return page.locator("#following .notice:visible")


def rows(page: Page) -> Locator:
    return page.locator("#request-rows .row-link")


def test_a_lost_connection_is_told_and_forgotten_once_it_is_back(browser: Browser, live_server: LiveServer) -> None:
    page = open_requests(browser, live_server).page
    shown = rows(page).count()
    page.route("**/requests/live/**", lambda route: route.abort())
    expect(told(page)).to_contain_text("may be out of date", timeout=WAIT_MS)
    assert rows(page).count() == shown
    page.unroute("**/requests/live/**")
    page.route("**/requests/live/**", lambda route: route.fulfill(status=503, body="Unavailable"))
    expect(told(page)).to_contain_text("may be out of date", timeout=WAIT_MS)
    page.unroute("**/requests/live/**")
    expect(told(page)).to_have_count(0, timeout=WAIT_MS)
    page.route("**/console/alice/usage/**", lambda route: route.abort())
    rows(page).first.click()
    expect(told(page)).to_contain_text("could not be opened")
    assert page.locator("#peek").is_hidden()


def test_whoever_is_signed_out_or_removed_meanwhile_is_told(browser: Browser, live_server: LiveServer) -> None:
    page = open_requests(browser, live_server).page
    shown = rows(page).count()
    page.context.clear_cookies(name="sessionid")
    expect(told(page)).to_contain_text("You are signed out", timeout=WAIT_MS)
    assert (rows(page).count(), page.locator("input[type=password]").count()) == (shown, 0)
    rows(page).first.click()
    page.wait_for_url("**/accounts/login/**")
    visitor = visit(browser, live_server)
    sign_in(visitor, "bob@example.org")
    visitor.go("/console/alice/requests/")
    Member.objects.filter(user__email="bob@example.org").delete()
    expect(told(visitor.page)).to_contain_text("no longer a member", timeout=WAIT_MS)


def test_a_page_that_was_left_open_says_that_it_stopped_and_keeps_its_rows(
    browser: Browser, live_server: LiveServer
) -> None:
    page = open_requests(browser, live_server).page
    shown = rows(page).count()
    asked: list[str] = []

    def long_ago(route: NetworkRoute) -> None:
        asked.append(route.request.url)
        route.continue_(url=re.sub(r"until=\d+", "until=1000", route.request.url))

    page.route("**/requests/live/**", long_ago)
    expect(told(page)).to_contain_text("stopped following", timeout=WAIT_MS)
    assert rows(page).count() == shown
    page.wait_for_timeout(4_000)
    assert len(asked) == 1
    told(page).get_by_role("link", name="Show what is new").click()
    expect(told(page)).to_have_count(0)


def test_first_steps_say_so_too(browser: Browser, live_server: LiveServer) -> None:
    make_people()
    visitor = visit(browser, live_server)
    sign_in(visitor, "alice@example.org")
    visitor.go("/console/alice/")
    page = visitor.page
    page.route("**/first-steps/**", lambda route: route.abort())
    expect(told(page)).to_contain_text("may be out of date", timeout=WAIT_MS)
    page.unroute("**/first-steps/**")
    page.context.clear_cookies(name="sessionid")
    expect(told(page)).to_contain_text("You are signed out", timeout=WAIT_MS)
    assert page.locator("#steps .step").count() == 3


def test_of_many_fast_looks_the_last_one_shows(browser: Browser, live_server: LiveServer) -> None:
    visitor = open_requests(browser, live_server)
    page = visitor.page
    hrefs = [link.get_attribute("href") or "" for link in rows(page).all()]
    rows(page).first.click()
    page.locator("#peek").wait_for()
    held: list[NetworkRoute] = []
    # The answer to the first j comes last.
    page.route(f"**{hrefs[1]}", lambda route: held.append(route))
    for _ in range(3):
        page.keyboard.press("j")
    expect(page.locator("#peek-body")).to_contain_text(re.compile(hrefs[3].split("/")[-2]))
    for route in held:
        route.continue_()
    page.wait_for_timeout(500)
    assert (page.locator("#peek-open").get_attribute("href") or "").endswith(hrefs[3])
    assert page.locator("tr.is-peeked .row-link").get_attribute("href") == hrefs[3]


def test_a_click_that_opens_a_tab_opens_one(browser: Browser, live_server: LiveServer) -> None:
    page = open_requests(browser, live_server).page
    with page.context.expect_page() as opened:
        rows(page).nth(1).click(modifiers=["Control"])
    opened.value.wait_for_url("**/console/alice/usage/**")
    assert page.locator("#peek").is_hidden()


def test_the_playground_says_in_plain_words_what_is_wrong(browser: Browser, live_server: LiveServer) -> None:
    visitor = open_requests(browser, live_server)
    page = visitor.page
    visitor.go("/console/alice/playground/")
    page.route("**/playground/secret/", lambda route: route.abort())
    page.get_by_label("Message").fill("Hello!")
    expect(page.locator("#playground-estimate")).to_contain_text("CrossModel cannot be reached")
    page.get_by_role("button", name="Send").click()
    expect(page.locator(".playground-wrong").last).to_contain_text("CrossModel cannot be reached")
    page.unroute("**/playground/secret/")
    page.context.clear_cookies(name="sessionid")
    page.get_by_role("button", name="Send").click()
    expect(page.locator(".playground-wrong").last).to_contain_text("You are signed out")
    assert page.get_by_label("Message").input_value() == "Hello!"
