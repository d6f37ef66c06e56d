import re
from typing import Any

import pytest
from django.core import mail
from django.test import Client

from accounts.key_secrets import find_key, lend_secret
from accounts.keys import NotAMemberError, create_key
from accounts.members import remove_member
from accounts.models import ApiKey, Invitation, Member, Role
from tests.support.people import PASSWORD, People, client_of, make_person

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


@pytest.fixture
def bobs_key(people: People) -> ApiKey:
    people.give_bob(Role.DEVELOPER)
    return create_key(people.organization, name="Bob's laptop", created_by=people.bob)[0]


def test_removing_says_what_happens_to_keys_and_disables_them(alice: Client, people: People, bobs_key: ApiKey) -> None:
    lent, _ = lend_secret(people.key, user=people.bob)
    url = member_url(people, "bob@example.org", "remove")
    page = alice.get(url).content.decode()
    assert "Bob&#x27;s laptop" in page
    assert people.key.name not in page
    assert role_of(people, "bob@example.org") == "developer"  # Asking changes nothing.
    page = alice.post(url, follow=True).content.decode()
    assert "1 key of theirs will be refused" in page
    bobs_key.refresh_from_db()
    assert (bobs_key.status, bobs_key.disabled_by) == ("disabled", people.alice)
    assert find_key(lent) is None


def test_keys_are_handed_over_to_a_member_who_may_have_keys(alice: Client, people: People, bobs_key: ApiKey) -> None:
    viewer = make_person("vera")
    Member.objects.create(organization=people.organization, user=viewer, role=Role.VIEWER)
    url = member_url(people, "bob@example.org", "remove")
    for stranger in (viewer, people.charlie, people.bob):
        assert alice.post(url, {"keys_go_to": stranger.pk}).status_code == 422
    alice.post(url, {"keys_go_to": people.alice.pk})
    bobs_key.refresh_from_db()
    assert (bobs_key.status, bobs_key.owner, bobs_key.created_by) == ("active", people.alice, people.bob)
    assert role_of(people, "bob@example.org") is None


def test_a_management_key_is_handed_over_and_disabled(alice: Client, people: People) -> None:
    """Who leaves knows its secret: with it they would let themselves in again."""
    people.give_bob(Role.ADMIN)
    key, secret = create_key(
        people.organization, name="Terraform", created_by=people.bob, is_management=True, role=Role.ADMIN
    )
    page = alice.post(member_url(people, "bob@example.org", "remove"), {"keys_go_to": people.alice.pk}, follow=True)
    assert "management keys among them are disabled" in page.content.decode()
    key.refresh_from_db()
    assert (key.owner, key.status, key.disabled_by) == (people.alice, "disabled", people.alice)
    answer = Client().get("/api/v1/members", headers={"authorization": f"Bearer {secret}"})
    assert answer.status_code == 401


def test_a_role_without_keys_says_which_end_and_asks(alice: Client, people: People, bobs_key: ApiKey) -> None:
    """They went on working, in the hands of somebody who may only look."""
    url = member_url(people, "bob@example.org", "role")
    page = alice.post(url, {"role": "viewer"})
    assert "Bob&#x27;s laptop" in page.content.decode()
    assert (page.status_code, role_of(people, "bob@example.org")) == (200, "developer")  # Asking changes nothing.
    page = alice.post(url, {"role": "viewer", "confirmed": "yes", "keys_go_to": ""}, follow=True)
    assert "1 key of theirs will be refused" in page.content.decode()
    bobs_key.refresh_from_db()
    assert (bobs_key.status, bobs_key.disabled_by) == ("disabled", people.alice)
    assert role_of(people, "bob@example.org") == "viewer"


@pytest.mark.parametrize("choice", ["kept", "alice"])
def test_keys_of_a_lost_role_are_left_or_handed_over(
    alice: Client, people: People, bobs_key: ApiKey, choice: str
) -> None:
    url = member_url(people, "bob@example.org", "role")
    chosen = str(people.alice.pk) if choice == "alice" else choice
    for nonsense in (str(people.charlie.pk), str(people.bob.pk), "x"):
        answer = alice.post(url, {"role": "billing", "confirmed": "yes", "keys_go_to": nonsense})
        assert (answer.status_code, role_of(people, "bob@example.org")) == (422, "developer")
    alice.post(url, {"role": "billing", "confirmed": "yes", "keys_go_to": chosen})
    bobs_key.refresh_from_db()
    owner = people.alice if choice == "alice" else people.bob
    assert (bobs_key.status, bobs_key.owner, role_of(people, "bob@example.org")) == ("active", owner, "billing")


def test_a_smaller_role_with_keys_leaves_them_and_names_management_keys_that_end(
    alice: Client, people: People, bobs_key: ApiKey
) -> None:
    people.give_bob(Role.ADMIN)
    key, _ = create_key(
        people.organization, name="Terraform", created_by=people.bob, is_management=True, role=Role.ADMIN
    )
    url = member_url(people, "bob@example.org", "role")
    page = alice.post(url, {"role": "developer"}).content.decode()
    assert ("Terraform" in page, "Bob&#x27;s laptop" in page, "keys_go_to" in page) == (True, False, False)
    alice.post(url, {"role": "developer", "confirmed": "yes"})
    for row, status in ((key, "disabled"), (bobs_key, "active")):
        row.refresh_from_db()
        assert row.status == status


