"""The outbox of mail, sent to a real SMTP server: once, to confirmed addresses, and not lost while it is away."""

import email
import email.policy
from collections.abc import Iterator
from datetime import timedelta
from email.message import EmailMessage
from pathlib import Path

import pytest
from allauth.account.models import EmailAddress
from django.utils import timezone
from pytest_django import Settings

from accounts.members import remove_member
from accounts.models import Member, Role
from billing.alerts.book import clear_alert
from billing.alerts.notices import queue_notices
from billing.mail_outbox import (
    LEASE_SECONDS,
    MAX_ATTEMPTS,
    MailToQueue,
    claim_mails,
    count_late_mails,
    forget_old_mails,
    queue_mails,
    wait_seconds,
)
from billing.models import Alert, OutgoingMail
from crossmodel_site.embedded.ports import find_free_port
from pages.alert_text import PLACES, WORDS, describe_alert
from pages.mail import CONTEXTS, send_due_mails
from tests.support.mail_server import HOST, MailServer
from tests.support.people import People, make_people
from tests.support.spending import raise_some_alert
from tests.support.together import run_together

pytestmark = pytest.mark.django_db


@pytest.fixture
def people() -> People:
    return make_people()


@pytest.fixture
def server(tmp_path: Path, settings: Settings) -> Iterator[MailServer]:
    with MailServer(tmp_path, security="none") as server:
        settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
        settings.EMAIL_HOST, settings.EMAIL_PORT = HOST, server.port
        settings.DEFAULT_FROM_EMAIL = "CrossModel <alerts@example.com>"
        settings.BASE_URL = "https://billing.example.org"
        yield server


def parse(text: str) -> EmailMessage:
    return email.message_from_string(text, policy=email.policy.default)


def text_of(message: EmailMessage, kind: str) -> str:
    body = message.get_body((kind,))
    assert body is not None
    return str(body.get_content())


def test_an_alert_comes_as_a_mail_that_says_who_it_is_from(people: People, server: MailServer) -> None:
    raise_some_alert(people.organization)
    queue_notices()
    assert send_due_mails() == 1
    assert send_due_mails() == 0
    [message] = [parse(text) for text in server.messages]
    mail = OutgoingMail.objects.get()
    assert (message["To"], message["From"]) == ("alice@example.org", "CrossModel <alerts@example.com>")
    assert message["Subject"] == "CrossModel: Alice & Co: A payment failed"
    assert message["Message-ID"] == f"<{mail.pk}@example.com>"
    assert message["Auto-Submitted"] == "auto-generated"
    plain, html = text_of(message, "plain"), text_of(message, "html")
    assert "this concerns Alice & Co on CrossModel" in plain
    assert "The reason given: declined." in plain
    assert "https://billing.example.org/console/alice/billing/" in plain
    assert "You get this as owner of Alice & Co." in plain
    assert "Alice &amp; Co" in html
    assert 'href="https://billing.example.org/console/alice/billing/"' in html
    assert (mail.sent_to, mail.problem) == ("alice@example.org", "")


def test_several_alerts_come_as_one_mail(people: People, server: MailServer) -> None:
    for number in range(25):
        raise_some_alert(people.organization, subject=str(number))
    queue_notices()
    send_due_mails()
    [message] = [parse(text) for text in server.messages]
    assert message["Subject"] == "CrossModel: Alice & Co: 25 things to know"
    plain = text_of(message, "plain")
    assert plain.count("A payment failed") == 20
    assert "And 5 more" in plain


def test_a_server_that_is_away_loses_nothing(people: People, server: MailServer, settings: Settings) -> None:
    raise_some_alert(people.organization)
    queue_notices()
    settings.EMAIL_PORT = find_free_port()
    assert send_due_mails() == 0
    mail = OutgoingMail.objects.get()
    assert "ConnectionRefusedError" in mail.problem
    assert mail.next_attempt_at > timezone.now() + timedelta(seconds=50)
    settings.EMAIL_PORT = server.port
    assert send_due_mails() == 0  # It is not due yet.
    OutgoingMail.objects.update(next_attempt_at=timezone.now())
    assert send_due_mails() == 1
    assert len(server.messages) == 1


def test_a_sender_that_died_is_followed_by_another_with_the_same_id(people: People, server: MailServer) -> None:
    raise_some_alert(people.organization)
    queue_notices()
    [taken] = claim_mails(limit=10)
    assert send_due_mails() == 0  # While the first may still be at it.
    OutgoingMail.objects.update(next_attempt_at=timezone.now() - timedelta(seconds=LEASE_SECONDS))
    assert send_due_mails() == 1
    [message] = [parse(text) for text in server.messages]
    assert str(taken.pk) in message["Message-ID"]


@pytest.mark.django_db(transaction=True)
def test_senders_at_once_send_each_mail_once(server: MailServer) -> None:
    people = make_people()
    for number in range(6):
        people.give_bob(Role.BILLING)
        raise_some_alert(people.organization, subject=str(number))
        queue_notices()
    assert run_together(*[lambda: send_due_mails(limit=2)] * 4) == []
    while send_due_mails():
        pass
    ids = [parse(text)["Message-ID"] for text in server.messages]
    assert (len(ids), len(set(ids))) == (12, 12)


