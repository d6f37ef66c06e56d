"""Export, erasure, retention and leaked keys in the admin: who may, what is asked first, and what it leaves behind."""

import json
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core import mail
from django.test import Client

from accounts.models import AuditEntry, Organization
from accounts.staff_roles import StaffRole
from billing.models import DataRetention
from pages.mail import send_due_mails
from tests.support.operators import operator_client
from tests.support.people import People


@pytest.fixture
def root(people: People) -> Client:
    return operator_client("root", is_superuser=True)


def organization_page(people: People, button: str) -> str:
    return f"/admin/accounts/organization/{people.organization.pk}/{button}/"


def test_details_are_kept_for_as_long_as_operations_says(people: People) -> None:
    client = operator_client("oda", StaffRole.OPERATIONS)
    page = organization_page(people, "keep-details")
    for days, kept in (("30", 30), ("", None)):
        assert client.post(page, {"days": days}).status_code == 302
        assert DataRetention.objects.get().details_days == kept
    assert client.post(page, {"days": "0"}).status_code == 422
    assert operator_client("sam", StaffRole.SUPPORT).post(page, {"days": "1"}).status_code == 403


def test_an_organization_is_exported_and_its_audit_says_so(people: People, root: Client) -> None:
    page = organization_page(people, "export")
    assert root.get(page).status_code == 200
    answer = root.post(page)
    assert answer["Content-Disposition"].startswith('attachment; filename="alice-')
    lines = async_to_sync(read)(answer).splitlines()
    assert any("Alice & Co" in line for line in lines)
    assert all(json.loads(line) for line in lines)
    assert people.secret not in "".join(lines)
    assert AuditEntry.objects.filter(action="exported", organization_id=people.organization.pk).exists()


async def read(answer: Any) -> str:
    return "".join([chunk.decode() async for chunk in answer.streaming_content])


def test_an_organization_is_erased_once_it_is_closed_and_its_slug_typed(people: People, root: Client) -> None:
    page = organization_page(people, "erase")
    assert "close it first" in root.post(page, {"typed": "alice"}).content.decode()
    Organization.objects.filter(pk=people.organization.pk).update(status="closed")
    assert "This is not alice." in root.post(page, {"typed": "bob"}).content.decode()
    people.organization.refresh_from_db()
    assert people.organization.name == "Alice & Co"
    assert root.post(page, {"typed": "alice"}).status_code == 302
    people.organization.refresh_from_db()
    assert people.organization.name == f"Erased organization {people.organization.pk}"
    assert AuditEntry.objects.filter(action="erased", subject_id=str(people.organization.pk)).exists()


def test_a_person_is_exported_and_erased(people: People, root: Client) -> None:
    page = f"/admin/accounts/user/{people.bob.pk}/"
    answer = root.post(f"{page}export/")
    assert answer["Content-Disposition"].startswith(f'attachment; filename="person-{people.bob.pk}-')
    rows = [json.loads(line) for line in answer.content.decode().splitlines()]
    assert rows
    assert people.bob.password not in answer.content.decode()
    assert root.post(f"{page}erase/", {"typed": "alice@example.org"}).status_code == 422
    assert root.post(f"{page}erase/", {"typed": people.bob.email}).status_code == 302
    people.bob.refresh_from_db()
    assert "bob" not in f"{people.bob.email} {people.bob.name}".lower()


def test_the_last_owner_and_operators_are_not_erased(people: People, root: Client) -> None:
    page = f"/admin/accounts/user/{people.alice.pk}/erase/"
    assert "Nothing was erased." in root.post(page, {"typed": people.alice.email}).content.decode()
    people.alice.refresh_from_db()
    assert people.alice.email == "alice@example.org"


@pytest.mark.parametrize("role", StaffRole)
def test_no_role_exports_or_erases(people: People, role: StaffRole) -> None:
    client = operator_client("walker", role)
    for button in ("export", "erase"):
        assert client.post(organization_page(people, button), {"typed": "alice"}).status_code == 403
        assert client.post(f"/admin/accounts/user/{people.bob.pk}/{button}/", {"typed": "b"}).status_code == 403


def test_a_leaked_key_is_revoked_and_its_people_are_told(people: People) -> None:
    client = operator_client("sam", StaffRole.SUPPORT)
    page = f"/admin/accounts/apikey/{people.key.pk}/leaked/"
    for _ in range(2):
        assert client.post(page, {"place": "a public repository"}).status_code == 302
    people.key.refresh_from_db()
    assert people.key.is_revoked
    assert send_due_mails() == 1
    [told] = mail.outbox
    assert told.to == [people.alice.email]
    assert "a public repository" in told.body
