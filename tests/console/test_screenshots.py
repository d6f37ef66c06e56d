"""Pictures of every console page, for people to look at: `make screenshots` takes them, the test suite does not.

Light, dark and on a phone; with nothing in it, one row of each kind, and many.
"""

import os
from pathlib import Path

import pytest
from playwright.sync_api import Browser
from pytest_django import Settings
from pytest_django.live_server_helper import LiveServer

from accounts.keys import create_key
from accounts.models import Member, Role
from tests.console.test_access import urls as urls
from tests.console.test_browser import (
    ACCOUNT_PATHS,
    MORE_PATHS,
    PATHS,
    PHONE,
    STRANGERS_PATHS,
    Visitor,
    confirm_that_it_is_oneself,
    pages_with_content,
    sign_in,
    visit,
)
from tests.console.test_browser import browser as browser
from tests.console.test_roles_in_a_browser import FILES
from tests.support.people import People, client_of, make_people, make_person

FOLDER = os.environ.get("SCREENSHOTS_FOLDER", "")
LOOKS = {"light": {"color_scheme": "light"}, "dark": {"color_scheme": "dark"}} | {"phone": {"viewport": PHONE}}
MANY = 120

pytestmark = [
    pytest.mark.browser,
    pytest.mark.django_db(transaction=True),
    pytest.mark.timeout(900),
    pytest.mark.skipif(not FOLDER, reason="takes no pictures unless `make screenshots` asks for them"),
]


def empty() -> list[str]:
    people = make_people()
    people.key.delete()
    return [f"/console/alice/{path}" for path in PATHS]


def many() -> list[str]:
    paths = pages_with_content()
    owner = Member.objects.get(role=Role.OWNER, organization__slug="alice")
    for number in range(MANY):
        create_key(owner.organization, name=f"Service {number}", created_by=owner.user)
        person = make_person(f"person{number}")
        Member.objects.create(organization=owner.organization, user=person, role=Role.DEVELOPER)
    return paths


def test_take_pictures_of_what_has_an_address_of_its_own(
    browser: Browser, live_server: LiveServer, settings: Settings, people: People, urls: dict[str, str]
) -> None:
    """A statement, an invoice, a key to revoke, a budget: every page of one organization that can be opened."""
    settings.PAYMENT_PROVIDER, settings.PAYMENT_SANDBOX_SECRET = "sandbox", "x"  # Nobody asks it for anything.
    settings.PAYMENT_SANDBOX_URL = "http://127.0.0.1:1"
    opened = [
        url for name, url in urls.items() if name not in FILES and client_of(people.alice).get(url).status_code == 200
    ]
    folder = Path(FOLDER) / "rows"
    folder.mkdir(parents=True, exist_ok=True)
    for look, options in LOOKS.items():
        visitor = visit(browser, live_server, **options)
        sign_in(visitor, "alice@example.org")
        for path in opened:
            take_picture(visitor, path, folder, look)


@pytest.mark.parametrize("fill", [empty, pages_with_content, many], ids=["empty", "one", "many"])
def test_take_pictures(browser: Browser, live_server: LiveServer, fill: object, request: pytest.FixtureRequest) -> None:
    assert callable(fill)
    paths = [*fill(), *MORE_PATHS, *ACCOUNT_PATHS]
    folder = Path(FOLDER) / request.node.callspec.id
    folder.mkdir(parents=True, exist_ok=True)
    for look, options in LOOKS.items():
        visitor = visit(browser, live_server, **options)
        for path in STRANGERS_PATHS:
            take_picture(visitor, path, folder, look)
        sign_in(visitor, "alice@example.org")
        confirm_that_it_is_oneself(visitor)
        for path in paths:
            take_picture(visitor, path, folder, look)


def take_picture(visitor: Visitor, path: str, folder: Path, look: str) -> None:
    visitor.go(path)
    name = path.strip("/").replace("console/alice", "console").replace("/", "-") or "landing"
    visitor.page.screenshot(path=folder / f"{name}-{look}.png", full_page=True)
