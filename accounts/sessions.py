"""Sign-ins that have ended by themselves: who never signs out leaves a session behind, and a line in a list."""

from datetime import datetime, timedelta

from allauth.usersessions.models import UserSession
from django.conf import settings
from django.contrib.sessions.models import Session
from django.db.models import Exists, OuterRef

MAX_FORGOTTEN_AT_ONCE = 10_000


def forget_ended_sessions(*, now: datetime) -> int:
    """Delete some of the sessions whose time is over, and of what is listed of those that are gone; return how many.

    A session lives for SESSION_COOKIE_AGE after it changed last, so that only older lines are looked at.
    """
    ended = Session.objects.filter(expire_date__lt=now).values_list("pk", flat=True)[:MAX_FORGOTTEN_AT_ONCE]
    sessions, _ = Session.objects.filter(pk__in=list(ended)).delete()
    old = UserSession.objects.filter(last_seen_at__lt=now - timedelta(seconds=settings.SESSION_COOKIE_AGE))
    gone = old.filter(~Exists(Session.objects.filter(pk=OuterRef("session_key")))).values_list("pk", flat=True)
    lines, _ = UserSession.objects.filter(pk__in=list(gone[:MAX_FORGOTTEN_AT_ONCE])).delete()
    return int(sessions + lines)
