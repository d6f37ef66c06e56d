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
MAX_FORMER_SLUGS = 10  # Of an organization: each is one that nobody else can have.
ERASED = "erased-"  # How slugs of erased organizations begin.
RESERVED = f"Letters must be in it, and it cannot begin with “{ERASED}”."


class SlugRefusedError(Exception):
    """An organization cannot have this slug; the text says why, for people."""


class SlugTakenError(SlugRefusedError):
    """Another organization has this slug, or had it before."""

    def __init__(self) -> None:
        super().__init__("Another organization has this, or had it before, and links with it lead there.")


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

    Raises SlugTakenError when a slug was given and is taken, SlugRefusedError when it can be nobody's.
    """
    if slug and _is_reserved(slug):
        raise SlugRefusedError(RESERVED)
    base = slug or slugify(name)[:50] or "organization"
    if _is_reserved(base):
        base = f"organization-{base}"[:50]
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
                raise SlugTakenError from None
    raise SlugTakenError


def change_organization(organization: Organization, *, fields: Mapping[str, Any]) -> Organization:
    """Set status, limits or the credit limit; every gateway process sees them at its next admission.

    A slug that it had stays its own. Raises SlugRefusedError for what check_slug() refuses.
    """
    with transaction.atomic():
        locked = Organization.objects.select_for_update().get(pk=organization.pk)
        left_slug = locked.slug
        if "slug" in fields:
            check_slug(fields["slug"], organization=locked)
        for name, value in fields.items():
            setattr(locked, name, value)
        locked.config_version += 1
        locked.full_clean()
        try:
            with transaction.atomic():
                locked.save()
        except IntegrityError:  # Somebody else took the slug at the same moment: nothing else of it is unique.
            raise SlugTakenError from None
        if locked.slug != left_slug:
            _refuse_former_slug(locked)
            FormerSlug.objects.filter(organization=locked, slug=locked.slug).delete()
            FormerSlug.objects.create(organization=locked, slug=left_slug)
        record_organization_change(locked)
    return locked


def check_slug(slug: str, *, organization: Organization | None) -> None:
    """Raise SlugRefusedError when an organization, or with None a new one, cannot have the slug: it is reserved, is or
    was another's, or the organization has left MAX_FORMER_SLUGS behind.
    """
    own_id = organization.pk if organization else 0
    if organization is not None and organization.slug == slug:
        return
    if _is_reserved(slug):
        raise SlugRefusedError(RESERVED)
    if Organization.objects.filter(slug=slug).exclude(pk=own_id).exists():
        raise SlugTakenError
    former = FormerSlug.objects.filter(slug=slug).first()
    if former is not None and former.organization_id != own_id:
        raise SlugTakenError
    left = FormerSlug.objects.filter(organization=organization).count() if organization else 0
    if former is None and left >= MAX_FORMER_SLUGS:
        raise SlugRefusedError(f"There have been {left} others already, and links with each lead here. Go back to one.")


def find_organization(slug: str) -> Organization | None:
    """Return the organization with this slug, or the one that had it before."""
    found = Organization.objects.filter(slug=slug).first()
    if found is not None:
        return found
    former = FormerSlug.objects.select_related("organization").filter(slug=slug).first()
    return former.organization if former else None


def _is_reserved(slug: str) -> bool:
    """Numbers are ids to operators; erased organizations are called by theirs."""
    return slug.isdecimal() or slug.startswith(ERASED)


def _is_slug_taken(slug: str) -> bool:
    return Organization.objects.filter(slug=slug).exists() or FormerSlug.objects.filter(slug=slug).exists()


def _refuse_former_slug(organization: Organization) -> None:
    """Asked after the slug is written: whoever gave it up at the same moment has committed by then."""
    if FormerSlug.objects.filter(slug=organization.slug).exclude(organization=organization).exists():
        raise SlugTakenError
