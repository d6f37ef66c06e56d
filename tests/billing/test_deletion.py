"""Organizations that an owner wants deleted: when they are erased, what they wait for, and what stops it."""

from datetime import UTC, datetime, timedelta

import pytest
from django.core import mail

from accounts.closing import WrongNameError, close_organization
from accounts.members import add_member
from accounts.models import AuditEntry, Member, Organization, Role
from accounts.organizations import change_organization
from billing.documents.closing import last_month_over
from billing.documents.invoices import close_month
from billing.documents.periods import month_of
from billing.models import DeletionRequest, LedgerTransaction
from billing.privacy import deletion
from billing.privacy.deletion import (
    WAITING,
    CannotDeleteError,
    due_deletions,
    erase_due_organizations,
    request_deletion,
    withdraw_deletion,
)
from billing.privacy.erasure import erase_organization
from operations.status import read_status
from pages.mail import send_due_mails
from tests.billing.documents.months import Customer, at
from tests.billing.ledger_factory import USD
from tests.support.people import People, client_of, make_person
from tests.support.settled_usage import sell_model

pytestmark = pytest.mark.django_db
NAME = "Alice & Co"


def ask(people: People) -> DeletionRequest:
    close_organization(people.organization, name=NAME, closed_by=people.alice)
    return request_deletion(people.organization, name=NAME, actor="alice@example.org")


def make_due(request: DeletionRequest) -> datetime:
    """Let the time be over; return now."""
    now = datetime.now(UTC)
    DeletionRequest.objects.filter(pk=request.pk).update(erase_after=now)
    return now


def test_it_is_erased_when_its_time_has_come_and_not_before(people: People) -> None:
    dora = add_member(people.organization, user=make_person("dora"), role=Role.OWNER)
    request = ask(people)
    now = datetime.now(UTC)
    assert request.erase_after >= now + WAITING - timedelta(minutes=1)
    assert request.erase_after > month_of(now).ends, "Its last month has its documents by then."
    assert send_due_mails() == 2
    assert sorted(message.to[0] for message in mail.outbox) == ["alice@example.org", "dora@example.org"]
    assert "will be deleted on" in mail.outbox[0].subject and "/console/alice/settings/delete/" in mail.outbox[0].body
    assert (due_deletions(now), erase_due_organizations(now=now)) == ([], 0)
    assert due_deletions(request.erase_after) == [request]
    assert erase_due_organizations(now=make_due(request)) == 1
    people.organization.refresh_from_db()
    assert people.organization.slug == f"erased-{people.organization.pk}"
    assert not Member.objects.filter(organization=people.organization).exists() and dora.pk
    assert not DeletionRequest.objects.exists()
    assert AuditEntry.objects.filter(action="erased", subject_id=str(people.organization.pk)).exists()
    assert erase_due_organizations(now=datetime.now(UTC)) == 0


def test_who_cannot_ask_and_who_takes_it_back(people: People) -> None:
    with pytest.raises(CannotDeleteError, match="Close"):
        request_deletion(people.organization, name=NAME, actor="alice@example.org")
    request = ask(people)
    with pytest.raises(WrongNameError):
        request_deletion(people.organization, name="Charlie Ltd", actor="alice@example.org")
    assert request_deletion(people.organization, name=NAME, actor="dora@example.org") == request
    assert withdraw_deletion(people.organization, actor="alice@example.org")
    assert not withdraw_deletion(people.organization, actor="alice@example.org")
    assert send_due_mails() == 0, "It is not worth telling any more."
    assert erase_due_organizations(now=make_due(request)) == 0
    again = request_deletion(people.organization, name=NAME, actor="alice@example.org")
    assert again.pk != request.pk


def test_it_waits_for_documents_and_for_what_is_owed_and_says_so(people: People) -> None:
    version = sell_model()
    customer = Customer(people.organization)
    customer.give(5 * USD, at(9, 1))
    customer.use(version, at(9, 2), input_tokens=1_000_000, output_tokens=0)
    request = ask(people)
    assert erase_due_organizations(now=make_due(request)) == 0
    request.refresh_from_db()
    assert request.waits_because == "The documents of 2026-09 are not written."
    told = [line for line in read_status() if line.name == "deletion of alice"]
    assert [(line.says, line.needs_a_person) for line in told] == [(request.waits_because, True)]
    close_month(people.organization, last_month_over())
    spent = Customer(people.organization)
    spent.use(version, datetime.now(UTC), input_tokens=2_000_000, output_tokens=0)
    assert erase_due_organizations(now=make_due(request)) == 0
    request.refresh_from_db()
    assert request.waits_because == deletion.OWES
    assert withdraw_deletion(people.organization, actor="alice@example.org")
    with pytest.raises(CannotDeleteError, match="owed"):
        request_deletion(people.organization, name=NAME, actor="alice@example.org")
    assert LedgerTransaction.objects.filter(organization=people.organization).exists()


def test_one_that_was_opened_again_is_kept(people: People) -> None:
    request = ask(people)
    change_organization(people.organization, fields={"status": Organization.Status.ACTIVE})
    assert erase_due_organizations(now=make_due(request)) == 0
    request.refresh_from_db()
    assert (request.ended_at is not None, request.ended_by) == (True, "system")
    assert Organization.objects.get(pk=people.organization.pk).slug == "alice"


def test_reopened_by_an_operator_it_is_not_deleted_when_it_is_closed_again(people: People) -> None:
    ask(people)
    operator = client_of(make_person("root", is_staff=True, is_superuser=True))
    address = f"/admin/accounts/organization/{people.organization.pk}/reopen/"
    assert operator.post(address, {"reason": "A mistake"}).status_code == 302
    assert DeletionRequest.objects.get().ended_by == "root@example.org"
    close_organization(people.organization, name=NAME, closed_by=people.alice)
    assert due_deletions(datetime.now(UTC) + 2 * WAITING) == []


@pytest.mark.usefixtures("redis_away")
def test_without_redis_it_waits_and_owners_read_nothing_of_it(people: People) -> None:
    request = ask(people)
    assert erase_due_organizations(now=make_due(request)) == 0
    request.refresh_from_db()
    assert (request.waits_because, request.ended_at) == ("", None)


def test_an_erasure_that_was_broken_off_is_done_again(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    request = ask(people)
    with monkeypatch.context() as broken:
        broken.setattr("billing.privacy.erasure.record_organization_change", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            erase_organization(Organization.objects.get(pk=people.organization.pk))
    assert not Member.objects.filter(organization=people.organization).exists()
    assert erase_due_organizations(now=make_due(request)) == 1
    assert Organization.objects.get(pk=people.organization.pk).slug.startswith("erased-")
