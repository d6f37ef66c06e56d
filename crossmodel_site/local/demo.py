"""The demo of a local run: one organization with welcome credit, a member, an operator and a key."""

import secrets
from collections.abc import Mapping

from allauth.account.models import EmailAddress
from django.db import transaction

from accounts.key_format import hash_key
from accounts.keys import create_key
from accounts.models import ApiKey, Member, Organization, Role, User
from accounts.organizations import create_organization
from billing.credit.top_ups import welcome_credit

ORGANIZATION_NAME = "Demo"
ORGANIZATION_SLUG = "demo"
MEMBER_EMAIL = "demo@example.com"
OPERATOR_EMAIL = "operator@example.com"
KEY_NAME = "Demo key"
PASSWORD_BYTES = 12


def ensure_demo(known: Mapping[str, str], *, base_url: str) -> dict[str, str]:
    """Make what is missing of the demo. Returns the variables of `demo.env`.

    `known` is what an earlier call returned, or empty. Passwords and key are reused when they belong to this database.
    A password that nobody knows any more, because the file was lost, is replaced, as is a key that was revoked.
    """
    with transaction.atomic():
        console_password = _ensure_login(MEMBER_EMAIL, known.get("CROSSMODEL_CONSOLE_PASSWORD", ""), name="Demo member")
        admin_password = _ensure_login(
            OPERATOR_EMAIL, known.get("CROSSMODEL_ADMIN_PASSWORD", ""), name="Operator", is_operator=True
        )
        organization = _ensure_organization(User.objects.get(email=MEMBER_EMAIL))
        key_text = _ensure_key(organization, known.get("CROSSMODEL_API_KEY", ""))
    return {
        "CROSSMODEL_BASE_URL": base_url,
        "CROSSMODEL_API_KEY": key_text,
        "CROSSMODEL_CONSOLE_EMAIL": MEMBER_EMAIL,
        "CROSSMODEL_CONSOLE_PASSWORD": console_password,
        "CROSSMODEL_ADMIN_EMAIL": OPERATOR_EMAIL,
        "CROSSMODEL_ADMIN_PASSWORD": admin_password,
    }


def _ensure_login(email: str, known_password: str, *, name: str, is_operator: bool = False) -> str:
    """Return the password of the login, which exists afterwards. One that its owner changed is left alone."""
    password = known_password or secrets.token_urlsafe(PASSWORD_BYTES)
    user = User.objects.filter(email=email).first()
    if user is None:
        user = User.objects.create_user(email, password, name=name, is_staff=is_operator, is_superuser=is_operator)
        EmailAddress.objects.create(user=user, email=email, verified=True, primary=True)
    elif not known_password:
        user.set_password(password)
        user.save(update_fields=["password"])
    return password


def _ensure_organization(owner: User) -> Organization:
    organization = Organization.objects.filter(slug=ORGANIZATION_SLUG).first()
    if organization is None:
        organization = create_organization(name=ORGANIZATION_NAME, slug=ORGANIZATION_SLUG, owner=owner)
        welcome_credit(organization, person=owner)
    Member.objects.get_or_create(organization=organization, user=owner, defaults={"role": Role.OWNER})
    return organization


def _ensure_key(organization: Organization, known_text: str) -> str:
    if known_text:
        alive = ApiKey.objects.filter(
            organization=organization, secret_sha256=hash_key(known_text), revoked_at=None
        ).exists()
        if alive:
            return known_text
    return create_key(organization, name=KEY_NAME, created_by=None)[1]
