"""Makes, changes and removes webhook endpoints, and their secrets."""

import ipaddress
from collections.abc import Sequence
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from django.conf import settings
from django.db import transaction
from django.db.models import Count, F, Q, QuerySet
from django.utils import timezone

from accounts.models import Organization, User
from accounts.sealing import LostSecretError, reseal
from billing.alerts.book import clear_alert
from billing.models import Alert, WebhookDelivery, WebhookEndpoint
from billing.network_addresses import is_reachable
from billing.webhooks.secrets import PURPOSE, make_secret, seal

MAX_ENDPOINTS_PER_ORGANIZATION = 10
MAX_URL_CHARS = 500
MAX_PORT = 65_535
# How long a replaced secret goes on signing beside the new one.
ROTATION = timedelta(hours=24)


class InvalidUrlError(ValueError):
    """Nothing can be sent there; the text says why, to the person who typed it."""


class TooManyEndpointsError(Exception):
    """The organization has MAX_ENDPOINTS_PER_ORGANIZATION endpoints already."""


def add_endpoint(
    organization: Organization, *, url: str, kinds: Sequence[str] = (), description: str = "", created_by: User | None
) -> tuple[WebhookEndpoint, str]:
    """Return a new endpoint and its secret, which is shown once. Raises InvalidUrlError, TooManyEndpointsError."""
    url = check_url(url)
    secret = make_secret()
    with transaction.atomic():
        Organization.objects.select_for_update().get(pk=organization.pk)
        if kept_endpoints(organization).count() >= MAX_ENDPOINTS_PER_ORGANIZATION:
            raise TooManyEndpointsError
        endpoint = WebhookEndpoint.objects.create(
            organization=organization,
            url=url,
            kinds=list(kinds),
            description=description,
            sealed_secret=seal(secret),
            created_by=created_by,
        )
    return endpoint, secret


def change_endpoint(endpoint: WebhookEndpoint, *, url: str, kinds: Sequence[str], description: str) -> None:
    """Set where to send, and which kinds. Raises InvalidUrlError."""
    WebhookEndpoint.objects.filter(pk=endpoint.pk, removed_at=None).update(
        url=check_url(url), kinds=list(kinds), description=description
    )


def remove_endpoint(endpoint: WebhookEndpoint) -> None:
    """Send nothing there any more. What was delivered stays on record for as long as any delivery does."""
    with transaction.atomic():
        removed = WebhookEndpoint.objects.filter(pk=endpoint.pk, removed_at=None).update(
            removed_at=timezone.now(), sealed_secret="", sealed_previous_secret=""
        )
        if removed:
            _give_up_waiting(endpoint)
            for kind in (Alert.Kind.WEBHOOK_FAILING, Alert.Kind.WEBHOOK_SWITCHED_OFF):
                clear_alert(endpoint.organization, kind, subject=alert_subject(endpoint))


def rotate_secret(endpoint: WebhookEndpoint) -> str:
    """Return a new secret, which is shown once. The one before signs too for ROTATION; one before that no longer."""
    secret = make_secret()
    WebhookEndpoint.objects.filter(pk=endpoint.pk, removed_at=None).update(
        sealed_previous_secret=F("sealed_secret"),
        previous_secret_ends_at=timezone.now() + ROTATION,
        sealed_secret=seal(secret),
    )
    return secret


def switch_off(endpoint: WebhookEndpoint, *, reason: str, at: datetime | None = None) -> bool:
    """Send nothing there until it is switched on; say whether it was on. What is missed is kept, for a replay."""
    changed = WebhookEndpoint.objects.filter(pk=endpoint.pk, switched_off_at=None, removed_at=None).update(
        switched_off_at=at or timezone.now(), switched_off_reason=reason
    )
    if changed:
        _give_up_waiting(endpoint)
    return bool(changed)


def switch_on(endpoint: WebhookEndpoint) -> bool:
    """Send again from the next event on; say whether it was off. What was missed is sent by replay_missed()."""
    with transaction.atomic():
        changed = (
            WebhookEndpoint.objects.filter(pk=endpoint.pk, removed_at=None)
            .exclude(switched_off_at=None)
            .update(switched_off_at=None, switched_off_reason="", failing_since=None)
        )
        if changed:
            for kind in (Alert.Kind.WEBHOOK_FAILING, Alert.Kind.WEBHOOK_SWITCHED_OFF):
                clear_alert(endpoint.organization, kind, subject=alert_subject(endpoint))
    return bool(changed)