@pytest.mark.parametrize("is_management", [False, True])
def test_who_was_removed_while_they_asked_for_a_key_gets_none(people: People, is_management: bool) -> None:
    people.give_bob(Role.ADMIN)
    asked: dict[str, Any] = {"is_management": is_management, "role": Role.ADMIN if is_management else None}
    remove_member(Member.objects.get(user=people.bob), removed_by=people.alice)
    for created_by, owner in ((people.bob, None), (people.alice, people.bob), (people.bob, people.alice)):
        with pytest.raises(NotAMemberError):
            create_key(people.organization, name="Left", created_by=created_by, owner=owner, **asked)
    assert not ApiKey.objects.filter(name="Left").exists()


def test_who_lost_a_role_meanwhile_makes_no_management_key_with_it(people: People) -> None:
    people.give_bob(Role.DEVELOPER)
    with pytest.raises(NotAMemberError):
        create_key(people.organization, name="Up", created_by=people.bob, is_management=True, role=Role.ADMIN)


def test_anybody_may_leave_and_their_keys_are_disabled(people: People, bobs_key: ApiKey) -> None:
    bob = client_of(people.bob)
    assert "They are disabled when you leave" in bob.get("/console/alice/leave/").content.decode()
    assert bob.post("/console/alice/leave/", follow=True).redirect_chain[-1][0] == "/organizations/new/"
    bobs_key.refresh_from_db()
    assert (bobs_key.is_disabled, role_of(people, "bob@example.org")) == (True, None)
    response = client_of(people.alice).post("/console/alice/leave/", follow=True)
    assert "keeps at least one owner" in response.content.decode()


def test_what_was_typed_outlives_the_session(people: People) -> None:
    browser = client_of(people.alice)
    browser.cookies.clear()
    typed = {"name": "Typed long", "daily_budget_nanos": "2.50", "password": "never", "form_id": "f"}
    response = browser.post("/console/alice/keys/new/", typed)
    assert response["Location"] == "/accounts/login/?next=/console/alice/kept/"
    signed_in = browser.post(response["Location"], {"login": people.alice.email, "password": PASSWORD}, follow=True)
    page = signed_in.content.decode()
    assert ("Typed long" in page, "2.50" in page, "never" in page) == (True, True, False)
    assert not ApiKey.objects.filter(name="Typed long").exists()
    assert 'action="/console/alice/keys/new/"' in page
    assert "Typed long" in browser.get("/console/alice/kept/").content.decode()  # A page that is loaded again, too.
    browser.post("/console/alice/keys/new/", typed)  # Once it is sent, it is forgotten.
    assert browser.get("/console/alice/kept/")["Location"] == "/console/alice/"
    # Charlie, who signs in after Alice on the same browser, sees nothing of it.
    browser.cookies.clear()
    browser.post("/console/alice/keys/new/", typed)
    credentials = {"login": people.charlie.email, "password": PASSWORD}
    assert browser.post(response["Location"], credentials, follow=True).status_code == 404


def test_an_invitation_is_sent_again_under_another_link(alice: Client, people: People) -> None:
    alice.post(MEMBERS, {"email": "nora@example.org", "role": "viewer"})
    first = Invitation.objects.get()
    alice.post(f"/console/alice/invitations/{first.pk}/resend/")
    first.refresh_from_db()
    assert first.withdrawn_at is not None
    assert Invitation.objects.filter(withdrawn_at=None, email="nora@example.org", role="viewer").count() == 1
    assert len(mail.outbox) == 2
    assert alice.post(f"/console/alice/invitations/{first.pk}/resend/").status_code == 404


def test_oneself_is_not_removed_but_leaves(alice: Client, people: People) -> None:
    page = alice.get("/console/alice/members/").content.decode()
    own, bobs = (people.organization.members.get(user=person).pk for person in (people.alice, people.bob))
    assert f"members/{own}/remove/" not in page and f"members/{bobs}/remove/" in page
    assert page.count('href="/console/alice/leave/"') == 2  # In the menu, and in the list.


def test_what_was_typed_is_shown_in_the_words_of_its_page(people: People) -> None:
    browser = Client()
    typed = {"spike_percent": "300", "mails_owners": "on", "told_kinds": ["low_balance", "price_change"]}
    browser.post("/console/alice/alerts/", typed)
    browser.force_login(people.alice, backend="django.contrib.auth.backends.ModelBackend")
    page = " ".join(browser.get("/console/alice/kept/").content.decode().split())
    shown = re.findall(r"<dt>(.*?)</dt> <dd class=.breakable.>(.*?)</dd>", page)
    assert shown == [
        ("Unusual day, at percent of a usual one", "300"),
        ("Owners", "yes"),
        ("Told of", "Low balance"),
        ("Told of", "Price change"),
    ]
