"""An operator looks at an organization's console for support: as a viewer, for a short time, and on the record.

It is kept in the operator's own session, so it ends with it. Nothing can be changed meanwhile, and no page of keys or
money opens: a viewer has neither.
"""

from datetime import datetime, timedelta

from django.http import HttpRequest
from django.utils import timezone

from accounts.access import Access, look_at
from accounts.audit_entries import record
from accounts.models import Organization, User

LASTS = timedelta(minutes=30)
PERMISSION = "accounts.view_as_member"
SESSION_KEY = "support_look"
SUBJECT_TABLE = "accounts_organization"


def begin_look(request: HttpRequest, organization: Organization, *, reason: str) -> datetime:
    """Let the operator who is signed in look, and write it into the organization's audit. Returns when it ends."""
    until = timezone.now() + LASTS
    request.session[SESSION_KEY] = {"organization": organization.pk, "until": until.isoformat()}
    details = {"reason": reason, "until": until.isoformat(timespec="seconds")}
    _record("looked at by support", organization, details)
    return until


def end_look(request: HttpRequest) -> Organization | None:
    """End it, and return what was looked at; None when nothing was."""
    kept = request.session.pop(SESSION_KEY, None)
    organization = Organization.objects.filter(pk=kept["organization"]).first() if kept else None
    if organization is not None:
        _record("no longer looked at", organization, {})
    return organization


def find_look(request: HttpRequest, slug: str) -> Access | None:
    """Return what the operator sees of this organization, while it lasts and their role still permits it."""
    kept = request.session.get(SESSION_KEY)
    if not kept or not isinstance(request.user, User) or not request.user.is_staff:
        return None
    until = datetime.fromisoformat(kept["until"])
    organization = Organization.objects.filter(pk=kept["organization"], slug=slug).first()
    if organization is None or until <= timezone.now() or not request.user.has_perm(PERMISSION):
        return None
    return look_at(organization, operator=request.user, until=until)


def _record(action: str, organization: Organization, details: dict[str, str]) -> None:
    record(
        action,
        subject_table=SUBJECT_TABLE,
        subject_id=organization.pk,
        organization_id=organization.pk,
        details=details,
    )
