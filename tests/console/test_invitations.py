"""People join by consent: the mailed token and a login that has confirmed the address, and nothing less."""

import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from functools import partial

import pytest
from allauth.account.models import EmailAddress
from django.core import mail
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from accounts.invitations import (
    MAX_INVITATIONS_PER_ADDRESS_AND_DAY,
    TooManyInvitationsError,
    find_invitation,
    invite,
    open_invitations,
)
from accounts.models import Invitation, Member, Organization, Role, User
from accounts.organizations import create_organization
from tests.support.people import PASSWORD, People, client_of, make_person
from tests.support.together import run_together

MEMBERS = "/console/alice/members/"
LINK = re.compile(r"(/invitations/\S+)")


@pytest.fixture
def alice(people: People) -> Client:
    return client_of(people.alice)


def invited(client: Client, email: str, *, role: str = "developer") -> str:
    """Invite an address and return the path of the link in the mail."""
    mail.outbox.clear()
    response = client.post(MEMBERS, {"email": email, "role": role})
    assert response.status_code == 302
    (message,) = mail.outbox
    assert message.to == [email.lower()]
    link = LINK.search(str(message.body))
    assert link
    return link[1]


def role_of(people: People, email: str) -> str | None:
    found = Member.objects.filter(organization=people.organization, user__email=email)
    return found.values_list("role", flat=True).first()


def sign_up(client: Client, email: str) -> Client:
    client.post("/accounts/signup/", {"email": email, "password1": PASSWORD, "password2": PASSWORD})
    return client


def test_who_accepts_becomes_a_member(alice: Client, people: People) -> None:
    link = invited(alice, "CHARLIE@example.org", role="billing")
    assert role_of(people, "charlie@example.org") is None
    charlie = client_of(people.charlie)
    assert "Join Alice &amp; Co" in charlie.get(link).content.decode()
    assert charlie.post(link, follow=True).redirect_chain[-1][0] == "/console/alice/"
    assert role_of(people, "charlie@example.org") == "billing"
    assert charlie.get(link).status_code == 404


def test_somebody_without_an_account_makes_one_and_joins(alice: Client, people: People) -> None:
    link = invited(alice, "nora@example.org")
    nora = Client()
    assert "nora@example.org" in nora.get(link).content.decode()
    mail.outbox.clear()
    sign_up(nora, "nora@example.org")
    assert mail.outbox == []  # The link has shown whose mailbox it is.
    assert nora.post(link).status_code == 302
    assert role_of(people, "nora@example.org") == "developer"


def test_who_signed_up_first_with_the_address_of_another_gains_nothing(alice: Client, people: People) -> None:
    """The attacker knows the password of an account with Nora's address; the link, and a confirmation, are Nora's."""
    attacker = sign_up(Client(), "nora@example.org")
    link = invited(alice, "nora@example.org")
    assert attacker.get("/console/").status_code == 302
    assert attacker.get("/console/")["Location"].startswith("/accounts/login/")
    nora = Client()
    nora.get(link)
    assert nora.post(link).status_code == 422
    assert role_of(people, "nora@example.org") is None
    assert not EmailAddress.objects.filter(email="nora@example.org", verified=True).exists()
    codes = [message for message in mail.outbox if "is your code" in message.subject]
    assert not any("/accounts/confirm-email/" in message.body for message in codes)  # There is no link to click.


def test_an_unconfirmed_login_cannot_accept(alice: Client, people: People) -> None:
    user = User.objects.create_user("nora@example.org", PASSWORD)
    EmailAddress.objects.create(user=user, email=user.email, verified=False, primary=True)
    link = invited(alice, "nora@example.org")
    assert client_of(user).post(link).status_code == 422
    assert role_of(people, "nora@example.org") is None


def test_the_link_is_for_its_address_only(alice: Client, people: People) -> None:
    link = invited(alice, "nora@example.org")
    charlie = client_of(people.charlie)
    assert "signed in as charlie@example.org" in charlie.get(link).content.decode()
    assert charlie.post(link).status_code == 422
    assert role_of(people, "charlie@example.org") is None


def test_the_answer_is_the_same_with_and_without_an_account(alice: Client, people: People) -> None:
    def answer(email: str) -> str:
        Invitation.objects.all().delete()
        page = alice.post(MEMBERS, {"email": email, "role": "viewer"}, follow=True).content.decode()
        return re.sub(r'value="[^"]{30,}"|/invitations/\d+/', "", page.replace(email, "X"))

    make_person("known")
    assert answer("known@example.org") == answer("nobody@example.org")


@pytest.mark.parametrize(
    ("email", "told"),
    [("bob@example.org", "Already a member"), ("BOB@example.org", "Already a member"), ("x", "valid email")],
)
def test_others_cannot_be_invited(alice: Client, people: People, email: str, told: str) -> None:
    response = alice.post(MEMBERS, {"email": email, "role": "viewer"})
    assert response.status_code == 422
    assert told in response.content.decode()
    assert not Invitation.objects.exists()


