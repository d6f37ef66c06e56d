"""Operators by staff role, and the arguments with which they run commands that move money."""

from contextlib import suppress

from django.contrib.auth.models import Group
from django.db import IntegrityError, transaction
from django.test import Client

from accounts.models import User
from accounts.staff_roles import StaffRole
from tests.support.people import client_of, make_person


def make_operator(name: str, *roles: StaffRole, is_superuser: bool = False) -> User:
    operator = make_person(name, is_staff=True, is_superuser=is_superuser)
    # Tests that commit empty every table, those of migrations too.
    operator.groups.set([Group.objects.get_or_create(name=role)[0] for role in roles])
    return operator


def operator_client(name: str, *roles: StaffRole, is_superuser: bool = False) -> Client:
    return client_of(make_operator(name, *roles, is_superuser=is_superuser))


def as_root() -> tuple[str, ...]:
    """Return arguments that name a superuser and answer yes; the account is made when it is missing."""
    if not User.objects.filter(email="root@example.org").exists():
        with suppress(IntegrityError), transaction.atomic():  # Another thread of the test makes it too.
            make_operator("root", is_superuser=True)
    return ("--actor", "root@example.org", "--yes")
