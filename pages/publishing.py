"""What every page does after it changed something that admission enforces."""

from contextlib import suppress

from django.contrib import messages
from django.http import HttpRequest

from billing.admission.errors import AdmissionUnavailableError
from billing.admission.outbox import publish_pending_changes

NOT_YET = "It takes effect as soon as the admission store (Redis) can be reached again."


def publish_or_tell(request: HttpRequest, *, done: str = "", what_waits: str = "Saved.") -> bool:
    """Bring the change into Redis and say that it is `done`; when Redis is away, say what is saved and waits.

    The change itself is committed in Postgres either way, and published later by the worker.
    """
    try:
        publish_pending_changes()
    except AdmissionUnavailableError:
        messages.warning(request, f"{what_waits} {NOT_YET}")
        return False
    if done:
        messages.success(request, done)
    return True


def publish_in_silence() -> None:
    """Bring changes into Redis now where that is possible; nobody is told, and the worker does the rest."""
    with suppress(AdmissionUnavailableError):
        publish_pending_changes()
