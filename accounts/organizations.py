"""Makes and changes organizations and their members."""

from collections.abc import Mapping
from typing import Any

from django.db import IntegrityError, transaction
from django.utils.text import slugify

from accounts.members import AddressNotConfirmedError, has_confirmed
from accounts.models import FormerSlug, Member, Organization, Role, User
from accounts.outbox import record_organization_change

MAX_SLUG_TRIES = 1000
MAX_ORGANIZATIONS_PER_OWNER = 20


class SlugTakenError(Exception):
    """Another organization has this slug."""


class TooManyOrganizationsError(Exception):
    """The person owns MAX_ORGANIZATIONS_PER_OWNER organizations already."""


def create_own_organization(owner: User, *, name: str) -> Organization:
    """Return a new organization of this person, however many ask at once.

    Raises AddressNotConfirmedError, TooManyOrganizationsError.
    """
    if not has_confirmed(owner, owner.email):
        raise AddressNotConfirmedError
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
                _refuse_former_slug(organization)
                record_organization_change(organization)
                return organization
        except (IntegrityError, SlugTakenError):
            if slug or not _is_slug_taken(candidate):
                raise SlugTakenError(candidate) from None
    raise SlugTakenError(base)


def change_organization(organization: Organization, *, fields: Mapping[str, Any]) -> Organization:
    """Set status, limits or the credit limit; every gateway process sees them at its next admission.

    A slug that it had stays its own. Raises SlugTakenError when another organization has, or had, the new one.
    """
    with transaction.atomic():
        locked = Organization.objects.select_for_update().get(pk=organization.pk)
        left_slug = locked.slug
        for name, value in fields.items():
            setattr(locked, name, value)
        locked.config_version += 1
        locked.full_clean()
        locked.save()
        if locked.slug != left_slug:
            _refuse_former_slug(locked)
            FormerSlug.objects.filter(organization=locked, slug=locked.slug).delete()
            FormerSlug.objects.create(organization=locked, slug=left_slug)
        record_organization_change(locked)
    return locked


def find_organization(slug: str) -> Organization | None:
    """Return the organization with this slug, or the one that had it before."""
    found = Organization.objects.filter(slug=slug).first()
    if found is not None:
        return found
    former = FormerSlug.objects.select_related("organization").filter(slug=slug).first()
    return former.organization if former else None


def _is_slug_taken(slug: str) -> bool:
    return Organization.objects.filter(slug=slug).exists() or FormerSlug.objects.filter(slug=slug).exists()


def _refuse_former_slug(organization: Organization) -> None:
    """Asked after the slug is written: whoever gave it up at the same moment has committed by then."""
    if FormerSlug.objects.filter(slug=organization.slug).exclude(organization=organization).exists():
        raise SlugTakenError(organization.slug)
