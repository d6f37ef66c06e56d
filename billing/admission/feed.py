"""The change feed: brings organizations and keys from Postgres into Redis, after their changes and when Redis asks."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from django.conf import settings

from accounts.models import AdmissionChange, ApiKey, Organization
from accounts.models.limits import Limits
from billing.admission import worker
from billing.admission.publishing import DAYS_KEPT, Publication
from billing.budgets import posted_nanos_by_day
from billing.credit_lots import spendable_credit

MAX_CHANGES_PER_ROUND = 1_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def publish_pending_changes() -> int:
    """Publish the changes that Redis has not heard of, oldest first, and return how many rows that were.

    What is published is the state of now, so rows that were written meanwhile are published again: never too little.
    Raises AdmissionUnavailableError when Redis does not answer; the rows stay and are published later.
    """
    changes = list(AdmissionChange.objects.order_by("id")[:MAX_CHANGES_PER_ROUND])
    if not changes:
        return 0
    publish_organizations({change.organization_id for change in changes if change.key_id is None})
    publish_keys({change.key_id for change in changes if change.key_id is not None})
    AdmissionChange.objects.filter(pk__in=[change.pk for change in changes]).delete()
    return len(changes)


def publish_organizations(organization_ids: Iterable[int]) -> None:
    for organization_id in sorted(organization_ids):
        publication = read_organization(organization_id)
        if publication is not None:
            worker.publish(publication)


def publish_keys(key_ids: Iterable[int]) -> None:
    for key_id in sorted(key_ids):
        publication = read_key(key_id)
        if publication is not None:
            worker.publish(publication)


def read_organization(organization_id: int) -> Publication | None:
    """Return what Redis is told of an organization; None when there is none with this id."""
    organization = Organization.objects.filter(pk=organization_id).first()
    if organization is None:
        return None
    credit_nanos, version = spendable_credit([organization_id]).get(organization_id, (0, 0))
    today = epoch_day(datetime.now(UTC))
    return Publication(
        organization_id=organization_id,
        member=f"org:{organization_id}",
        config_version=organization.config_version,
        config={
            "status": organization.status,
            "limit": organization.credit_limit_nanos,
            **({"shows_cost": 1} if organization.shows_cost_in_usage else {}),
            "requests_per_minute": settings.DEFAULT_REQUESTS_PER_MINUTE,
            "concurrent_requests": settings.DEFAULT_CONCURRENT_REQUESTS,
            **_limits(organization),
        },
        today=today,
        credit_nanos=credit_nanos,
        version=version,
        posted_nanos_by_day=posted_nanos_by_day(organization_id=organization_id, first_day=today - DAYS_KEPT),
    )


def read_key(key_id: int) -> Publication | None:
    """Return what Redis is told of a key; None when there is none with this id."""
    key = ApiKey.objects.filter(pk=key_id).first()
    if key is None:
        return None
    today = epoch_day(datetime.now(UTC))
    config: dict[str, str | int] = {
        "status": "revoked" if key.is_revoked else "active",
        "organization": key.organization_id,
        **_limits(key),
    }
    if key.expires_at is not None:
        config["expires_at"] = int(key.expires_at.timestamp())
    return Publication(
        organization_id=key.organization_id,
        member=f"key:{key_id}",
        config_version=key.config_version,
        config=config,
        today=today,
        posted_nanos_by_day=posted_nanos_by_day(
            organization_id=key.organization_id, key_id=key_id, first_day=today - DAYS_KEPT
        ),
    )


def epoch_day(moment: datetime) -> int:
    """Return the number of whole UTC days since 1970-01-01."""
    return (moment - EPOCH) // timedelta(days=1)


def _limits(holder: Limits) -> dict[str, str | int]:
    limits = {
        "requests_per_minute": holder.requests_per_minute,
        "input_tokens_per_minute": holder.input_tokens_per_minute,
        "output_tokens_per_minute": holder.output_tokens_per_minute,
        "concurrent_requests": holder.concurrent_requests,
        "daily_budget": holder.daily_budget_nanos,
        "weekly_budget": holder.weekly_budget_nanos,
        "monthly_budget": holder.monthly_budget_nanos,
    }
    return {name: value for name, value in limits.items() if value is not None}
