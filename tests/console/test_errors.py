"""What people see when a page fails, and what browsers are told a page may load."""

import logging
import re
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.urls import reverse

from accounts.models import ApiKey
from tests.support.people import People, client_of

INLINE = re.compile(r"<script(?![^>]*\bsrc=)[^>]*>|\bstyle=|\son[a-z]+=|<style", re.IGNORECASE)


def test_an_unknown_page_says_so(people: People) -> None:
    response = client_of(people.alice).get("/console/alice/nope/")
    assert response.status_code == 404
    assert "There is nothing here" in response.content.decode()


def test_a_form_without_token_changes_nothing(people: People) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(people.alice, backend="django.contrib.auth.backends.ModelBackend")
    response = client.post(reverse("key_revoke", kwargs={"slug": "alice", "key_id": people.key.pk}))
    assert response.status_code == 403
    assert "This page has expired" in response.content.decode()
    people.key.refresh_from_db()
    assert not people.key.is_revoked


HERE = "http://testserver"


def from_a_page_before_sign_in(people: People) -> Client:
    """A browser whose token was changed, in another tab, since its page was opened."""
    client = Client(enforce_csrf_checks=True)
    client.force_login(people.alice, backend="django.contrib.auth.backends.ModelBackend")
    client.cookies["csrftoken"] = "a" * 32
    return client


def test_what_was_typed_before_a_sign_in_elsewhere_is_sent_again(people: People) -> None:
    client = from_a_page_before_sign_in(people)
    path = reverse("key_new", kwargs={"slug": "alice"})
    typed = {"name": "Nightly <b>", "owner": people.alice.pk, "csrfmiddlewaretoken": "b" * 32}
    page = client.post(path, typed, headers={"origin": HERE})
    text = page.content.decode()
    assert page.status_code == 403
    assert "as chosen" in text  # Not the number of a person.
    assert "Nightly &lt;b&gt;" in text and f'action="{path}"' in text
    assert not ApiKey.objects.filter(name="Nightly <b>").exists()
    token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', text)
    assert token is not None
    client.post(path, {**typed, "csrfmiddlewaretoken": token[1]}, headers={"origin": HERE})
    assert ApiKey.objects.filter(name="Nightly <b>").exists()


def test_no_form_of_another_site_is_offered_to_be_sent_again(people: People) -> None:
    client = from_a_page_before_sign_in(people)
    path = reverse("key_new", kwargs={"slug": "alice"})
    for headers in ({"origin": "https://evil.example"}, {"origin": "null"}, {}):
        page = client.post(path, {"name": "Theirs", "csrfmiddlewaretoken": "b" * 32}, headers=headers).content.decode()
        assert "This page has expired" in page
        assert "Theirs" not in page


def test_a_password_in_an_expired_page_is_never_shown_and_the_way_on_is(people: People) -> None:
    typed = {"login": "alice@example.org", "password": "my-secret-word", "csrfmiddlewaretoken": "b" * 32}
    client = from_a_page_before_sign_in(people)
    known = client.post("/accounts/login/", typed, headers={"origin": HERE}).content.decode()
    assert "You are signed in as alice@example.org" in known
    client.logout()
    stranger = client.post("/accounts/login/", typed, headers={"origin": HERE}).content.decode()
    assert 'href="/accounts/login/"' in stranger
    assert "my-secret-word" not in known + stranger


def test_an_unexpected_error_shows_no_insides(
    people: People, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise ZeroDivisionError("a secret of the inside")

    monkeypatch.setattr("console.views.overview.read_balance", fail)
    with caplog.at_level(logging.CRITICAL, logger="django.request"):
        response = client_of(people.alice, raise_request_exception=False).get("/console/alice/")
    assert response.status_code == 500
    assert "Something went wrong here" in response.content.decode()
    assert "secret" not in response.content.decode()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("path", "word"), [("/console/alice/", "The database cannot be reached"), ("/api/v1/key", "database_unavailable")]
)
def test_without_postgres_pages_and_api_say_so(path: str, word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection is pointed at a port where nothing listens, as after a kill -9."""
    from crossmodel_site.embedded.ports import find_free_port

    client = Client(raise_request_exception=False)
    client.cookies["sessionid"] = "a" * 32
    connection.close()
    monkeypatch.setitem(connection.settings_dict, "HOST", "127.0.0.1")
    monkeypatch.setitem(connection.settings_dict, "PORT", find_free_port())
    headers = {"x-api-key": "cm-AAAAAAAA-" + "A" * 43}
    try:
        response = client.get(path, headers=headers)
    finally:
        connection.close()
    assert response.status_code == 503
    assert word in response.content.decode()
    assert response["Retry-After"]


PAGES = [
    "/",
    "/reference/",
    "/console/alice/",
    "/console/alice/keys/",
    "/console/alice/keys/new/",
    "/console/alice/usage/",
    "/console/alice/billing/",
    "/console/alice/members/",
    "/organizations/new/",
    "/accounts/email/",
    "/accounts/password/change/",
    "/console/none/",
]


@pytest.mark.parametrize("page", PAGES)
def test_pages_carry_a_strict_policy_and_nothing_inline(people: People, page: str) -> None:
    response = client_of(people.alice).get(page)
    policy = response["Content-Security-Policy"]
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    if page != "/accounts/email/":  # allauth puts a JSON block there, which is data and no script.
        assert INLINE.findall(response.content.decode()) == []


@pytest.mark.parametrize("page", PAGES[2:8])
def test_pages_of_an_organization_are_cached_nowhere(people: People, page: str) -> None:
    assert client_of(people.alice).get(page)["Cache-Control"] == "private, no-store"


def test_only_the_admin_may_run_inline_scripts(people: People) -> None:
    assert "'unsafe-inline'" in Client().get("/admin/login/")["Content-Security-Policy"]
