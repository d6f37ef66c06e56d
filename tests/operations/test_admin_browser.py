"""The admin in a real Chromium: axe finds nothing on its pages, and staff without a second factor set one up first."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.contrib import admin
from playwright.sync_api import Browser
from pytest_django import Settings
from pytest_django.live_server_helper import LiveServer

from tests.console import test_browser as console
from tests.console.test_account import code_for
from tests.support.every_table import fill_every_table
from tests.support.operators import make_operator
from tests.support.people import PASSWORD, make_people

pytestmark = console.pytestmark
browser = console.browser
BUTTONS = {
    "accounts/organization": ("suspend", "grant-credit"),
    "billing/approval": ("approve", "refuse"),
    "billing/priceversion": ("successor", "rerate"),
    "billing/upstream": ("disable",),
}
ADDED_HERE = ("accounts/organization", "accounts/user", "billing/languagemodel", "billing/priceversion")


def pages() -> list[str]:
    """Return a list and a row of every table, forms of buttons, and the pages that are no table's."""
    paths = ["/admin/", "/admin/jobs/", "/admin/runbook/", "/admin/find/?q=alice"]
    for model in admin.site._registry:
        table = f"{model._meta.app_label}/{model._meta.model_name}"
        row = model._default_manager.order_by("pk").first()
        assert row is not None
        paths += [f"/admin/{table}/", f"/admin/{table}/{row.pk}/change/"]
        paths += [f"/admin/{table}/{row.pk}/{button}/" for button in BUTTONS.get(table, ())]
    return [*paths, *(f"/admin/{table}/add/" for table in ADDED_HERE)]


def sign_in(visitor: console.Visitor) -> None:
    visitor.go("/accounts/login/?next=/admin/")
    visitor.page.get_by_label("E-mail address").fill("root@example.org")
    visitor.page.get_by_label("Password").fill(PASSWORD)
    visitor.page.get_by_role("button", name="Sign in", exact=True).click()


@pytest.mark.long
@pytest.mark.parametrize("part", [0, 1, 2, 3])
def test_axe_finds_nothing(browser: Browser, live_server: LiveServer, part: int) -> None:
    fill_every_table(make_people())
    make_operator("root", is_superuser=True)
    visitor = console.visit(browser, live_server)
    sign_in(visitor)
    visitor.page.wait_for_url("**/admin/")
    found: dict[str, list[str]] = {}
    for path in pages()[part::4]:
        visitor.page.goto(visitor.base_url + path)
        for violation in Axe().run(visitor.page).response["violations"]:
            found.setdefault(f"{violation['id']} {violation['nodes'][0]['html'][:150]}", []).append(path)
    assert found == {}
    visitor.assert_no_complaints()


@pytest.mark.long
def test_staff_set_up_a_second_factor_and_then_reach_the_admin(
    browser: Browser, live_server: LiveServer, settings: Settings
) -> None:
    settings.STAFF_SECOND_FACTOR = True
    make_operator("root", is_superuser=True)
    visitor = console.visit(browser, live_server)
    page = visitor.page
    sign_in(visitor)
    page.get_by_text("Operators need a second factor").wait_for()
    console.confirm_that_it_is_oneself(visitor)
    page.get_by_label("Code").fill(code_for(page.get_by_label("Or type this secret").input_value()))
    page.get_by_role("button", name="Turn on").click()
    page.wait_for_url(lambda url: "activate" not in url)
    visitor.go("/admin/")
    page.get_by_role("link", name="Organizations").first.wait_for()
    visitor.assert_no_complaints()
