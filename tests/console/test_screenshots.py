"""Pictures of every console page, for people to look at: `make screenshots` takes them, the test suite does not.

Light, dark and on a phone; with nothing in it, one row of each kind, many, and two months of use. Also what comes of
a form, and what is shown in place of a page.
"""

import os
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone
from playwright.sync_api import Browser
from pytest_django import Settings
from pytest_django.live_server_helper import LiveServer

from accounts.keys import create_key
from accounts.models import ApiKey, Member, Organization, Role, User
from billing.budgets.amounts import Amounts
from billing.budgets.choices import set_end_user_budget
from billing.credit.top_ups import grant_credit
from billing.models import Alert, CreditLot, RefusedRequest
from billing.usage.refusals import Refusal, write_refusals
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
from tests.support.people import PASSWORD, People, client_of, make_people, make_person
from tests.support.settled_usage import billed_event, failed_event, request_id_at, sell_model, settle

FOLDER = os.environ.get("SCREENSHOTS_FOLDER", "")
LOOKS = {"light": {"color_scheme": "light"}, "dark": {"color_scheme": "dark"}} | {"phone": {"viewport": PHONE}}
MANY = 120
USD = 1_000_000_000
MONTHLY = {"monthly_budget_nanos": 40 * USD}
REFUSED = (
    (402, "key_monthly_budget_exceeded", "The monthly budget of this key is $40.00, of which $39.98 is used."),
    (402, "insufficient_balance", "The available balance is $0.00, and this request may cost $0.24."),
    (429, "rate_limited_requests", "600 requests a minute are allowed. Try again in 12 seconds."),
)
ODD_NAMES = (
    "Organization of one hundred characters, which is as long as a name may be in this place, is it not ?",
    "\N{HEBREW LETTER SHIN}\N{HEBREW LETTER LAMED}\N{HEBREW LETTER VAV}\N{HEBREW LETTER FINAL MEM} (2024) & Sons!",
    "\N{ROCKET}\N{WAVING HAND SIGN}\N{EMOJI MODIFIER FITZPATRICK TYPE-4} production",
    "w" * 100,
)

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


def two_months(*, of: list[str]) -> tuple[Organization, list[ApiKey]]:
    """Use by several models, keys and end users, with failures, beside these pages."""
    of += pages_with_content()
    organization = Organization.objects.get(slug="alice")
    owner = organization.members.get(role=Role.OWNER).user
    grant_credit(
        organization,
        amount_nanos=2_000 * USD,
        kind=CreditLot.Kind.PAID,
        reason="Invoice 4711",
        actor="a",
        idempotency_key="i",
    )
    versions = [
        sell_model(name) for name in ("acme/large", "acme/small", "anthropic/claude-opus-4.8", "openai/gpt-5.2")
    ]
    keys = [
        create_key(organization, name=f"{name} \N{EM DASH} production", created_by=owner, fields=MONTHLY)[0]
        for name in ("Website", "Nightly evaluation of every model", "Support")
    ]
    now = timezone.now()
    events = []
    for number in range(300):
        key, version = keys[number * 7 % 3], versions[number * number % 4]
        who = {
            "end_user": f"user-{number % 12}",
            "tag": ("ci", "chat", "batch")[number % 3],
            "session": f"s-{number % 9}",
        }
        make = failed_event if number % 17 == 5 else billed_event
        size = {} if make is failed_event else {"input_tokens": 40_000 + number * 997 % 90_000, "output_tokens": 3_100}
        if number % 2 and size:
            size["cache_read_tokens"] = 30_000
        events.append(make(key, version, at=now - timedelta(hours=5 * number, minutes=number % 47), **who, **size))
    settle(events)
    return organization, keys


def very_many() -> list[str]:
    """Two months of use, with refusals and budgets nearly used up."""
    now, paths = timezone.now(), list[str]()
    organization, keys = two_months(of=paths)
    refusals = []
    for number, (status, code, text) in enumerate(REFUSED * 3):
        at, key = now - timedelta(hours=number), keys[number % 3]
        what = (request_id_at(at).hex, organization.pk, key.pk, "messages", "acme/large", status, code, text, at)
        refusals.append(Refusal(*what, end_user=f"user-{number}", repeats=number * 1_000))
    write_refusals(refusals)
    set_end_user_budget(organization, end_user="", amounts=Amounts(daily_nanos=USD), actor="alice@example.org")
    refused = RefusedRequest.objects.filter(organization_id=organization.pk).latest("refused_at")
    return [*paths, f"/console/alice/usage/{refused.request_id}/", "/console/alice/usage/?group=end_user"]


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


@pytest.mark.parametrize(
    "fill", [empty, pages_with_content, many, very_many], ids=["empty", "one", "many", "very-many"]
)
def test_take_pictures(browser: Browser, live_server: LiveServer, fill: object, request: pytest.FixtureRequest) -> None:
    assert callable(fill)
    paths = [*fill(), *MORE_PATHS, *ACCOUNT_PATHS]
    take_pictures(browser, live_server, paths, request.node.callspec.id, LOOKS)


def test_take_the_picture_of_the_readme(browser: Browser, live_server: LiveServer) -> None:
    """What docs/console.png shows: an overview on an ordinary day."""
    organization, _ = two_months(of=[])
    Organization.objects.filter(pk=organization.pk).update(monthly_budget_nanos=60 * USD)
    Alert.objects.all().delete()
    RefusedRequest.objects.all().delete()
    visitor = visit(browser, live_server, viewport={"width": 1280, "height": 1200}, device_scale_factor=1.25)
    sign_in(visitor, "alice@example.org")
    visitor.go("/console/alice/")
    visitor.page.screenshot(path=Path(FOLDER) / "console.png")


