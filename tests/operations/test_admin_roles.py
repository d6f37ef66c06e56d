"""Each table and page of the admin opens with the permission that docs/roles.md names, and without it to nobody."""

import pytest
from django.apps import apps
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import NoReverseMatch, reverse

from accounts.models import User
from tests.support.people import People, client_of, make_person
from tests.support.roles import NAME, table

ARGUMENTS: tuple[dict[str, str], ...] = ({}, {"object_id": "1"}, {"name": "settle"}, {"request_id": "0" * 32})


@pytest.fixture
def olga(db: None) -> User:
    return make_person("olga", is_staff=True)


def address_of(name: str) -> str:
    for arguments in ARGUMENTS:
        try:
            return reverse(name, kwargs=arguments)
        except NoReverseMatch:
            continue
    raise AssertionError(f"{name} has arguments that this test does not know")


def ask(client: Client, address: str) -> int:
    status = client.get(address).status_code
    return client.post(address).status_code if status == 405 else status


def test_a_member_is_no_operator(people: People) -> None:
    alice = client_of(people.alice)
    for name in tables():
        assert alice.get(list_of(name)).status_code == 302, name
    for name, _ in buttons():
        assert ask(alice, address_of(name)) == 302, name


def test_a_table_opens_with_the_permission_to_view_it(olga: User) -> None:
    client = client_of(olga)
    for name in tables():
        assert client.get(list_of(name)).status_code == 403, name
    olga.user_permissions.set(Permission.objects.filter(codename__startswith="view_"))
    for name in tables():
        assert client.get(list_of(name)).status_code == 200, name


def test_a_button_needs_its_own_permission(olga: User) -> None:
    """With every permission but this one it is refused; with it alone it is there (a row with the id 1 is not)."""
    client = client_of(olga)
    for name, needed in buttons():
        app_label, codename = needed.split(".")
        own = Permission.objects.filter(content_type__app_label=app_label, codename=codename)
        assert own.count() == 1, name
        olga.user_permissions.set(Permission.objects.exclude(pk__in=own))
        assert ask(client, address_of(name)) == 403, name
        olga.user_permissions.set(own)
        assert ask(client, address_of(name)) in {200, 302, 404}, name


def tables() -> list[str]:
    return [NAME.findall(row[0])[0] for row in table("table", of="The admin")]


def list_of(name: str) -> str:
    meta = apps.get_model(name)._meta
    return reverse(f"admin:{meta.app_label}_{meta.model_name}_changelist")


def buttons() -> list[tuple[str, str]]:
    return [(NAME.findall(name)[0], needs.strip("`")) for name, needs in table("page or button")]
