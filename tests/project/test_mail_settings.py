"""Mail goes out as its settings say: to the right port, encrypted, signed in, from the right sender."""

import subprocess
import sys
from pathlib import Path

import pytest
from django.test import Client
from pytest_django import Settings

from accounts.models import User
from crossmodel_site.embedded import find_free_port
from tests.support.local_run import ROOT, clean_environment
from tests.support.mail_server import HOST, MailServer
from tests.support.people import PASSWORD


def send_test_mail(folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = clean_environment({"CROSSMODEL_DATA": str(folder), "CROSSMODEL_EMAIL_HOST": HOST, **variables})
    return subprocess.run(
        [sys.executable, "manage.py", "sendtestemail", "alice@example.com"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("security", ["none", "starttls", "tls"])
def test_mail_is_sent_signed_in_and_encrypted_as_set(tmp_path: Path, security: str) -> None:
    with MailServer(tmp_path, security=security) as server:
        sent = send_test_mail(
            tmp_path,
            CROSSMODEL_EMAIL_PORT=str(server.port),
            CROSSMODEL_EMAIL_SECURITY=security,
            CROSSMODEL_EMAIL_USER="crossmodel",
            CROSSMODEL_EMAIL_PASSWORD="a word: with = signs",
            CROSSMODEL_FROM_EMAIL="CrossModel <billing@example.org>",
            SSL_CERT_FILE=str(server.certificate_path),
        )
    assert sent.returncode == 0, sent.stderr
    assert server.logins == [("crossmodel", "a word: with = signs")]
    [message] = server.messages
    assert "From: CrossModel <billing@example.org>" in message
    assert "To: alice@example.com" in message


def test_a_mail_server_that_nobody_vouches_for_gets_no_password(tmp_path: Path) -> None:
    with MailServer(tmp_path, security="tls") as server:
        sent = send_test_mail(
            tmp_path,
            CROSSMODEL_EMAIL_PORT=str(server.port),
            CROSSMODEL_EMAIL_SECURITY="tls",
            CROSSMODEL_EMAIL_USER="crossmodel",
            CROSSMODEL_EMAIL_PASSWORD="word",
        )
    assert sent.returncode != 0
    assert "CERTIFICATE_VERIFY_FAILED" in sent.stderr
    assert (server.logins, server.messages) == ([], [])


@pytest.mark.django_db
def test_a_person_whose_mail_cannot_be_sent_is_told(settings: Settings) -> None:
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", find_free_port()
    form = {"email": "nora@example.org", "password1": PASSWORD, "password2": PASSWORD}
    response = Client().post("/accounts/signup/", form, follow=True)
    assert response.status_code == 200
    assert "The mail to nora@example.org could not be sent" in response.content.decode()
    assert User.objects.filter(email="nora@example.org").exists()
