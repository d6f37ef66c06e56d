"""Who is told, how often, and that a mail and a webhook are queued in the transaction that says so."""

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.members import remove_member
from accounts.models import Member, Role
from accounts.organizations import create_organization
from billing.alerts.book import clear_alert, raise_alert
from billing.alerts.choices import change_choices
from billing.alerts.notices import MAX_NOTICES_PER_HOUR, QUIET, queue_notices
from billing.models import Alert, OutgoingMail, WebhookDelivery
from billing.webhooks.endpoints import add_endpoint
from tests.support.people import People, make_people, make_person
from tests.support.spending import raise_some_alert

pytestmark = pytest.mark.django_db


@pytest.fixture
def people() -> People:
    return make_people()


def told() -> list[str]:
    """Return who has a mail waiting, a name for each mail."""
    return sorted(mail.user.email.partition("@")[0] for mail in OutgoingMail.objects.select_related("user"))


@pytest.mark.parametrize(
    ("role", "gets_mail"),
    [(Role.OWNER, True), (Role.BILLING, True), (Role.ADMIN, False), (Role.DEVELOPER, False), (Role.VIEWER, False)],
)
def test_owners_and_billing_are_told(people: People, role: Role, gets_mail: bool) -> None:
    people.give_bob(role)
    raise_some_alert(people.organization)
    assert queue_notices() == 1
    assert told() == (["alice", "bob"] if gets_mail else ["alice"])


def test_the_owner_of_the_key_is_told_once_and_only_while_a_member(people: People) -> None:
    people.key.owner = people.bob
    people.key.save()
    raise_some_alert(people.organization, subject="a", key_id=people.key.pk)
    queue_notices()
    assert told() == ["alice", "bob"]
    remove_member(Member.objects.get(user=people.bob, organization=people.organization))
    raise_some_alert(people.organization, subject="b", key_id=people.key.pk)
    queue_notices()
    assert told() == ["alice", "alice", "bob"]


def test_an_organization_chooses_who_is_told_of_what(people: People) -> None:
    people.give_bob(Role.ADMIN)
    change_choices(people.organization, fields={"mails_owners": False, "mails_admins": True})
    raise_some_alert(people.organization)
    queue_notices()
    assert told() == ["bob"]
    change_choices(people.organization, fields={"muted_kinds": ["payment_failed"]})
    add_endpoint(people.organization, url="https://example.org/", created_by=None)
    raise_some_alert(people.organization, subject="b")
    assert queue_notices() == 1
    assert told() == ["bob"]
    assert not WebhookDelivery.objects.exists()


def test_all_that_is_new_goes_into_one_mail_to_each(people: People) -> None:
    people.give_bob(Role.BILLING)
    alerts = [raise_some_alert(people.organization, subject=str(number)) for number in range(5)]
    theirs = raise_some_alert(people.charlies)
    assert queue_notices() == 6
    assert told() == ["alice", "bob", "charlie"]
    contexts = [mail.context for mail in OutgoingMail.objects.exclude(user=people.charlie)]
    assert contexts == [{"alerts": [alert.pk for alert in alerts]}] * 2
    assert OutgoingMail.objects.get(user=people.charlie).context == {"alerts": [theirs.pk]}
    assert queue_notices() == 0


def test_flapping_is_told_of_once_and_again_when_it_is_still_so_hours_later(people: People) -> None:
    for _ in range(50):
        raise_alert(people.organization, Alert.Kind.PAYMENT_FAILED)
        queue_notices()
        clear_alert(people.organization, Alert.Kind.PAYMENT_FAILED)
        queue_notices()
    assert told() == ["alice"]
    raise_alert(people.organization, Alert.Kind.PAYMENT_FAILED)
    queue_notices()
    assert told() == ["alice"]
    Alert.objects.exclude(notified_at=None).update(notified_at=timezone.now() - QUIET)
    queue_notices()
    assert told() == ["alice", "alice"]


def test_after_several_mails_within_an_hour_the_rest_comes_as_one(people: People) -> None:
    for number in range(MAX_NOTICES_PER_HOUR + 5):
        raise_some_alert(people.organization, subject=str(number))
        queue_notices()
    raise_some_alert(people.charlies)  # Others are not held up by it.
    queue_notices()
    assert told() == ["alice"] * MAX_NOTICES_PER_HOUR + ["charlie"]
    Alert.objects.exclude(notified_at=None).update(notified_at=timezone.now() - timedelta(hours=1))
    assert queue_notices() == 5
    assert told() == ["alice"] * (MAX_NOTICES_PER_HOUR + 1) + ["charlie"]


def test_the_same_mail_is_queued_once(people: People) -> None:
    """As after a crash between two rounds that saw the same alert."""
    alert = raise_some_alert(people.organization)
    queue_notices()
    Alert.objects.filter(pk=alert.pk).update(notified_at=None)
    queue_notices()
    assert told() == ["alice"]


def test_webhooks_hear_of_both_ends_and_people_of_the_first(people: People) -> None:
    add_endpoint(people.organization, url="https://example.org/all", created_by=None)
    add_endpoint(people.organization, url="https://example.org/some", kinds=["low_balance"], created_by=None)
    add_endpoint(people.charlies, url="https://example.org/other", created_by=None)
    alert = raise_some_alert(people.organization)
    queue_notices()
    clear_alert(people.organization, Alert.Kind.PAYMENT_FAILED)
    queue_notices()
    queue_notices()
    deliveries = WebhookDelivery.objects.order_by("created_at").select_related("endpoint")
    assert [(each.event_id, each.endpoint.url) for each in deliveries] == [
        (f"evt_alert_{alert.pk}_raised", "https://example.org/all"),
        (f"evt_alert_{alert.pk}_cleared", "https://example.org/all"),
    ]
    assert told() == ["alice"]


def test_what_was_over_before_anybody_was_told_is_told_to_nobody(people: People) -> None:
    raise_some_alert(people.organization)
    clear_alert(people.organization, Alert.Kind.PAYMENT_FAILED)
    assert queue_notices() == 0
    assert told() == []


def test_a_round_asks_as_much_for_many_organizations_as_for_one(people: People) -> None:
    def statements(names: list[str]) -> int:
        for name in names:
            owner = make_person(name)
            organization = create_organization(name=name, owner=owner)
            add_endpoint(organization, url="https://example.org/", created_by=owner)
            raise_some_alert(organization)
        with CaptureQueriesContext(connection) as queries:
            assert queue_notices() == len(names)
        return len(queries)

    assert statements(["one"]) == statements(["two", "three", "four"])
    assert told() == ["four", "one", "three", "two"]