def test_a_new_invitation_replaces_the_one_before(alice: Client, people: People) -> None:
    first, second = invited(alice, "charlie@example.org"), invited(alice, "charlie@example.org", role="viewer")
    charlie = client_of(people.charlie)
    assert charlie.post(first).status_code == 404
    assert charlie.post(second).status_code == 302
    assert role_of(people, "charlie@example.org") == "viewer"


def test_an_invitation_is_withdrawn(alice: Client, people: People) -> None:
    link = invited(alice, "charlie@example.org")
    invitation = Invitation.objects.get()
    assert "charlie@example.org" in alice.get(MEMBERS).content.decode()
    response = alice.post(f"/console/alice/invitations/{invitation.pk}/withdraw/", follow=True)
    assert "is withdrawn" in response.content.decode()
    assert client_of(people.charlie).post(link).status_code == 404


def test_an_invitation_expires(alice: Client, people: People) -> None:
    link = invited(alice, "charlie@example.org")
    Invitation.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert client_of(people.charlie).post(link).status_code == 404
    assert invited(alice, "charlie@example.org") != link


@pytest.mark.parametrize("change", [{"role": Role.DEVELOPER}, None])
def test_an_invitation_ends_with_the_right_to_send_it(people: People, change: dict[str, Role] | None) -> None:
    people.give_bob(Role.ADMIN)
    link = invited(client_of(people.bob), "charlie@example.org", role="admin")
    member = Member.objects.filter(user=people.bob)
    member.update(**change) if change else member.delete()
    assert client_of(people.charlie).post(link).status_code == 404


def test_only_owners_invite_owners_and_withdraw_what_owners_sent(people: People) -> None:
    people.give_bob(Role.ADMIN)
    bob = client_of(people.bob)
    assert bob.post(MEMBERS, {"email": "charlie@example.org", "role": "owner"}).status_code == 422
    invitation, _ = invite(people.organization, email="charlie@example.org", role=Role.OWNER, invited_by=people.alice)
    assert bob.post(f"/console/alice/invitations/{invitation.pk}/withdraw/").status_code == 403
    assert bob.post(MEMBERS, {"email": "Charlie@example.org", "role": "viewer"}).status_code == 422
    assert [each.role for each in open_invitations(people.organization)] == [Role.OWNER]
    assert client_of(people.alice).post(MEMBERS, {"email": "charlie@example.org", "role": "viewer"}).status_code == 302
    assert [each.role for each in open_invitations(people.organization)] == [Role.VIEWER]


def test_nobodys_mailbox_is_flooded(people: People) -> None:
    def fill() -> Iterator[int]:
        for number in range(MAX_INVITATIONS_PER_ADDRESS_AND_DAY + 1):
            client = client_of(people.alice if number % 2 else people.charlie)
            slug = "alice" if number % 2 else "charlie"
            yield client.post(f"/console/{slug}/members/", {"email": "v@example.org", "role": "viewer"}).status_code

    assert list(fill()) == [302] * MAX_INVITATIONS_PER_ADDRESS_AND_DAY + [422]
    assert len(mail.outbox) == MAX_INVITATIONS_PER_ADDRESS_AND_DAY


@pytest.mark.django_db(transaction=True)
def test_organizations_that_invite_at_once_do_not_flood_a_mailbox_either(people: People) -> None:
    organizations = [create_organization(name=f"Number {number}", owner=people.charlie) for number in range(16)]

    def invite_one(organization: Organization) -> None:
        with suppress(TooManyInvitationsError):
            invite(organization, email="v@example.org", role=Role.VIEWER, invited_by=people.charlie)

    assert not run_together(*(partial(invite_one, organization) for organization in organizations))
    assert Invitation.objects.filter(email="v@example.org").count() == MAX_INVITATIONS_PER_ADDRESS_AND_DAY


def test_only_the_hash_of_the_token_is_kept(people: People) -> None:
    invitation, token = invite(people.organization, email="v@example.org", role=Role.VIEWER, invited_by=people.alice)
    assert token.encode() not in bytes(invitation.token_sha256)
    assert find_invitation(token) == invitation
    assert find_invitation(token + "x") is None


@pytest.mark.django_db
def test_signing_up_says_nothing_about_who_has_an_account(settings: Settings) -> None:
    make_person("known")
    pages = [
        Client().post(
            "/accounts/signup/", {"email": f"{name}@example.org", "password1": PASSWORD, "password2": PASSWORD}
        )
        for name in ("known", "nobody")
    ]
    assert [(page.status_code, page["Location"]) for page in pages] == [(302, "/accounts/confirm-email/")] * 2
