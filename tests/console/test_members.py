import pytest
from django.test import Client

from accounts.models import Member, Role
from tests.support.people import People, client_of, make_person

MEMBERS = "/console/alice/members/"


@pytest.fixture
def alice(people: People) -> Client:
    return client_of(people.alice)


def role_of(people: People, email: str) -> str | None:
    return (
        Member.objects.filter(organization=people.organization, user__email=email)
        .values_list("role", flat=True)
        .first()
    )


def member_url(people: People, email: str, action: str) -> str:
    member = Member.objects.get(organization=people.organization, user__email=email)
    return f"{MEMBERS}{member.pk}/{action}/"


def test_roles_change_at_once(alice: Client, people: People) -> None:
    alice.post(member_url(people, "bob@example.org", "role"), {"role": "developer"})
    assert role_of(people, "bob@example.org") == "developer"
    assert client_of(people.bob).get("/console/alice/keys/").status_code == 200
    alice.post(member_url(people, "bob@example.org", "remove"))
    assert role_of(people, "bob@example.org") is None
    assert client_of(people.bob).get("/console/alice/").status_code == 404


def test_an_admin_can_neither_make_nor_touch_owners(people: People) -> None:
    people.give_bob(Role.ADMIN)
    bob = client_of(people.bob)
    assert bob.post(member_url(people, "bob@example.org", "role"), {"role": "owner"}).status_code == 403
    assert bob.post(member_url(people, "alice@example.org", "role"), {"role": "viewer"}).status_code == 403
    assert bob.post(member_url(people, "alice@example.org", "remove")).status_code == 403
    assert (role_of(people, "alice@example.org"), role_of(people, "bob@example.org")) == ("owner", "admin")


@pytest.mark.parametrize(("action", "values"), [("remove", {}), ("role", {"role": "viewer"})])
def test_the_last_owner_stays(alice: Client, people: People, action: str, values: dict[str, str]) -> None:
    response = alice.post(member_url(people, "alice@example.org", action), values, follow=True)
    assert "keeps at least one owner" in response.content.decode()
    assert role_of(people, "alice@example.org") == "owner"


def test_an_owner_may_leave_when_another_stays(alice: Client, people: People) -> None:
    people.give_bob(Role.OWNER)
    response = alice.post(member_url(people, "alice@example.org", "remove"), follow=True)
    assert response.redirect_chain[-1][0] == "/organizations/new/"
    assert role_of(people, "alice@example.org") is None


def test_names_of_people_are_escaped(alice: Client, people: People) -> None:
    mallory = make_person("mallory")
    mallory.name = "<script>alert(1)</script>"
    mallory.save()
    Member.objects.create(organization=people.organization, user=mallory, role=Role.VIEWER)
    page = alice.get(MEMBERS).content.decode()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page