def test_take_pictures_of_what_comes_of_a_form(browser: Browser, live_server: LiveServer, people: People) -> None:
    """A new key, a secret, a page that has expired, one that is another's, and what somebody typed wrong."""
    folder = Path(FOLDER) / "forms"
    folder.mkdir(parents=True, exist_ok=True)
    for look, options in LOOKS.items():
        visitor = visit(browser, live_server, **options)
        page = visitor.page
        take_picture(visitor, "/invitations/gone/", folder, look)
        sign_in(visitor, "alice@example.org")
        for path in ("nope/", "requests/?q=req_nothing", "requests/?model=none", "usage/?first_day=x", "keys/?q=none"):
            take_picture(visitor, f"/console/alice/{path}", folder, look)
        visitor.go("/console/alice/keys/new/")
        page.get_by_label("Name", exact=True).fill(f"Laptop {look}")
        page.get_by_role("button", name="Create key").click()
        save_picture(visitor, "key-created", folder, look)
        visitor.go("/console/alice/webhooks/")
        page.get_by_label("URL").fill("http://10.0.0.1/")
        page.get_by_role("button", name="Add endpoint").click()
        save_picture(visitor, "webhook-wrong", folder, look)
        page.get_by_label("URL").fill("https://example.org/")
        page.get_by_role("button", name="Add endpoint").click()
        save_picture(visitor, "webhook-secret", folder, look)
        visitor.go("/console/alice/keys/new/")
        page.get_by_label("Name", exact=True).fill("Typed before")
        page.context.clear_cookies(name="csrftoken")
        page.get_by_role("button", name="Create key").click()
        save_picture(visitor, "page-expired", folder, look)
        visitor.go("/console/alice/keys/new/")
        page.get_by_label("Name", exact=True).fill("Typed before")
        page.context.clear_cookies(name="sessionid")
        page.get_by_role("button", name="Create key").click()
        save_picture(visitor, "session-ended", folder, look)
        page.get_by_label("E-mail address").fill("alice@example.org")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Sign in", exact=True).click()
        save_picture(visitor, "kept-form", folder, look)
        others = visit(browser, live_server, **options)
        sign_in(others, "bob@example.org")
        take_picture(others, "/console/alice/keys/", folder, look)


def odd() -> list[str]:
    """Names of every script, as long as they may be, and amounts of every size."""
    paths = pages_with_content()
    organization = Organization.objects.get(slug="alice")
    owner = organization.members.get(role=Role.OWNER).user
    Organization.objects.filter(pk=organization.pk).update(name=ODD_NAMES[0])
    version = sell_model("acme/large")
    for number, name in enumerate(ODD_NAMES):
        person = make_person(f"{'very-long-name-of-a-person-' * 2}{number}")
        User.objects.filter(pk=person.pk).update(name=name)
        Member.objects.create(organization=organization, user=person, role=Role.ADMIN)
        key, _ = create_key(organization, name=name, created_by=owner, fields=MONTHLY)
        who = {"end_user": name * 2, "tag": name[:64], "session": "s" * 128}
        sizes: dict[str, Any] = {"input_tokens": 10 ** (number * 2), "output_tokens": number}
        settle([billed_event(key, version, **{**who, **sizes})])
    for amount in (1_000_000_123_456_000, 1, 0.5 * USD):
        grant_credit(
            organization,
            amount_nanos=int(amount),
            kind=CreditLot.Kind.PROMOTIONAL,
            reason=ODD_NAMES[1],
            actor="a",
            idempotency_key=f"i{amount}",
        )
    return paths


# A phone of the smallest kind, a desk at 200 %, and a reader who chose the colours.
ODD_LOOKS: dict[str, dict[str, Any]] = {
    "narrow": {"viewport": {"width": 320, "height": 640}},
    "zoomed": {"viewport": {"width": 640, "height": 360}, "device_scale_factor": 2},
    "desk": {},
    "forced": {"forced_colors": "active"},
}


def test_take_pictures_of_what_is_odd(browser: Browser, live_server: LiveServer) -> None:
    paths = [*odd(), *MORE_PATHS, *ACCOUNT_PATHS]
    take_pictures(browser, live_server, paths, "odd", ODD_LOOKS)


def take_pictures(
    browser: Browser, live_server: LiveServer, paths: list[str], name: str, looks: dict[str, dict[str, Any]]
) -> None:
    """Open a stranger's pages, then as Alice these, in each of the looks."""
    folder = Path(FOLDER) / name
    folder.mkdir(parents=True, exist_ok=True)
    for look, options in looks.items():
        visitor = visit(browser, live_server, **options)
        for path in STRANGERS_PATHS:
            take_picture(visitor, path, folder, look)
        sign_in(visitor, "alice@example.org")
        confirm_that_it_is_oneself(visitor)
        for path in paths:
            take_picture(visitor, path, folder, look)


def save_picture(visitor: Visitor, name: str, folder: Path, look: str) -> None:
    visitor.page.wait_for_load_state("networkidle")
    visitor.page.screenshot(path=folder / f"{name}-{look}.png", full_page=True)


def take_picture(visitor: Visitor, path: str, folder: Path, look: str) -> None:
    visitor.go(path)
    name = re.sub(r"[^a-z0-9_-]+", "-", path.strip("/").replace("console/alice", "console").lower()) or "landing"
    visitor.page.screenshot(path=folder / f"{name}-{look}.png", full_page=True)
