"""The console in a real Chromium: what only a browser can tell (scripts, the policy, layout, the clipboard)."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.core import mail
from playwright.sync_api import Browser, Page, sync_playwright
from playwright.sync_api import Route as NetworkRoute
from pytest_django import Settings
from pytest_django.live_server_helper import LiveServer

from accounts.invitations import invite
from accounts.models import ApiKey, Organization, Role, User
from billing.credit.top_ups import grant_credit
from billing.models import CreditLot, Route, Upstream
from billing.webhooks.endpoints import add_endpoint
from billing.webhooks.queue import queue_test
from tests.support.people import PASSWORD, make_people
from tests.support.settled_usage import billed_event, failed_event, sell_model, settle
from tests.support.spending import raise_some_alert

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome") or ""
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
PHONE = {"width": 390, "height": 844}
DESKTOP = {"width": 1280, "height": 860}
# The least contrast of text that WCAG 2.2 AA allows.
LEAST_CONTRAST = 4.5

pytestmark = [
    pytest.mark.browser,
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(not CHROMIUM, reason="no Chromium: apt-get install chromium, or set CHROMIUM"),
]


@dataclass
class Visitor:
    """A page, and everything that the browser complained about on it."""

    page: Page
    base_url: str
    complaints: list[str]

    def go(self, path: str) -> None:
        """Open a page, and return when all that it names has been loaded. No page fetches anything later.

        The parts of the reference are opened: what is closed has no width and no contrast.
        """
        self.page.goto(self.base_url + path)
        self.page.evaluate("document.querySelectorAll('.reference details').forEach(part => part.open = true)")

    def assert_no_complaints(self) -> None:
        self.page.wait_for_load_state("networkidle")  # Of an icon, say, a browser complains after the page is loaded.
        assert self.complaints == []


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    # Playwright keeps an event loop in this thread, which Django takes for an async caller.
    before = os.environ.get("DJANGO_ALLOW_ASYNC_UNSAFE")
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()
    if before is None:
        del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]


def visit(browser: Browser, live_server: LiveServer, **options: Any) -> Visitor:
    context = browser.new_context(**{"viewport": DESKTOP, **options})
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    return Visitor(page, live_server.url, complaints)


def sign_in(visitor: Visitor, email: str) -> None:
    visitor.go("/accounts/login/")
    visitor.page.get_by_label("E-mail address").fill(email)
    visitor.page.get_by_label("Password").fill(PASSWORD)
    visitor.page.get_by_role("button", name="Sign in", exact=True).click()
    visitor.page.wait_for_url("**/console/**")


def confirm_that_it_is_oneself(visitor: Visitor) -> None:
    """Type the password once more, so that the pages of the second factor show themselves, not the question."""
    visitor.go("/accounts/2fa/totp/activate/")
    if visitor.page.get_by_text("Is it you?").is_visible():
        assert_everybody_can_use(visitor)
        visitor.page.get_by_label("Password").fill(PASSWORD)
        visitor.page.get_by_role("button", name="Confirm", exact=True).click()
        visitor.page.wait_for_url("**/totp/activate/")


def test_from_sign_up_to_a_revoked_key(browser: Browser, live_server: LiveServer) -> None:
    visitor = visit(browser, live_server, permissions=["clipboard-read", "clipboard-write"])
    page = visitor.page
    visitor.go("/")
    page.get_by_role("link", name="Create an account").click()
    page.get_by_label("E-mail address").fill("frieda@example.org")
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
    page.get_by_text("Limits and restrictions").click()
    page.get_by_label("Daily budget").fill("2.50")
    page.get_by_role("button", name="Create key").click()
    text = page.locator("#new-key").inner_text()
    page.get_by_role("button", name="Copy").first.click()
    page.get_by_role("button", name="Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == text
    page.get_by_role("link", name="I have copied it").click()
    assert text not in page.content()
    assert page.get_by_text("$2.50 a day").is_visible()
    page.get_by_role("link", name="Revoke Laptop").click()
    page.get_by_role("button", name="Revoke key").click()
    assert page.get_by_text("every gateway refuses it").is_visible()
    assert ApiKey.objects.get().is_revoked
    visitor.assert_no_complaints()


def test_going_back_to_the_form_and_sending_it_again_makes_no_second_key(
    browser: Browser, live_server: LiveServer
) -> None:
    make_people()
    visitor = visit(browser, live_server)
    sign_in(visitor, "alice@example.org")
    page = visitor.page
    visitor.go("/console/alice/keys/new/")
    page.get_by_label("Name", exact=True).fill("Laptop")
    page.get_by_role("button", name="Create key").dblclick()
    secret = page.locator("#new-key").inner_text()
    page.reload()
    assert page.get_by_text("shown only once").is_visible()
    page.go_back()
    assert secret not in page.content()
    page.go_forward()
    assert secret not in page.content()
    assert ApiKey.objects.filter(name="Laptop").count() == 1


def test_forms_of_strangers_are_sent_once_too(browser: Browser, live_server: LiveServer) -> None:
    visitor = visit(browser, live_server)
    page = visitor.page
    held: list[NetworkRoute] = []
    page.route(
        "**/accounts/signup/",
        lambda route: held.append(route) if route.request.method == "POST" else route.continue_(),
    )
    visitor.go("/accounts/signup/")
    page.get_by_label("E-mail address").fill("gustav@example.org")
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_label("Password, again").fill(PASSWORD)
    # The second click comes while what the first one sent is on its way.
    page.get_by_role("button", name="Create account").evaluate(
        "button => { button.click(); setTimeout(() => button.click(), 300); }"
    )
    for _ in range(300):
        page.wait_for_timeout(100)
        if held:
            break
    page.wait_for_timeout(600)
    assert len(held) == 1
    held[0].continue_()
    page.get_by_label("Code").wait_for()
    assert len(mail.outbox) == 1


PATHS = ["", "keys/", "keys/new/", "usage/", "requests/", "billing/", "members/", "settings/", "alerts/", "webhooks/"]
OTHERS = ["settings/audit", "settings/close", "settings/billing", "billing/documents", "models", "leave", "limits"]
OTHERS += ["settings/address", "settings/export", "settings/delete", "billing/top-ups", "billing/automatic"]
PATHS += ["playground/", "keys/management/", "settings/retention/"]
MORE_PATHS = [f"/console/alice/{path}/" for path in OTHERS]
ACCOUNT_PATHS = [f"/accounts/{path}" for path in ("email/", "password/change/", "2fa/", "sessions/")]
ACCOUNT_PATHS += [f"/accounts/2fa/{path}/" for path in ("totp/activate", "webauthn", "webauthn/add")]
STRANGERS_PATHS = [f"/accounts/{path}/" for path in ("login", "signup", "password/reset", "password/reset/done")]


def pages_with_content() -> list[str]:
    people = make_people()
    version = sell_model("anthropic/claude-sonnet-with-a-rather-long-name-4.6")
    upstream = Upstream.objects.create(name="acme", protocol="messages", base_url="https://api.acme.example")
    Route.objects.create(language_model=version.language_model, upstream=upstream, upstream_model="large")
    events = [billed_event(people.key, version), billed_event(people.key, version), failed_event(people.key, version)]
    settle(events)
    raise_some_alert(people.organization)
    endpoint, _ = add_endpoint(people.organization, url="https://example.org/" + "hook" * 30, created_by=people.alice)
    delivery = queue_test(endpoint)
    hooks = [f"webhooks/{endpoint.pk}/", f"webhooks/deliveries/{delivery.pk}/"]
    receipts = [f"usage/{event.request_id}/" for event in (events[0], events[2])]
    return ["/", "/reference/", "/reference/api/"] + [f"/console/alice/{path}" for path in [*PATHS, *receipts, *hooks]]


@pytest.mark.long
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_is_wider_than_a_phone_and_text_has_contrast(
    browser: Browser, live_server: LiveServer, scheme: str
) -> None:
    paths = pages_with_content()
    visitor = visit(browser, live_server, viewport=PHONE, color_scheme=scheme)
    sign_in(visitor, "alice@example.org")
    for path in paths:
        visitor.go(path)
        width = visitor.page.evaluate("document.documentElement.scrollWidth")
        assert width <= PHONE["width"], f"{path} is {width} wide"
        faint = visitor.page.evaluate(FIND_FAINT_TEXT, LEAST_CONTRAST)
        assert faint == [], f"{path} ({scheme})"
    visitor.assert_no_complaints()


# Every scrolling frame whose content is wider than it, and every two neighbours of a section that touch each other.
FIND_CROWDED = """() => [
  ...[...document.querySelectorAll(".table-frame")].filter(frame => frame.scrollWidth > frame.clientWidth + 1),
  ...[...document.querySelectorAll(
    "main :is(.card, .empty, .table-frame, fieldset, h2, .field, form > p:not(:empty))"
  )].filter(box => {
    const before = box.previousElementSibling;
    if (!before?.checkVisibility() || !box.checkVisibility() || before.matches(".visually-hidden")) return false;
    const isBeside = box.getBoundingClientRect().left >= before.getBoundingClientRect().right;
    const least = box.matches(".help") ? 3 : 8;
    return !isBeside && box.getBoundingClientRect().top - before.getBoundingClientRect().bottom < least;
  }),
].map(element => element.outerHTML.slice(0, 80))"""


# Whether the navigation shows, without being scrolled, where one is.
IS_PLACE_IN_VIEW = """() => [...document.querySelectorAll(".sidebar nav a[aria-current]")].every(link => {
  const box = link.getBoundingClientRect();
  return box.left >= 0 && box.right <= document.documentElement.clientWidth;
})"""


# The rows of the navigation, and the cells that a row ends with, each with the space between its words and the edge.
FIND_ROWS_AND_EDGES = """() => ({
  rows: [...new Set([...document.querySelectorAll(".sidebar nav a")].map(a => a.getBoundingClientRect().top))].length,
  edges: [...document.querySelectorAll("table:not(.stack) tr")].filter(row => row.checkVisibility()).map(
    row => [...row.cells].filter(cell => cell.checkVisibility()).at(-1)
  ).map(cell => cell && parseFloat(getComputedStyle(cell).paddingRight)).filter(space => space < 14),
})"""


def test_a_phone_has_two_rows_of_places_and_rows_that_end_where_they_begin(
    browser: Browser, live_server: LiveServer
) -> None:
    pages_with_content()
    visitor = visit(browser, live_server, viewport=PHONE)
    sign_in(visitor, "alice@example.org")
    for path in ("", "billing/", "models/", "usage/"):
        visitor.go(f"/console/alice/{path}")
        found = visitor.page.evaluate(FIND_ROWS_AND_EDGES)
        assert found == {"rows": 2, "edges": []}, path


@pytest.mark.long
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_long_names_spill_over_nothing_and_nothing_is_glued_together(
    browser: Browser, live_server: LiveServer, settings: Settings, viewport: dict[str, int]
) -> None:
    settings.PAYMENT_PROVIDER, settings.PAYMENT_SANDBOX_SECRET = "sandbox", "x"  # Nobody asks it for anything.
    settings.PAYMENT_SANDBOX_URL = "http://127.0.0.1:1"
    paths = pages_with_content()
    organization = Organization.objects.get(slug="alice")
    Organization.objects.filter(pk=organization.pk).update(name="o" * 100)
    organization.keys.update(name="k" * 100)
    User.objects.filter(email__startswith="bob").update(name="b" * 150)
    for reason in ("r" * 500, "because"):
        grant_credit(
            organization,
            amount_nanos=10**9,
            kind=CreditLot.Kind.PAID,
            reason=reason,
            actor="a",
            idempotency_key=reason[:9],
        )
    invite(
        organization, email="nora@example.org", role=Role.VIEWER, invited_by=User.objects.get(email="alice@example.org")
    )
    visitor = visit(browser, live_server, viewport=viewport)
    sign_in(visitor, "alice@example.org")
    for path in [*paths, *MORE_PATHS]:
        visitor.go(path)
        assert visitor.page.evaluate(FIND_CROWDED) == [], path
        assert visitor.page.evaluate(IS_PLACE_IN_VIEW), path
        assert visitor.page.evaluate("document.documentElement.scrollWidth") <= viewport["width"], path


def test_the_rules_for_passwords_are_a_hint_and_look_like_one(browser: Browser, live_server: LiveServer) -> None:
    visitor = visit(browser, live_server)
    visitor.go("/accounts/signup/")
    assert "At least 10 characters" in visitor.page.locator(".help").inner_text()


@pytest.mark.long
def test_every_field_and_control_has_a_name(browser: Browser, live_server: LiveServer) -> None:
    paths = pages_with_content()
    visitor = visit(browser, live_server)
    for path in STRANGERS_PATHS:
        visitor.go(path)
        assert_everybody_can_use(visitor)
    sign_in(visitor, "alice@example.org")
    confirm_that_it_is_oneself(visitor)
    for path in [*paths, *MORE_PATHS, *ACCOUNT_PATHS]:
        visitor.go(path)
        assert_everybody_can_use(visitor)


def assert_everybody_can_use(visitor: Visitor) -> None:
    where = visitor.page.url
    assert visitor.page.evaluate(FIND_NAMELESS) == [], where
    assert visitor.page.locator("main h1").count() == 1, where
    assert visitor.page.locator("main").count() == 1, where
    found = Axe().run(visitor.page).response["violations"]
    assert [(each["id"], each["nodes"][0]["html"][:200]) for each in found] == [], where


def test_the_keyboard_reaches_the_content_and_the_tabs(browser: Browser, live_server: LiveServer) -> None:
    make_people()
    visitor = visit(browser, live_server)
    sign_in(visitor, "alice@example.org")
    page = visitor.page
    visitor.go("/console/alice/")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip-link"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.locator(".switcher summary").click()
    page.keyboard.press("Escape")
    assert not page.locator(".switcher .menu-panel").is_visible()
    assert page.evaluate("document.activeElement.tagName") == "SUMMARY"
    page.locator(".switcher summary").click()
    page.evaluate("document.activeElement.blur()")  # As in Safari, where a click gives no focus.
    page.keyboard.press("Escape")
    assert not page.locator(".switcher .menu-panel").is_visible()
    page.locator("#tab-curl").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator(".tab-panel-python").is_visible()
    assert not page.locator(".tab-panel-curl").is_visible()


# Colours are drawn on a canvas, so that every way of writing them (rgb, oklch, color-mix) comes out as bytes.
FIND_FAINT_TEXT = """
least => {
  const context = Object.assign(document.createElement("canvas"), {width: 1, height: 1}).getContext("2d", {willReadFrequently: true});
  const bytes = colors => {
    context.clearRect(0, 0, 1, 1);
    for (const color of colors) { context.fillStyle = color; context.fillRect(0, 0, 1, 1); }
    return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const luminance = rgb => {
    const [r, g, b] = rgb.map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = element => {
    const layers = [];
    for (let e = element; e; e = e.parentElement) layers.unshift(getComputedStyle(e).backgroundColor);
    return layers;
  };
  const faint = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (!own || !element.checkVisibility() || element.closest("svg, .visually-hidden, .skip-link")) continue;
    const ground = behind(element);
    const a = luminance(bytes([...ground, getComputedStyle(element).color])), b = luminance(bytes(ground));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < least) faint.push(`${element.tagName}.${element.className} ${ratio.toFixed(2)}: ${element.textContent.trim().slice(0, 40)}`);
  }
  return faint;
}
"""  # noqa: E501  JavaScript is easier to read in its own lines.

FIND_NAMELESS = """
() => [...document.querySelectorAll("input:not([type=hidden]), select, textarea, button, a, summary")]
  .filter(e => !e.hidden && !(e.labels?.length) && !e.getAttribute("aria-label") && !e.textContent.trim())
  .map(e => e.outerHTML.slice(0, 120))
"""
