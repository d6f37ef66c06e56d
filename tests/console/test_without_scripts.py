"""The console in a Chromium that runs no scripts: everything but the playground works as it stands."""

from playwright.sync_api import Browser
from pytest_django.live_server_helper import LiveServer

from accounts.models import ApiKey
from tests.console.test_browser import browser as browser
from tests.console.test_browser import pages_with_content, visit
from tests.console.test_browser import pytestmark as pytestmark
from tests.support.people import PASSWORD


def test_one_signs_in_makes_a_key_filters_and_changes_the_snippet(browser: Browser, live_server: LiveServer) -> None:
    pages_with_content()
    page = visit(browser, live_server, java_script_enabled=False).page
    page.goto(live_server.url + "/accounts/login/")
    page.get_by_label("E-mail address").fill("alice@example.org")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in", exact=True).click()
    page.get_by_text("Python", exact=True).click()
    assert page.locator(".tab-panel-python").is_visible()
    assert not page.locator(".tab-panel-curl").is_visible()
    page.locator(".switcher summary").click()
    assert page.get_by_role("button", name="Sign out").is_visible()
    page.locator(".switcher summary").click()
    page.get_by_role("link", name="API keys").click()
    page.get_by_role("link", name="Create key").click()
    page.get_by_label("Name", exact=True).fill("Laptop")
    page.get_by_role("button", name="Create key").click()
    key = ApiKey.objects.get(name="Laptop")
    assert page.locator("#new-key").inner_text().startswith(key.prefix)
    page.goto(live_server.url + "/console/alice/requests/")
    page.get_by_text("Filter", exact=True).click()
    page.locator("select[name=outcome]").select_option("failed")
    page.get_by_role("button", name="Show").click()
    assert page.get_by_text("upstream_overloaded").count() == 1
    page.goto(live_server.url + "/console/alice/playground/")
    assert page.locator("noscript .notice").is_visible()  # Its text is none to Playwright.
