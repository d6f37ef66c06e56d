"""Tenancy and roles, for every URL that names an organization, so that a new page cannot be forgotten here."""

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client
from django.urls import URLPattern, get_resolver, reverse
from django.urls.resolvers import URLResolver

from accounts.invitations import invite
from accounts.keys import create_key
from accounts.models import ApiKey, Member, Role
from billing.models import LedgerTransaction
from tests.support.people import People, client_of
from tests.support.settled_usage import billed_event, sell_model, settle

READ, WRITE = "get", "post"
# What each page needs, written out a second time: the views are judged by this, not by themselves.
WHO = {
    "overview": {"owner", "admin", "developer", "billing", "viewer"},
    "usage": {"owner", "admin", "developer", "billing", "viewer"},
    "usage_export": {"owner", "admin", "developer", "billing", "viewer"},
    "receipt": {"owner", "admin", "developer", "billing", "viewer"},
    "billing": {"owner", "admin", "billing"},
    "transaction": {"owner", "admin", "billing"},
    "keys": {"owner", "admin", "developer"},
    "key_new": {"owner", "admin", "developer"},
    "key_edit": {"owner", "admin", "developer"},
    "key_revoke": {"owner", "admin", "developer"},
    "members": {"owner", "admin"},
    "invitation_withdraw": {"owner", "admin"},
    "member_role": {"owner", "admin"},
    "member_remove": {"owner", "admin"},
    "organization_settings": {"owner", "admin"},
}
POST_ONLY = {"invitation_withdraw", "member_role", "member_remove"}
WRITES = {"billing", "key_new", "key_edit", "key_revoke", "members", "member_role", "member_remove"} | {
    "invitation_withdraw",
    "organization_settings",
}


def organization_routes() -> list[str]:
    return sorted(_names(get_resolver()))


def _names(resolver: URLResolver) -> Iterator[str]:
    for pattern in resolver.url_patterns:
        if isinstance(pattern, URLResolver):
            if pattern.namespace is None:
                yield from _names(pattern)
        elif isinstance(pattern, URLPattern) and "slug" in pattern.pattern.converters:
            assert pattern.name
            yield pattern.name


@pytest.fixture
def urls(people: People) -> dict[str, str]:
    """A URL of Alice's organization for every route, with ids that exist there."""
    event = billed_event(people.key, sell_model())
    settle([event])
    bob = Member.objects.get(user=people.bob, organization=people.organization)
    bobs_key, _ = create_key(people.organization, name="Bob's", created_by=people.bob)
    invitation, _ = invite(people.organization, email="v@example.org", role=Role.VIEWER, invited_by=people.alice)
    ids: dict[str, dict[str, Any]] = {
        "receipt": {"request_id": event.request_id},
        "transaction": {"transaction_id": LedgerTransaction.objects.latest("id").pk},
        "key_edit": {"key_id": bobs_key.pk},
        "key_revoke": {"key_id": bobs_key.pk},
        "invitation_withdraw": {"invitation_id": invitation.pk},
        "member_role": {"member_id": bob.pk},
        "member_remove": {"member_id": bob.pk},
    }
    return {name: reverse(name, kwargs={"slug": "alice", **ids.get(name, {})}) for name in organization_routes()}


def test_the_table_of_this_test_names_every_route() -> None:
    assert organization_routes() == sorted(WHO)


@pytest.mark.parametrize("name", sorted(WHO))
@pytest.mark.parametrize("method", [READ, WRITE])
def test_a_stranger_finds_nothing(people: People, urls: dict[str, str], name: str, method: str) -> None:
    response = getattr(client_of(people.charlie), method)(urls[name])
    assert response.status_code in ({404} if is_allowed(name, method) else {404, 405})
    assert "Alice" not in response.content.decode()


@pytest.mark.parametrize("name", sorted(WHO))
def test_nobody_is_sent_to_sign_in(people: People, urls: dict[str, str], name: str) -> None:
    response = Client().post(urls[name]) if name in POST_ONLY else Client().get(urls[name])
    assert response.status_code == 302
    assert response["Location"].startswith("/accounts/login/?next=")


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("name", sorted(WHO))
def test_roles_open_what_they_should(people: People, urls: dict[str, str], name: str, role: Role) -> None:
    people.give_bob(role)
    client = client_of(people.bob)
    response = client.post(urls[name], {}) if name in POST_ONLY else client.get(urls[name])
    if role in WHO[name]:
        assert response.status_code in {200, 302} or (name == "member_role" and response.status_code == 403)
    else:
        assert response.status_code == 403


@pytest.mark.parametrize("name", sorted(WRITES))
def test_a_viewer_writes_nothing(people: People, urls: dict[str, str], name: str) -> None:
    before = (ApiKey.objects.filter(revoked_at=None).count(), sorted(Member.objects.values_list("pk", "role")))
    values = {"name": "Mine", "form_id": uuid.uuid4().hex, "role": "owner", "email": people.charlie.email}
    assert client_of(people.bob).post(urls[name], values).status_code == 403
    after = (ApiKey.objects.filter(revoked_at=None).count(), sorted(Member.objects.values_list("pk", "role")))
    assert after == before


@pytest.mark.parametrize("name", ["receipt", "transaction", "key_edit", "key_revoke", *sorted(POST_ONLY)])
def test_ids_of_another_organization_are_unknown_in_ones_own(people: People, urls: dict[str, str], name: str) -> None:
    """Charlie owns an organization and asks for Alice's rows under his own name."""
    url = urls[name].replace("/console/alice/", "/console/charlie/")
    client = client_of(people.charlie)
    response = client.post(url, {"role": "viewer"}) if name in POST_ONLY else client.get(url)
    assert response.status_code == 404
    if name == "key_revoke":
        assert client.post(url).status_code == 404
        assert not ApiKey.objects.exclude(revoked_at=None).exists()


def test_filters_do_not_reach_across(people: People, urls: dict[str, str]) -> None:
    theirs, _ = create_key(people.charlies, name="Charlies", created_by=people.charlie)
    mine = client_of(people.charlie)
    response = mine.get(reverse("usage", kwargs={"slug": "charlie"}), {"key": people.key.pk})
    assert response.status_code == 422
    assert "Backend" not in response.content.decode()
    assert mine.get(reverse("usage", kwargs={"slug": "charlie"}), {"key": theirs.pk}).status_code == 200
    export: Any = mine.get(reverse("usage_export", kwargs={"slug": "charlie"}), {"key": people.key.pk})
    assert len(export.getvalue().splitlines()) == 1


def is_allowed(name: str, method: str) -> bool:
    if method == READ:
        return name not in POST_ONLY
    return name in WRITES
