"""One's own account: second factor, recovery codes, sessions, logins of other companies, and mails about them."""

import re
import time

import pytest
from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal.auth import format_hotp_value, hotp_value
from allauth.usersessions.models import UserSession
from django.core import mail
from django.core.mail import EmailMultiAlternatives
from django.test import Client

from accounts.models import User
from tests.support.people import PASSWORD, client_of, make_person

FACTOR = "/accounts/2fa/"


@pytest.fixture
def dora(db: None) -> User:
    return make_person("dora")


def sign_in(client: Client, email: str = "dora@example.org") -> str:
    """Return where the right password leads."""
    location: str = client.post("/accounts/login/", {"login": email, "password": PASSWORD})["Location"]
    return location


def code_for(secret: str) -> str:
    return str(format_hotp_value(hotp_value(secret, int(time.time()) // 30)))


def turn_on(client: Client) -> tuple[str, list[str]]:
    """Turn an authenticator app on; return its secret and the recovery codes that are shown."""
    assert client.post("/accounts/reauthenticate/", {"password": PASSWORD}).status_code == 302
    secret = client.get(f"{FACTOR}totp/activate/").context["form"].secret
    response = client.post(f"{FACTOR}totp/activate/", {"code": code_for(secret)}, follow=True)
    return secret, re.findall(r"\b[0-9]{8}\b", response.content.decode())


@pytest.mark.django_db(transaction=True)  # The mail goes out after the commit.
def test_a_password_alone_opens_nothing_once_there_is_a_second_factor() -> None:
    make_person("dora")
    mine = Client()
    assert sign_in(mine) == "/console/"
    secret, codes = turn_on(mine)
    assert len(codes) == 10
    assert secret not in str(list(Authenticator.objects.values_list("data", flat=True)))  # It is sealed.
    assert "second factor of your account now" in mail.outbox[-1].body
    assert not any(code in mine.get(f"{FACTOR}recovery-codes/").content.decode() for code in codes)  # Shown once.

    other = Client()
    assert sign_in(other) == f"{FACTOR}authenticate/"
    assert other.get("/console/")["Location"].startswith("/accounts/login/")
    assert other.post(f"{FACTOR}authenticate/", {"code": "000000"}).status_code == 200
    assert other.get("/console/")["Location"].startswith("/accounts/login/")
    assert other.post(f"{FACTOR}authenticate/", {"code": codes[0]})["Location"] == "/console/"

    third = Client()
    sign_in(third)
    assert third.post(f"{FACTOR}authenticate/", {"code": codes[0]}).status_code == 200  # Used up.
    assert third.post(f"{FACTOR}authenticate/", {"code": codes[1]})["Location"] == "/console/"


def test_who_left_a_browser_open_does_not_lend_the_second_factor(dora: User) -> None:
    """To change what lets people in, one gives the password again."""
    client = Client()
    sign_in(client)
    for page in ("totp/activate/", "webauthn/add/"):
        assert client.get(FACTOR + page)["Location"].startswith("/accounts/reauthenticate/")


def test_who_left_a_browser_open_does_not_lend_the_account(dora: User) -> None:
    """Another address leads to a new password: whoever changes it gives the password again."""
    client = Client()
    sign_in(client)
    session = client.session
    session["account_authentication_methods"] = [
        {**method, "at": method["at"] - 3600} for method in session["account_authentication_methods"]
    ]
    session.save()
    answer = client.post("/accounts/email/", {"action_add": "", "email": "mallory@example.org"})
    assert answer["Location"].startswith("/accounts/reauthenticate/")
    assert mail.outbox == []


def test_sessions_are_listed_and_the_others_end(dora: User) -> None:
    browsers = [
        Client(headers={"user-agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"}),
        Client(
            headers={"user-agent": "Mozilla/5.0 (iPhone; CPU iPhone OS 19_0) AppleWebKit/605 Version/19 Safari/604"}
        ),
    ]
    for browser in browsers:
        sign_in(browser)
    page = browsers[0].get("/accounts/sessions/").content.decode()
    assert "Firefox on Linux" in page
    assert "Safari on iPhone" in page
    assert browsers[0].post("/accounts/sessions/").status_code == 302
    assert browsers[1].get("/console/")["Location"].startswith("/accounts/login/")
    assert browsers[0].get("/console/")["Location"] == "/organizations/new/"
    assert UserSession.objects.filter(user=dora).count() == 1


def test_a_superuser_takes_a_lost_second_factor_away(dora: User) -> None:
    mine = Client()
    sign_in(mine)
    turn_on(mine)
    root = client_of(User.objects.create_superuser("root@example.org", PASSWORD))
    path = f"/admin/accounts/user/{dora.pk}/remove-second-factor/"
    assert mine.post(path).status_code == 302
    assert Authenticator.objects.filter(user=dora).exists()
    assert root.post(path).status_code == 302
    assert sign_in(Client()) == "/console/"
    told = mail.outbox[-1]  # Whoever asked for it may have been somebody else.
    assert (told.to, "your password alone signs in" in str(told.body)) == ([dora.email], True)


def test_mails_look_like_the_house_and_say_the_same_in_text(dora: User) -> None:
    Client().post("/accounts/password/reset/", {"email": dora.email})
    [message] = mail.outbox
    assert isinstance(message, EmailMultiAlternatives)
    [html] = [str(content) for content, _ in message.alternatives]
    link = re.search(r"http\S+", str(message.body))
    assert link
    assert f'href="{link[0]}"' in html
    assert (message.subject, "CrossModel" in html) == ("CrossModel: Set a new password", True)


def test_no_other_company_signs_anybody_in_by_default(dora: User) -> None:
    page = Client().get("/accounts/login/").content.decode()
    assert "Use a passkey" in page
    assert not re.search("Google|GitHub|Single sign-on", page)
    assert Client().get("/accounts/google/login/").status_code == 404
    assert EmailAddress.objects.count() == 1
