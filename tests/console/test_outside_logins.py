"""Signing in by another company's login, by OpenID Connect over real HTTP: whom it lets in, and whom it never does."""

import os
import re
import runpy
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from allauth.account.models import EmailAddress
from allauth.socialaccount.models import SocialAccount
from django.core.cache import cache
from django.core.exceptions import ImproperlyConfigured
from django.db import connection

from accounts.models import Member, User
from crossmodel_site.embedded.ports import find_free_port
from crossmodel_site.embedded.process import start_child
from tests.support.login_provider import CLIENT_ID, CLIENT_SECRET, LoginProvider
from tests.support.people import PASSWORD, make_people

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 60.0

pytestmark = pytest.mark.django_db(transaction=True)


class Site:
    """The pages, in a process of their own that is told of the login by its environment, as in production."""

    def __init__(self, provider: LoginProvider, folder: Path) -> None:
        port = find_free_port()
        self.url, self.mails = f"http://localhost:{port}", folder / "mail"
        database = urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{connection.settings_dict['NAME']}")
        environment = {
            **os.environ,
            "DATABASE_URL": database.geturl(),
            "CROSSMODEL_DATA": str(folder),
            "CROSSMODEL_PAGES": "only",
            "CROSSMODEL_BASE_URL": self.url,
            "CROSSMODEL_OIDC_CLIENT_ID": CLIENT_ID,
            "CROSSMODEL_OIDC_CLIENT_SECRET": CLIENT_SECRET,
            "CROSSMODEL_OIDC_ISSUER": provider.url,
            "CROSSMODEL_OIDC_NAME": "Acme",
            **{f"CROSSMODEL_{name}_CLIENT_ID": "us" for name in ("GOOGLE", "GITHUB")},
            **{f"CROSSMODEL_{name}_CLIENT_SECRET": "not a real one" for name in ("GOOGLE", "GITHUB")},
        }
        command = [sys.executable, "-m", "uvicorn", "crossmodel_site.asgi:application", "--port", str(port)]
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self.process = start_child(command, environment=environment, folder=ROOT, output=log.fileno())

    def wait(self) -> None:
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and self.process.poll() is None:
            try:
                httpx.get(f"{self.url}/accounts/login/", timeout=30)
                return
            except httpx.TransportError:
                time.sleep(0.1)
        raise RuntimeError(self.log.read_text()[-3000:])

    def last_mail(self) -> str:
        return max(self.mails.iterdir(), key=lambda path: path.stat().st_mtime_ns).read_text()


class Somebody:
    """One browser."""

    def __init__(self, site: Site) -> None:
        self.site, self.client = site, httpx.Client(timeout=60, follow_redirects=True)

    def post(self, path: str, **form: str) -> httpx.Response:
        """Send the form of a page. Limits of sign-ups and mails are not what is tested here."""
        cache.clear()
        self.client.get(self.site.url + path)
        form["csrfmiddlewaretoken"] = self.client.cookies["csrftoken"]
        return self.client.post(self.site.url + path, data=form)

    def go_on_with_acme(self) -> httpx.Response:
        """Press the button, and follow wherever it leads."""
        assert "Go on with Acme" in self.client.get(f"{self.site.url}/accounts/login/").text
        return self.post("/accounts/oidc/oidc/login/?process=login")

    @property
    def is_in(self) -> bool:
        return not self.client.get(f"{self.site.url}/console/").url.path.startswith("/accounts/")


@pytest.fixture(scope="module")
def provider() -> Iterator[LoginProvider]:
    with LoginProvider() as provider:
        yield provider


@pytest.fixture(scope="module")
def site(provider: LoginProvider, tmp_path_factory: pytest.TempPathFactory, django_db_setup: None) -> Iterator[Site]:
    site = Site(provider, tmp_path_factory.mktemp("site"))
    site.wait()
    yield site
    site.process.terminate()
    site.process.wait()


def sign_in_with_acme(site: Site, provider: LoginProvider, *, forged: Any = None, **claims: Any) -> Somebody:
    provider.claims, provider.forged = claims, forged or {}
    somebody = Somebody(site)
    somebody.go_on_with_acme()
    return somebody


def test_an_address_that_acme_vouches_for_is_an_account(site: Site, provider: LoginProvider) -> None:
    nora = sign_in_with_acme(site, provider, sub="1", email="Nora@Example.org", email_verified=True, name="Nora\r\n N.")
    assert nora.is_in
    user = User.objects.get()
    assert (user.email, user.name) == ("nora@example.org", "Nora N.")
    assert EmailAddress.objects.get(user=user).verified
    assert provider.asked[-1]["code_challenge_method"] == "S256"
    # Whom Acme knows by the same id is the same person, whatever their address has become.
    assert sign_in_with_acme(site, provider, sub="1", email="other@example.org", email_verified=True).is_in
    assert User.objects.get().email == "nora@example.org"
    assert provider.refused == []


