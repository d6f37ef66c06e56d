"""Publishes the outbox: brings organizations and keys from Postgres into Redis, after changes and when Redis asks."""

import logging
from collections.abc import Callable, Collection, Iterable
from datetime import UTC, datetime, timedelta
from functools import partial

import redis
from django.conf import settings
from django.db import InterfaceError, OperationalError

from accounts.models import AdmissionChange, ApiKey, Organization
from accounts.models.limits import Limits
from billing.admission import blocking
from billing.admission.calls.publish import DAYS_KEPT, Publication
from billing.admission.errors import AdmissionUnavailableError, ShardRebuildingError
from billing.budgets.amounts import Holder
from billing.budgets.choices import find_spender_budget
from billing.budgets.overrides import find_override, find_overrides
from billing.budgets.spenders import EVERYBODY, MEMBER, Spender
from billing.budgets.spent import budgeted_scopes, spent_by_day
from billing.credit.lots import read_spendable_credit
from billing.models import BudgetOverride, SpenderBudget
from billing.shards import shard_of
from billing.usage.budgets import WHOLE_ORGANIZATION, posted_nanos_by_days
from billing.usage_stream import SpendableCredit

MAX_CHANGES_PER_ROUND = 1_000
MAX_READINGS = 5  # Of one organization or key, while its shard is rebuilt each time.

logger = logging.getLogger(__name__)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def publish_pending_changes() -> int:
    """Publish the changes that Redis does not know yet, oldest first, and return how many rows that were.

    What is published is the state of now, so rows that were written meanwhile are published again: never too little.
    Raises AdmissionUnavailableError when Redis does not answer; the rows stay and are published later. So do those of
    an organization that Redis refuses to be told of, and they hold up no other.
    """
    changes = list(AdmissionChange.objects.order_by("id")[:MAX_CHANGES_PER_ROUND])
    by_holder: dict[tuple[int, int], list[int]] = {}
    for change in changes:
        by_holder.setdefault((change.organization_id, change.key_id or 0), []).append(change.pk)
    published = 0
    for (organization_id, key_id), rows in sorted(by_holder.items()):
        try:
            if key_id:
                publish_keys([key_id])
            else:
                publish_organizations([organization_id])
        except AdmissionUnavailableError as error:
            if not isinstance(error.__cause__, redis.ResponseError):
                raise
            logger.warning("Redis cannot be told about organization %d yet: %s", organization_id, error)
            continue
        published += AdmissionChange.objects.filter(pk__in=rows).delete()[0]
    return published


def publish_now_or_later() -> None:
    """Publish them for one who has committed what it was asked for. The worker publishes what this could not."""
    try:
        publish_pending_changes()
    except (AdmissionUnavailableError, OperationalError, InterfaceError) as error:
        logger.warning("Changes are published later: %s", error)


def publish_organizations(organization_ids: Iterable[int]) -> None:
    for organization_id in sorted(organization_ids):
        _publish(shard_of(organization_id), partial(read_organization, organization_id))


def publish_keys(key_ids: Iterable[int]) -> None:
    owners = dict(ApiKey.objects.filter(pk__in=list(key_ids)).values_list("pk", "organization_id"))
    for key_id, organization_id in sorted(owners.items()):
        _publish(shard_of(organization_id), partial(read_key, key_id))


def _publish(shard: int, read: Callable[[], Publication | None]) -> None:
    """Read and publish; read again where the shard was rebuilt in between."""
    for _ in range(MAX_READINGS):
        epoch = blocking.standing_epoch(shard)
        publication = read()
        if publication is None or blocking.publish(publication, epoch=epoch):
            return
    raise ShardRebuildingError(f"Shard {shard} is rebuilt again and again.")


def read_organization(organization_id: int) -> Publication | None:
    """Return what Redis is told of an organization; None when there is none with this id."""
    return read_organizations([organization_id]).get(organization_id)


def read_key(key_id: int) -> Publication | None:
    """Return what Redis is told of a key; None when there is none with this id."""
    return read_keys([key_id]).get(key_id)