def kept_endpoints(organization: Organization) -> QuerySet[WebhookEndpoint]:
    return WebhookEndpoint.objects.filter(organization=organization, removed_at=None)


def alert_subject(endpoint: WebhookEndpoint) -> str:
    return f"endpoint:{endpoint.pk}"


def host_of(endpoint: WebhookEndpoint) -> str:
    """Return what may be told of an endpoint to everybody: the rest of a URL is often a secret of its receiver."""
    return urlsplit(endpoint.url).hostname or ""


def live_secrets(endpoint: WebhookEndpoint, *, now: datetime) -> list[str]:
    """Return the sealed secrets that sign now, the newest first."""
    ends_at = endpoint.previous_secret_ends_at
    is_rotating = endpoint.sealed_previous_secret and ends_at is not None and now < ends_at
    return [endpoint.sealed_secret, *([endpoint.sealed_previous_secret] if is_rotating else [])]


def check_url(text: str) -> str:
    """Return the URL as it is kept. Raises InvalidUrlError. Where its name leads is asked at each delivery."""
    url = text.strip()
    if len(url) > MAX_URL_CHARS or not url.isascii() or not url.isprintable() or " " in url:
        raise InvalidUrlError(f"The URL must be at most {MAX_URL_CHARS} plain characters, without spaces.")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise InvalidUrlError("This is not a URL.") from None
    schemes = ("https", "http") if settings.WEBHOOK_ALLOWS_HTTP else ("https",)
    if parts.scheme not in schemes or not parts.hostname:
        raise InvalidUrlError(f"The URL must begin with {' or '.join(f'{scheme}://' for scheme in schemes)}.")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise InvalidUrlError("The URL must hold no name, password or fragment.")
    if port == 0:
        raise InvalidUrlError(f"The port must lie between 1 and {MAX_PORT}.")
    _refuse_private(parts.hostname)
    return url


def _refuse_private(host: str) -> None:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return
    if not is_reachable(host, tuple(settings.WEBHOOK_NETWORKS)):
        raise InvalidUrlError("This address is not public.")


def _give_up_waiting(endpoint: WebhookEndpoint) -> None:
    waiting = WebhookDelivery.objects.filter(endpoint=endpoint, state=WebhookDelivery.State.WAITING)
    waiting.update(state=WebhookDelivery.State.FAILED, claimed_until=None)


def reseal_secrets(*, is_dry: bool = False) -> tuple[int, list[WebhookEndpoint]]:
    """Seal by the signing key of today what one of before has sealed.

    Return how many secrets that were, and the endpoints whose secret no key opens any more. Again, it is none.
    """
    resealed, lost = 0, []
    for endpoint in WebhookEndpoint.objects.filter(removed_at=None).order_by("pk"):
        try:
            fresh = {name: _resealed(getattr(endpoint, name)) for name in ("sealed_secret", "sealed_previous_secret")}
        except LostSecretError:
            lost.append(endpoint)
            continue
        changes = {name: sealed for name, sealed in fresh.items() if sealed is not None}
        if changes and not is_dry:  # Only what is still there: somebody may rotate it meanwhile.
            before = {name: getattr(endpoint, name) for name in changes}
            WebhookEndpoint.objects.filter(pk=endpoint.pk, **before).update(**changes)
        resealed += len(changes)
    return resealed, lost


def _resealed(sealed: str) -> str | None:
    return reseal(sealed, purpose=PURPOSE) if sealed else None


def count_endpoints() -> dict[str, int]:
    """Return how many endpoints of all organizations work, fail, and are switched off."""
    kept = WebhookEndpoint.objects.filter(removed_at=None)
    is_on = Q(switched_off_at=None)
    counts = kept.aggregate(
        well=Count("pk", filter=is_on & Q(failing_since=None)),
        failing=Count("pk", filter=is_on & Q(failing_since__isnull=False)),
        switched_off=Count("pk", filter=~is_on),
    )
    return {"well": counts["well"], "failing": counts["failing"], "switched off": counts["switched_off"]}