@pytest.mark.parametrize(
    ("name", "address", "origin"),
    [("Google", "google", "https://accounts.google.com"), ("GitHub", "github", "https://github.com")],
)
def test_google_and_github_are_offered_where_they_are_configured(
    site: Site, name: str, address: str, origin: str
) -> None:
    somebody = Somebody(site)
    page = somebody.client.get(f"{site.url}/accounts/login/")
    assert f"Go on with {name}" in page.text
    assert origin in page.headers["content-security-policy"]
    somebody.client.follow_redirects = False
    leads = urlsplit(somebody.post(f"/accounts/{address}/login/?process=login").headers["location"])
    query = parse_qs(leads.query)
    assert f"{leads.scheme}://{leads.netloc}" == origin
    assert query["client_id"] == ["us"]
    assert query["redirect_uri"] == [f"{site.url}/accounts/{address}/login/callback/"]
    assert query["state"][0]


@pytest.mark.parametrize(
    "variables",
    [
        {"GOOGLE_CLIENT_ID": "us"},
        {"GITHUB_CLIENT_SECRET": "x"},
        {"OIDC_CLIENT_ID": "us", "OIDC_CLIENT_SECRET": "x"},
        {"OIDC_CLIENT_ID": "us", "OIDC_CLIENT_SECRET": "x", "OIDC_ISSUER": "http://login.example"},
    ],
)
def test_half_a_login_or_one_without_tls_refuses_to_start(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"CROSSMODEL_{name}", value)
    with pytest.raises(ImproperlyConfigured):
        runpy.run_path(str(ROOT / "crossmodel_site/people_settings.py"))


def test_what_acme_does_not_vouch_for_signs_nobody_in(site: Site, provider: LoginProvider) -> None:
    people = make_people()
    for claims in (
        {"sub": "2", "email": "somebody@example.org", "email_verified": False},
        {"sub": "3", "email": "else@example.org"},
        {"sub": "4", "email": people.alice.email, "email_verified": False},
        {"sub": "5", "email": people.alice.email, "email_verified": True},  # The account is there already.
        {"sub": "6"},  # Acme tells no address, so it is asked for.
    ):
        assert not sign_in_with_acme(site, provider, **claims).is_in, claims
    assert not SocialAccount.objects.filter(user=people.alice).exists()
    assert EmailAddress.objects.filter(verified=True).count() == 3  # As before.
    assert Member.objects.count() == 3


def test_a_token_that_is_not_for_us_or_not_of_now_signs_nobody_in(site: Site, provider: LoginProvider) -> None:
    for forged in ({"aud": "another"}, {"iss": "https://evil.example"}, {"exp": 1}):
        claims = {"sub": "7", "email": "eve@example.org", "email_verified": True}
        assert not sign_in_with_acme(site, provider, forged=forged, **claims).is_in
    stranger = Somebody(site)
    answer = stranger.client.get(f"{site.url}/accounts/oidc/oidc/login/callback/?code=x&state=nobodys")
    assert (answer.status_code, "That did not work" in answer.text) == (401, True)
    assert not User.objects.exists()


def test_who_came_first_with_the_address_of_another_is_out_once_its_owner_comes(
    site: Site, provider: LoginProvider
) -> None:
    """Eve's Acme login claims Vic's address before Vic is here. Vic gets the account by mail, and Eve nothing.

    All in one browser of Vic's: the code that nobody was sent, for the sign-up, is not asked for once Vic signs in.
    """
    eves = {"sub": "eve", "email": "vic@example.org", "email_verified": False}
    assert not sign_in_with_acme(site, provider, **eves).is_in
    vic = Somebody(site)
    vic.post("/accounts/signup/", email="vic@example.org", password1=PASSWORD, password2=PASSWORD)
    assert "You have an account already" in site.last_mail()
    vic.post("/accounts/password/reset/", email="vic@example.org")
    link = re.search(r"http\S+/password/reset/key/\S+", site.last_mail())
    assert link
    form = vic.client.get(link[0]).url.path
    assert 'href="/accounts/login/">Sign in' in vic.post(form, password1=PASSWORD, password2=PASSWORD).text
    vic.post("/accounts/login/", login="vic@example.org", password=PASSWORD)
    code = re.search(r"CrossModel: (\S+) is your code", site.last_mail())
    assert code
    vic.post("/accounts/confirm-email/", code=code[1])
    assert vic.is_in
    assert not sign_in_with_acme(site, provider, **eves).is_in
    assert not SocialAccount.objects.filter(user__email="vic@example.org").exists()
