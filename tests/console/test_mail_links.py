"""Mails lead to the configured address, whatever Host a request names."""

import re
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from asgiref.testing import ApplicationCommunicator
from django.core import mail
from pytest_django import Settings

from crossmodel_site.pages import PageRequest, PagesHandler
from tests.support.people import make_person

CSRF = re.compile(rb'name="csrfmiddlewaretoken" value="([^"]+)"')


async def ask(method: str, path: str, *, body: bytes = b"", cookie: str = "") -> tuple[int, dict[str, str], bytes]:
    """Send a request under a host that is not ours to the handler of pages."""
    headers = [(b"host", b"evil.example"), (b"content-type", b"application/x-www-form-urlencoded")]
    headers += [(b"content-length", b"%d" % len(body)), (b"cookie", cookie.encode())]
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": headers,
        "client": ("127.0.0.1", 1),
        "server": ("evil.example", 80),
    }
    talk: Any = ApplicationCommunicator(PagesHandler(), scope)  # type: ignore[no-untyped-call]
    await talk.send_input({"type": "http.request", "body": body})
    start = await talk.receive_output(30)
    answer = await talk.receive_output(30)
    return start["status"], {name.decode(): value.decode() for name, value in start["headers"]}, answer["body"]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("path", "person"),
    [("/accounts/password/reset/", "alice"), ("/accounts/signup/", "alice"), ("/accounts/signup/", "zoe")],
)
async def test_links_and_names_in_mail_follow_the_base_url(path: str, person: str, settings: Settings) -> None:
    settings.ACCOUNT_EMAIL_VERIFICATION = "mandatory"
    settings.BASE_URL = "https://billing.example.org"
    settings.ALLOWED_HOSTS = ["*"]
    await sync_to_async(make_person)("alice")
    _, headers, page = await ask("GET", path)
    token = CSRF.search(page)
    assert token
    password = "correct+horse+battery"
    body = f"email={person}@example.org&password1={password}&password2={password}&csrfmiddlewaretoken=".encode()
    body += token[1]
    status, _, _ = await ask("POST", path, body=body, cookie=headers["Set-Cookie"].split(";")[0])
    assert status == 302
    (message,) = mail.outbox
    assert "billing.example.org" in message.body
    assert "evil.example" not in f"{message.body}{message.subject}"
    assert "CrossModel" in message.subject
    assert "CrossModel\nbilling.example.org" in message.body


def test_an_absolute_address_is_never_made_of_the_host(settings: Settings) -> None:
    settings.BASE_URL = "https://billing.example.org"
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/a/b/",
        "query_string": b"c=d",
        "headers": [(b"host", b"evil.example")],
    }
    request = PageRequest(scope, None)  # type: ignore[arg-type]  # it has no body
    assert request.build_absolute_uri() == "https://billing.example.org/a/b/?c=d"
    assert request.build_absolute_uri("/x/") == "https://billing.example.org/x/"
    assert request.build_absolute_uri("https://other.example/x") == "https://other.example/x"