def test_what_was_sent_long_ago_is_forgotten(people: People, server: MailServer) -> None:
    raise_some_alert(people.organization)
    queue_notices()
    assert forget_old_mails() == 0
    OutgoingMail.objects.update(created_at=timezone.now() - timedelta(days=91))
    assert forget_old_mails() == 1


def test_mail_that_does_not_go_out_is_noticed(people: People, server: MailServer) -> None:
    raise_some_alert(people.organization)
    queue_notices()
    assert count_late_mails() == 0
    OutgoingMail.objects.update(created_at=timezone.now() - timedelta(minutes=16))
    assert count_late_mails() == 1
    send_due_mails()
    assert count_late_mails() == 0


def test_it_is_given_up_after_three_days(people: People, server: MailServer, settings: Settings) -> None:
    raise_some_alert(people.organization)
    queue_notices()
    settings.EMAIL_PORT = find_free_port()
    for _ in range(MAX_ATTEMPTS):
        OutgoingMail.objects.filter(given_up_at=None).update(next_attempt_at=timezone.now())
        send_due_mails()
    mail = OutgoingMail.objects.get()
    assert mail.given_up_at is not None
    assert 2.5 <= sum(map(wait_seconds, range(1, MAX_ATTEMPTS))) / 86_400 <= 4


def test_an_address_that_is_not_confirmed_gets_nothing(people: People, server: MailServer) -> None:
    EmailAddress.objects.filter(user=people.alice).update(verified=False)
    raise_some_alert(people.organization)
    queue_notices()
    assert send_due_mails() == 0
    mail = OutgoingMail.objects.get()
    assert (server.messages, mail.problem) == ([], "The person has no confirmed address.")
    assert mail.given_up_at is not None


def test_who_has_left_meanwhile_gets_nothing(people: People, server: MailServer) -> None:
    people.give_bob(Role.BILLING)
    raise_some_alert(people.organization)
    queue_notices()
    remove_member(Member.objects.get(user=people.bob, organization=people.organization))
    assert send_due_mails() == 1
    assert [parse(text)["To"] for text in server.messages] == ["alice@example.org"]


def test_what_is_over_before_the_mail_goes_is_not_told(people: People, server: MailServer) -> None:
    raise_some_alert(people.organization)
    queue_notices()
    clear_alert(people.organization, Alert.Kind.PAYMENT_FAILED)
    assert send_due_mails() == 0
    assert server.messages == []


def test_one_mail_that_cannot_be_made_holds_up_no_other(people: People, server: MailServer) -> None:
    queue_mails([MailToQueue(people.alice.pk, "no-such-template", "x", people.organization.pk)])
    raise_some_alert(people.organization)
    queue_notices()
    assert send_due_mails() == 1
    assert "KeyError" in OutgoingMail.objects.get(template="no-such-template").problem


def test_a_name_cannot_write_headers_or_markup(people: People, server: MailServer) -> None:
    people.organization.name = "Evil\r\nBcc: everybody@example.org <b>x</b>"
    people.organization.save()
    raise_some_alert(people.organization)
    queue_notices()
    assert send_due_mails() == 1
    [message] = [parse(text) for text in server.messages]
    assert message["Bcc"] is None
    assert "<b>x</b>" not in text_of(message, "html")


DETAILS = {
    "available_nanos": 420_000_000,
    "low_balance_nanos": 30 * 10**9,
    "usual_day_nanos": 10 * 10**9,
    "is_chosen": True,
    "period": "month",
    "percent": 80,
    "spent_nanos": 1,
    "budget_nanos": 2,
    "day": "2026-11-28",
    "today_nanos": 99 * 10**9,
    "projected_nanos": 3,
    "expires_at": "2026-12-01T10:00:00+00:00",
    "begins": "2026-12-01",
    "retires_at": "2026-12-01T10:00:00+00:00",
    "model": "acme/large",
    "reason": "card declined",
    "host": "example.org",
    "problem": "It answered 500.",
}


@pytest.mark.parametrize("kind", list(Alert.Kind))
def test_every_kind_has_words_and_a_place_that_its_reader_may_open(people: People, kind: Alert.Kind) -> None:
    assert set(WORDS) == set(PLACES) == set(Alert.Kind)
    alert = Alert(organization=people.organization, kind=kind, details=DETAILS, key=people.key)
    for role in Role:
        told = describe_alert(alert, role=role)
        assert told.title
        assert told.text.endswith(".")
        assert "None" not in f"{told.title}{told.text}"
        assert told.link.startswith("/console/alice/")


def test_amounts_are_read_as_people_read_them(people: People) -> None:
    alert = Alert(organization=people.organization, kind="low_balance", details=DETAILS)
    told = describe_alert(alert, role="owner")
    assert told.text.startswith("$0.42 was left. You asked to be told below $30.00. A usual day costs $10.00.")
    budget = Alert(organization=people.organization, kind="budget_warning", details={**DETAILS, "begins": "2026-11-01"})
    assert describe_alert(budget, role="owner").title == "Your monthly budget is nearly used up"
    assert "since Nov 1, 2026" in describe_alert(budget, role="owner").text


def test_every_template_has_its_context() -> None:
    folder = Path(__file__).resolve().parents[2] / "templates" / "mail"
    assert {path.name for path in folder.iterdir() if path.is_dir()} == set(CONTEXTS)
