"""What a command that has changed money says when Redis is away."""

from django.core.management.base import OutputWrapper

from billing.admission.errors import AdmissionUnavailableError
from billing.admission.outbox import publish_pending_changes


def publish_or_say(stdout: OutputWrapper, what: str = "the new balance") -> None:
    """Tell Redis of what is committed, or say that it follows: the change itself is safe."""
    try:
        publish_pending_changes()
    except AdmissionUnavailableError as error:
        stdout.write(f"Redis cannot be reached ({error}); it gets {what} once it is back.")
