"""The playground in a real Chromium, against a real gateway: what it asks is billed to the key that was chosen."""

import re
from types import SimpleNamespace
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from accounts.keys import create_key, disable_key
from accounts.members import remove_member
from accounts.models import Member, Organization, Role, TemporarySecret, User
from billing.admission.outbox import publish_pending_changes
from tests.console.test_browser import CHROMIUM, Visitor, browser, sign_in, visit
from tests.gateway.test_authentication import assert_unauthorized, post
from tests.support.live_stack import LiveStack, Tenant
from tests.support.people import client_of, make_person

__all__ = ["browser"]  # A fixture that is used here, too.

pytestmark = pytest.mark.keeps_redis
NUMBERS = iter(range(1000))


def make_member(organization: Organization, role: Role = Role.DEVELOPER) -> User:
    person = make_person(f"player-{next(NUMBERS)}")
    Member.objects.create(organization=organization, user=person, role=role)
    return person


def borrow(person: User, tenant: Tenant, key_id: Any) -> Any:
    path = f"/console/{tenant.organization.slug}/playground/secret/"
    return client_of(person).post(path, {"key": str(key_id)})


def test_a_secret_is_lent_of_ones_own_keys_only(stack: LiveStack, alice: Tenant) -> None:
    developer, admin = make_member(alice.organization), make_member(alice.organization, Role.ADMIN)
    own, _ = create_key(alice.organization, name="own", created_by=developer)
    other = stack.make_tenant()
    managing, _ = create_key(alice.organization, name="m", created_by=admin, is_management=True)
    lent = borrow(developer, alice, own.pk)
    assert (lent.status_code, lent["Cache-Control"]) == (200, "no-store")
    assert post(stack.base_url, {"x-api-key": lent.json()["secret"]}).status_code == 200
    stack.wait_until_quiet()
    assert {record.key_id for record in stack.records(alice)} == {own.pk}
    for key_id in (alice.key.pk, other.key.pk, managing.pk, 0, "x", "", "9" * 30):
        assert borrow(developer, alice, key_id).status_code == 404
    assert borrow(admin, alice, alice.key.pk).status_code == 200
    for key_id in (other.key.pk, managing.pk):
        assert borrow(admin, alice, key_id).status_code == 404
    disable_key(own)
    assert borrow(developer, alice, own.pk).status_code == 404


def test_it_ends_with_who_signs_out_or_is_removed(stack: LiveStack, alice: Tenant) -> None:
    for leave in ("sign out", "removed"):
        person = make_member(alice.organization)
        own, text = create_key(alice.organization, name="own", created_by=person)
        secret = borrow(person, alice, own.pk).json()["secret"]
        assert post(stack.base_url, {"x-api-key": secret}).status_code == 200
        if leave == "removed":
            remove_member(Member.objects.get(user=person))
            publish_pending_changes()
        else:
            client_of(person).post("/accounts/logout/")
        code = "key_disabled" if leave == "removed" else "invalid_api_key"
        assert_unauthorized(post(stack.base_url, {"x-api-key": secret}), code)
        assert not TemporarySecret.objects.filter(user=person).exists()
        if leave == "sign out":
            assert post(stack.base_url, {"x-api-key": text}).status_code == 200


@pytest.mark.browser
@pytest.mark.skipif(not CHROMIUM, reason="no Chromium: apt-get install chromium, or set CHROMIUM")
def test_a_conversation_is_streamed_and_billed(browser: Browser, stack: LiveStack, alice: Tenant) -> None:
    person = make_member(alice.organization)
    own, _ = create_key(alice.organization, name="Laptop", created_by=person)
    visitor = open_playground(browser, stack, alice, person)
    page = visitor.page
    message = page.get_by_label("Message")
    message.fill("<img src=x onerror=alert(1)> **Hi**")
    expect(page.locator("#playground-estimate")).to_contain_text("is held while it runs")
    page.get_by_role("button", name="Send").click()
    facts = page.locator(".playground-facts")
    expect(facts).to_have_count(1)
    expect(facts.first).to_contain_text(re.compile(r"\d+ in, \d+ out · \$0\.\d+ · "))
    assert page.locator(".playground-turn img").count() == 0
    message.fill("And now?")
    page.get_by_label("Show the answer as it comes").uncheck()
    page.get_by_role("button", name="Send").click()
    expect(facts).to_have_count(2)
    stack.wait_until_quiet()
    records = stack.records(alice)
    assert [record.key_id for record in records] == [own.pk, own.pk]
    shown = " ".join(facts.all_inner_texts())
    for record in records:
        assert f"${record.cost_nanos / 10**9:.9f}".rstrip("0") in shown
    calls = page.locator(".playground-calls")
    for name in ("curl", "Python", "TypeScript"):
        calls.locator("summary", has_text=name).click()
    assert "$CROSSMODEL_API_KEY" in page.locator("#call-curl").inner_text()
    assert not re.search(r"cm-[A-Za-z0-9]{8}-", page.content())
    visitor.assert_no_complaints()
    page.get_by_role("link", name="Receipt").first.click()
    expect(page.get_by_text("Laptop").first).to_be_visible()


@pytest.mark.browser
@pytest.mark.skipif(not CHROMIUM, reason="no Chromium: apt-get install chromium, or set CHROMIUM")
def test_a_refusal_says_why_and_a_stream_can_be_stopped(browser: Browser, stack: LiveStack) -> None:
    poor = stack.make_tenant(credit_usd="0.50")
    person = make_member(poor.organization)
    create_key(poor.organization, name="Laptop", created_by=person)
    page = open_playground(browser, stack, poor, person).page
    page.get_by_label("Longest answer, tokens").fill("60000")
    page.get_by_label("Message").fill("Hello!")
    expect(page.locator("#playground-estimate")).to_contain_text("tokens of answer would fit")
    page.get_by_role("button", name="Send").click()
    expect(page.locator(".playground-wrong")).to_contain_text("The available balance is $0.50")
    assert page.get_by_label("Message").input_value() == "Hello!"
    page.get_by_label("Longest answer, tokens").fill("2000")
    page.get_by_label("Message").fill("[[sandbox: tokens=1500; pace=20]]")
    page.get_by_role("button", name="Send").click()
    page.get_by_role("button", name="Stop").click()
    expect(page.locator(".playground-wrong").nth(1)).to_contain_text("Stopped.")
    expect(page.get_by_role("button", name="Send")).to_be_enabled()


def open_playground(browser: Browser, stack: LiveStack, tenant: Tenant, person: User) -> Visitor:
    visitor = visit(browser, SimpleNamespace(url=stack.base_url))  # type: ignore[arg-type]  # It asks for the address.
    sign_in(visitor, person.email)
    visitor.go(f"/console/{tenant.organization.slug}/playground/")
    return visitor
