"""Three people: Alice owns an organization, Bob is on her team, Charlie has one of his own and no access to hers."""

from dataclasses import dataclass
from functools import cache

from allauth.account.models import EmailAddress
from django.contrib.auth.hashers import make_password
from django.test import Client

from accounts.keys import create_key
from accounts.models import ApiKey, Member, Organization, Role, User
from accounts.organizations import create_organization

PASSWORD = "correct horse battery staple"


@dataclass(frozen=True)
class People:
    alice: User
    bob: User
    charlie: User
    organization: Organization
    charlies: Organization
    key: ApiKey
    secret: str

    def give_bob(self, role: Role) -> None:
        Member.objects.filter(user=self.bob, organization=self.organization).update(role=role)


def make_people(*, bobs_role: Role = Role.VIEWER) -> People:
    alice, bob, charlie = (make_person(name) for name in ("alice", "bob", "charlie"))
    organization = create_organization(name="Alice & Co", owner=alice, slug="alice")
    Member.objects.create(organization=organization, user=bob, role=bobs_role)
    charlies = create_organization(name="Charlie Ltd", owner=charlie, slug="charlie")
    key, secret = create_key(organization, name="Backend", created_by=alice)
    return People(alice, bob, charlie, organization, charlies, key, secret)


def make_person(name: str, **fields: bool) -> User:
    user = User.objects.create(email=f"{name}@example.org", password=_password_hash(), name=name.capitalize(), **fields)
    EmailAddress.objects.create(user=user, email=user.email, verified=True, primary=True)
    return user


@cache
def _password_hash() -> str:
    """Made once for all people of all tests."""
    return make_password(PASSWORD)


def client_of(user: User, *, raise_request_exception: bool = True) -> Client:
    client = Client(raise_request_exception=raise_request_exception)
    client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    return client