def read_organizations(organization_ids: Collection[int]) -> dict[int, Publication]:
    """Return what Redis is told of organizations, by id; those that do not exist are left out. As many queries for
    many as for one.
    """
    organizations = Organization.objects.in_bulk(list(organization_ids))  # Versions before what they order.
    spendable = read_spendable_credit(organizations)
    overrides = find_overrides(BudgetOverride.Scope.ORGANIZATION, organizations)
    scopes = budgeted_scopes(organizations)
    today = epoch_day(datetime.now(UTC))
    posted = posted_nanos_by_days(organization_ids=organizations, first_day=today - DAYS_KEPT)
    publications = {}
    for organization_id, organization in organizations.items():
        credit = spendable.get(organization_id, SpendableCredit(organization_id, 0, 0))
        publications[organization_id] = Publication(
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
                **_override(overrides.get((organization_id, EVERYBODY))),
                **_counts(scopes.get(organization_id, set())),
            },
            today=today,
            credit_nanos=credit.credit_nanos,
            version=credit.version,
            expiries=credit.expiries,
            posted_nanos_by_day=posted.get((organization_id, WHOLE_ORGANIZATION), {}),
        )
    return publications


def read_keys(key_ids: Collection[int]) -> dict[int, Publication]:
    """The same of keys."""
    keys = ApiKey.objects.in_bulk(list(key_ids))
    organization_ids = {key.organization_id for key in keys.values()}
    overrides = find_overrides(BudgetOverride.Scope.KEY, organization_ids, [str(key_id) for key_id in keys])
    today = epoch_day(datetime.now(UTC))
    posted = posted_nanos_by_days(organization_ids=organization_ids, key_ids=keys, first_day=today - DAYS_KEPT)
    publications = {}
    for key_id, key in keys.items():
        config: dict[str, str | int] = {
            "status": key.status,
            "organization": key.organization_id,
            **_limits(key),
            **_override(overrides.get((key.organization_id, str(key_id)))),
        }
        if key.owner_id is not None:
            config["member"] = key.owner_id
        if key.expires_at is not None:
            config["expires_at"] = int(key.expires_at.timestamp())
        publications[key_id] = Publication(
            organization_id=key.organization_id,
            member=f"key:{key_id}",
            config_version=key.config_version,
            config=config,
            today=today,
            posted_nanos_by_day=posted.get((key.organization_id, key_id), {}),
        )
    return publications


def read_spender(spender: Spender) -> Publication | None:
    """Return what Redis is told of a member or an end user; None when there is no such organization."""
    organization = Organization.objects.filter(pk=spender.organization_id).first()  # Its version before what it orders.
    if organization is None:
        return None
    budget = find_spender_budget(spender.organization_id, spender.scope, spender.id)
    override = find_override(spender.organization_id, Holder(spender.scope, spender.id))
    if override is None and budget is not None and budget.spender == EVERYBODY:
        override = find_override(spender.organization_id, Holder(spender.scope))
    today = epoch_day(datetime.now(UTC))
    return Publication(
        organization_id=spender.organization_id,
        member=spender.name,
        config_version=organization.config_version,
        config={**(_budgets(budget) if budget else {}), **_override(override)},
        today=today,
        posted_nanos_by_day=spent_by_day(spender, first_day=today - DAYS_KEPT),
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
    }
    return {**{name: value for name, value in limits.items() if value is not None}, **_budgets(holder)}


def _budgets(holder: Limits | SpenderBudget) -> dict[str, str | int]:
    budgets = {
        "daily_budget": holder.daily_budget_nanos,
        "weekly_budget": holder.weekly_budget_nanos,
        "monthly_budget": holder.monthly_budget_nanos,
        "only_notifies": 1 if holder.budgets_only_notify else None,
    }
    return {name: value for name, value in budgets.items() if value is not None}


def _override(override: BudgetOverride | None) -> dict[str, str | int]:
    """Return an override as ADMIT reads it: "until (s since 1970):daily:weekly:monthly", empty where a budget stays."""
    if override is None:
        return {}
    amounts = (override.daily_budget_nanos, override.weekly_budget_nanos, override.monthly_budget_nanos)
    texts = ["" if nanos is None else str(nanos) for nanos in amounts]
    return {"override": ":".join([str(int(override.until.timestamp())), *texts])}


def _counts(scopes: Collection[str]) -> dict[str, str | int]:
    """Return which spenders are counted: m for members, u for end users."""
    letters = "".join("m" if scope == MEMBER else "u" for scope in sorted(scopes, reverse=True))
    return {"counts": letters} if letters else {}
