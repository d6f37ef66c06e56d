"""A key that strangers can read dies once, its people are told, and only GitHub's own word revokes one from outside."""

import base64
import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from django.core.cache import cache
from django.core.management import CommandError, call_command
from django.test import Client

from accounts.models import AdmissionChange
from billing.models import OutgoingMail
from pages.mail import render_mail
from tests.support.people import People

pytestmark = pytest.mark.django_db
ADDRESS = "/secret-scanning/github/"
PLACE = "https://github.example/octocat/app/blob/main/.env"
SIGNER, STRANGER = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))


@pytest.fixture
def published(settings: Any) -> Iterator[None]:
    """GitHub's list of keys, served over HTTP."""
    pem = SIGNER.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    odd: list[object] = ["key", None, {"key": pem}, {"key_identifier": "k2"}]  # Other forms take no key from us.
    listed = {"public_keys": [*odd, {"key_identifier": "k1", "key": pem, "is_current": True}]}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(listed).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            return

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    settings.SECRET_SCANNING_URL = f"http://127.0.0.1:{server.server_port}/keys"
    cache.clear()
    yield
    server.shutdown()
    server.server_close()
    cache.clear()


def tell(*texts: str, signer: Any = SIGNER, identifier: str = "k1", body: bytes = b"") -> Any:
    found = [{"token": text, "type": "crossmodel_api_key", "url": PLACE, "source": "commit"} for text in texts]
    body = body or json.dumps(found).encode()
    signature = base64.b64encode(signer.sign(body, ec.ECDSA(SHA256()))).decode()
    headers = {"github-public-key-identifier": identifier, "github-public-key-signature": signature}
    return Client().post(ADDRESS, body, content_type="application/json", headers=headers)


@pytest.mark.usefixtures("published")
def test_a_key_that_github_finds_is_revoked_and_its_people_are_told(people: People) -> None:
    never_ours = people.secret[:-1] + ("a" if people.secret[-1] != "a" else "b")
    answer = tell(people.secret, never_ours, "ghp_something")
    assert [item["label"] for item in answer.json()] == ["true_positive", "false_positive", "false_positive"]
    assert answer.json()[0]["token_raw"] == people.secret
    people.key.refresh_from_db()
    assert people.key.is_revoked
    mails = OutgoingMail.objects.filter(template="key_leaked")
    assert people.alice.pk in {mail.user_id for mail in mails}
    text = render_mail(mails[0])
    assert PLACE in text.body
    assert people.key.prefix in text.body
    assert people.secret not in str(text.message())
    told = mails.count()
    assert tell(people.secret).json()[0]["label"] == "true_positive", "It is a key of ours, though dead."
    assert OutgoingMail.objects.filter(template="key_leaked").count() == told


@pytest.mark.usefixtures("published")
def test_nobody_else_revokes_a_key(people: People) -> None:
    assert tell(people.secret, signer=STRANGER).status_code == 400
    assert tell(people.secret, identifier="k2").status_code == 400
    assert Client().post(ADDRESS, "[]", content_type="application/json").status_code == 400
    assert Client().get(ADDRESS).status_code == 405
    assert tell(body=b"{}").status_code == 400
    assert tell(body=b"[1]").status_code == 400
    assert tell(*["x"] * 101).status_code == 400
    people.key.refresh_from_db()
    assert not people.key.is_revoked


def test_without_the_setting_nothing_is_there(people: People) -> None:
    assert tell(people.secret).status_code == 404


def test_while_githubs_keys_cannot_be_had_it_is_asked_to_come_again(people: People, settings: Any) -> None:
    settings.SECRET_SCANNING_URL = "http://127.0.0.1:9/keys"
    cache.clear()
    assert [tell(people.secret).status_code for _ in range(2)] == [503, 503]


def test_an_operator_looks_a_prefix_up_and_revokes_the_key(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    call_command("revoke_key", people.key.prefix, stdout=out)
    assert "live" in out.getvalue()
    people.key.refresh_from_db()
    assert not people.key.is_revoked, "It only looked."
    monkeypatch.setattr("sys.stdin", io.StringIO(people.secret + "\n"))
    call_command("revoke_key", "-", "--yes", stdout=out)
    people.key.refresh_from_db()
    assert people.key.is_revoked
    call_command("revoke_key", people.key.prefix, "--yes", stdout=out)
    assert "revoked before" in out.getvalue()
    assert AdmissionChange.objects.filter(key=people.key).count() <= 2
    with pytest.raises(CommandError, match="no key of ours"):
        call_command("revoke_key", "cm-xxxxxxxx", stdout=out)
