"""A passkey in a real Chromium, with an authenticator that it makes up: added, signed in with, removed."""

from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from playwright.sync_api import Browser, Page
from pytest_django.fixtures import Settings
from pytest_django.live_server_helper import LiveServer

from tests.console.test_browser import Visitor, browser, pytestmark, sign_in, visit
from tests.support.people import PASSWORD, make_people

__all__ = ["browser", "pytestmark"]  # Used here too.

PHONE_OR_STICK = {
    "protocol": "ctap2",
    "transport": "internal",
    "hasResidentKey": True,
    "hasUserVerification": True,
    "isUserVerified": True,
    "automaticPresenceSimulation": True,
}


def give_authenticator(page: Page) -> tuple[Any, str]:
    """Give the browser an authenticator; return what speaks with it, and its id."""
    session = page.context.new_cdp_session(page)
    session.send("WebAuthn.enable")
    return session, session.send("WebAuthn.addVirtualAuthenticator", {"options": PHONE_OR_STICK})["authenticatorId"]


def test_who_cancels_or_is_refused_by_their_device_is_told(
    browser: Browser, live_server: LiveServer, settings: Settings
) -> None:
    """The page stayed as it was, and said nothing."""
    settings.BASE_URL = live_server.url
    make_people()
    visitor = visit(browser, live_server)
    page = visitor.page
    session, authenticator_id = give_authenticator(page)
    session.send("WebAuthn.setUserVerified", {"authenticatorId": authenticator_id, "isUserVerified": False})
    sign_in(visitor, "alice@example.org")
    visitor.go("/accounts/2fa/webauthn/add/")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Confirm").click()
    page.get_by_label("Sign in with it alone, without a password").check()
    for _ in range(2):
        page.get_by_role("button", name="Add").click()
        page.get_by_role("alert").get_by_text("No passkey came").wait_for()
    assert page.get_by_role("alert").count() == 1
    visitor.assert_no_complaints()


@pytest.mark.long
def test_a_passkey_is_added_signs_in_and_is_removed(
    browser: Browser, live_server: LiveServer, settings: Settings
) -> None:
    settings.BASE_URL = live_server.url
    make_people()
    visitor = visit(browser, live_server)
    page = visitor.page
    session, authenticator_id = give_authenticator(page)
    sign_in(visitor, "alice@example.org")
    visitor.go("/accounts/2fa/webauthn/add/")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Confirm").click()
    page.get_by_label("Sign in with it alone, without a password").check()
    page.get_by_role("button", name="Add").click()
    page.get_by_text("I have kept them").wait_for()  # Recovery codes, for whoever loses it.
    [credential] = session.send("WebAuthn.getCredentials", {"authenticatorId": authenticator_id})["credentials"]
    assert (credential["rpId"], credential["isResidentCredential"]) == ("localhost", True)

    page.context.clear_cookies()
    use_passkey(visitor)
    page.wait_for_url("**/console/alice/")

    visitor.go("/accounts/2fa/webauthn/")
    assert page.get_by_text("Last used").is_visible()
    page.get_by_role("link", name="Remove").click()
    page.get_by_role(
        "link", name="Use a passkey or security key"
    ).click()  # To change what lets people in, one shows it again.
    page.get_by_role("button", name="Use a passkey or security key").click()
    page.get_by_role("heading", name="Remove “Passkey 1”?").wait_for()
    page.get_by_role("button", name="Remove").click()
    page.get_by_text("None yet.").wait_for()
    assert not Authenticator.objects.filter(type=Authenticator.Type.WEBAUTHN).exists()

    page.context.clear_cookies()
    use_passkey(visitor)
    page.get_by_text("This code or passkey does not fit.").wait_for()
    visitor.go("/console/")
    assert page.url.startswith(f"{live_server.url}/accounts/login/")
    visitor.assert_no_complaints()


def use_passkey(visitor: Visitor) -> None:
    visitor.go("/accounts/login/")
    visitor.page.get_by_role("button", name="Use a passkey").click()
