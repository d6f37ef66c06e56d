"""A developer sees and changes only the keys that they made."""

import pytest
from django.test import Client

from accounts.keys import create_key
from accounts.models import ApiKey, Role
from tests.support.people import People, client_of

KEYS = "/console/alice/keys/"


@pytest.fixture
def bobs_key(people: People) -> ApiKey:
    people.give_bob(Role.DEVELOPER)
    return create_key(people.organization, name="Bob's laptop", created_by=people.bob)[0]


@pytest.fixture
def bob(people: People) -> Client:
    return client_of(people.bob)


def test_the_list_of_a_developer_holds_their_own(bob: Client, bobs_key: ApiKey, people: People) -> None:
    page = bob.get(KEYS).content.decode()
    assert "Bob&#x27;s laptop" in page
    assert people.key.last_four not in page
    assert people.key.name not in page


@pytest.mark.parametrize("path", ["", "revoke/"])
@pytest.mark.parametrize("method", ["get", "post"])
def test_a_developer_cannot_touch_the_key_of_another(
    bob: Client, bobs_key: ApiKey, people: People, path: str, method: str
) -> None:
    form = {"name": "Mine now", "daily_budget_nanos": "100"}
    assert getattr(bob, method)(f"{KEYS}{people.key.pk}/{path}", form).status_code == 404
    people.key.refresh_from_db()
    assert (people.key.name, people.key.daily_budget_nanos, people.key.is_revoked) == ("Backend", None, False)


def test_a_developer_changes_and_revokes_their_own(bob: Client, bobs_key: ApiKey) -> None:
    assert bob.post(f"{KEYS}{bobs_key.pk}/", {"name": "Bob's desk", "daily_budget_nanos": "3"}).status_code == 302
    bobs_key.refresh_from_db()
    assert (bobs_key.name, bobs_key.daily_budget_nanos) == ("Bob's desk", 3 * 10**9)
    assert bob.post(f"{KEYS}{bobs_key.pk}/revoke/").status_code == 302
    bobs_key.refresh_from_db()
    assert bobs_key.is_revoked


@pytest.mark.parametrize("role", [Role.ADMIN, Role.OWNER])
def test_owners_and_admins_manage_every_key(bob: Client, bobs_key: ApiKey, people: People, role: Role) -> None:
    people.give_bob(role)
    assert people.key.name in bob.get(KEYS).content.decode()
    assert bob.get(f"{KEYS}{people.key.pk}/").status_code == 200
