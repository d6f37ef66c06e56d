"""Makes and changes organizations and their members."""

from collections.abc import Mapping
from typing import Any

from django.db import IntegrityError, transaction
from django.utils.text import slugify

from accounts.changes import record_organization_change
from accounts.models import Member, Organization, Role, User

MAX_SLUG_TRIES = 1000
MAX_ORGANIZATIONS_PER_OWNER = 20


class SlugTakenError(Exception):
    """Another organization has this slug."""


class TooManyOrganizationsError(Exception):
    """The person owns MAX_ORGANIZATIONS_PER_OWNER organizations already."""


def create_own_organization(owner: User, *, name: str) -> Organization:
    """Return a new organization of this person. Raises TooManyOrganizationsError, however many ask at once."""
    with transaction.atomic():
        User.objects.select_for_update().get(pk=owner.pk)
        if Member.objects.filter(user=owner, role=Role.OWNER).count() >= MAX_ORGANIZATIONS_PER_OWNER:
            raise TooManyOrganizationsError
        return create_organization(name=name, owner=owner)


def create_organization(
    *, name: str, owner: User | None = None, slug: str = "", fields: Mapping[str, Any] | None = None
) -> Organization:
    """Return a new organization with `owner` as its owner. Its slug is made from its name when none is given.

    Raises SlugTakenError when a slug was given and is taken.
    """
    base = slug or slugify(name)[:50] or "organization"
    candidates = [base] if slug else [base, *(f"{base}-{number}" for number in range(2, MAX_SLUG_TRIES))]
    for candidate in candidates:
        try:
            with transaction.atomic():
                organization = Organization.objects.create(name=name, slug=candidate, **(fields or {}))
                if owner is not None:
                    Member.objects.create(organization=organization, user=owner, role=Role.OWNER)
                record_organization_change(organization)
                return organization
        except IntegrityError:
            if slug or not Organization.objects.filter(slug=candidate).exists():
                raise SlugTakenError(candidate) from None
    raise SlugTakenError(base)


def change_organization(organization: Organization, *, fields: Mapping[str, Any]) -> Organization:
    """Set status, limits or the credit limit; every gateway process sees them at its next admission."""
    with transaction.atomic():
        locked = Organization.objects.select_for_update().get(pk=organization.pk)
        for name, value in fields.items():
            setattr(locked, name, value)
        locked.config_version += 1
        locked.full_clean()
        locked.save()
        record_organization_change(locked)
    return locked
