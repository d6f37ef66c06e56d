"""Mail of a local run: written by Django's file backend, shown with its links, each message once."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from django.core.mail import EmailMultiAlternatives, get_connection, send_mail
from django.core.mail.backends.base import BaseEmailBackend
from django.test import override_settings

from crossmodel_site.local.mail import MailFolder


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    with override_settings(
        EMAIL_BACKEND="django.core.mail.backends.filebased.EmailBackend", EMAIL_FILE_PATH=str(tmp_path)
    ):
        yield tmp_path


def test_each_message_is_shown_once_with_its_links(folder: Path) -> None:
    mail = MailFolder(folder)
    assert list(mail.read_new()) == []
    send_mail("Confirm", "Please open http://localhost:8000/a/1?b=c.\nThanks", None, ["alice@example.com"])
    assert list(mail.read_new()) == ["mail to alice@example.com: Confirm  http://localhost:8000/a/1?b=c"]
    send_mail("No link", "Nothing to open.", None, ["bob@example.com", "charlie@example.com"])
    assert list(mail.read_new()) == ["mail to bob@example.com, charlie@example.com: No link"]
    assert list(mail.read_new()) == []


def test_messages_of_one_connection_share_a_file_and_are_shown_as_they_come(folder: Path) -> None:
    mail = MailFolder(folder)
    connection: BaseEmailBackend = get_connection()
    for number in range(3):
        send_mail(f"Number {number}", f"http://localhost/{number}", None, ["a@example.com"], connection=connection)
        assert list(mail.read_new()) == [f"mail to a@example.com: Number {number}  http://localhost/{number}"]
    assert len(list(folder.glob("*.log"))) == 1


def test_a_long_link_in_encoded_mail_stays_whole(folder: Path) -> None:
    link = "http://localhost/accounts/confirm-email/" + "x" * 200 + "/"
    message = EmailMultiAlternatives("Grüße", f"Schöne Grüße, öffne {link}", None, ["a@example.com"])
    message.attach_alternative(f"<p>Schöne Grüße: <a href='{link}'>hier</a></p>", "text/html")
    mail = MailFolder(folder)
    message.send()
    assert list(mail.read_new()) == [f"mail to a@example.com: Grüße  {link}"]


def test_what_was_there_before_is_not_shown_again(folder: Path) -> None:
    send_mail("Old", "http://localhost/old", None, ["a@example.com"])
    assert list(MailFolder(folder).read_new()) == []
