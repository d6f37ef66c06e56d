"""Redis against Postgres: where nothing is going on, admission enforces exactly what the book of record says.

Redis moves on while it is read, so this is no part of the snapshot that the other checks share. A shard with requests
in flight, or with changes that it has not heard of, is passed over. A difference counts only when it is seen, the same
in every figure, each time one looks: the worker publishes every second.
"""

import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import partial

from accounts.models import AdmissionChange, ApiKey, Organization
from billing.admission.errors import AdmissionUnavailableError
from billing.admission.feed import epoch_day
from billing.admission.inspection import ShardState, read_shards
from billing.admission.publishing import DAYS_KEPT
from billing.budgets import WHOLE_ORGANIZATION
from billing.bulk_rows import fetch_all
from billing.checks.invariant import MAX_BREAKS_LISTED, Check, Outcome
from billing.credit_lots import spendable_credit
from billing.models import BudgetDay

LOOKS = 4
SECONDS_BETWEEN_LOOKS = 1.0
ZERO_WHEN_QUIET = ("held", "unsettled", "open")

Fields = Mapping[str, str]


def admission_check(*, looks: int = LOOKS, seconds_between: float = SECONDS_BETWEEN_LOOKS) -> Check:
    """Return the check of Redis. It is run by itself, not on the snapshot of run_checks()."""
    run = partial(_run, looks=looks, seconds_between=seconds_between)
    return Check("I8", "where nothing is in flight, Redis enforces what Postgres says", run)


def _run(*, looks: int, seconds_between: float) -> Outcome:
    try:
        shards = read_shards()
        breaks = _compare(shards)
        for _ in range(looks - 1):
            if not breaks:
                break
            time.sleep(seconds_between)
            shards = read_shards()
            seen = set(_compare(shards))
            breaks = [line for line in breaks if line in seen]
    except AdmissionUnavailableError as error:
        return Outcome(0, note=f"not compared: {error}")
    compared = [shard for shard in shards if shard.is_built and shard.is_quiet]
    return Outcome(sum(len(shard.holders) for shard in compared), breaks[:MAX_BREAKS_LISTED], note=_note(shards))


def _note(shards: Iterable[ShardState]) -> str:
    busy = [shard for shard in shards if not shard.is_quiet]
    parts = []
    if busy:
        holds, events = sum(shard.holds_in_flight for shard in busy), sum(shard.waiting_events for shard in busy)
        parts.append(f"{len(busy)} shards skipped: {holds} requests in flight, {events} events waiting")
    changes = AdmissionChange.objects.count()
    if changes:
        parts.append(f"{changes} changes wait to be published")
    return "; ".join(parts)


def _compare(shards: Iterable[ShardState]) -> list[str]:
    """Return a line for each difference in the shards that are quiet."""
    quiet = [shard for shard in shards if shard.is_built and shard.is_quiet]
    holders = {holder: fields for shard in quiet for holder, fields in shard.holders.items()}
    untold = set(AdmissionChange.objects.values_list("organization_id", flat=True))
    return [
        *_counters_left(holders),
        *_organizations_differ({key: fields for (scope, key), fields in holders.items() if scope == "org"}, untold),
        *_keys_differ({key: fields for (scope, key), fields in holders.items() if scope == "key"}, untold),
    ]


def _counters_left(holders: Mapping[tuple[str, int], Fields]) -> list[str]:
    return [
        f"{scope} {holder_id}: {name} is {value}, and nothing is in flight"
        for (scope, holder_id), fields in holders.items()
        for name, value in fields.items()
        if name.partition(":")[0] in ZERO_WHEN_QUIET and int(value)
    ]


def _organizations_differ(loaded: Mapping[int, Fields], untold: set[int]) -> list[str]:
    # Without a status Redis has not loaded it: admission asks Postgres first.
    ids = [key for key, fields in loaded.items() if "status" in fields and key not in untold]
    organizations = Organization.objects.in_bulk(ids)
    credit, unnoticed = spendable_credit(ids), _unnoticed_expiry(ids)
    posted = _posted_days([(key, WHOLE_ORGANIZATION) for key in ids])
    lines = []
    for key in ids:
        fields, organization = loaded[key], organizations.get(key)
        if organization is None:
            lines.append(f"org {key}: Redis admits it, and Postgres does not know it")
            continue
        nanos, version = credit.get(key, (0, 0))
        told = (int(fields.get("credit", 0)), int(fields.get("version", 0)))
        # Between a lot's expiry and the round that notices it, Redis still counts the lot.
        if told not in {(nanos, version), (nanos + unnoticed.get(key, 0), version)}:
            lines.append(
                f"org {key}: credit is {told[0]} nanos (version {told[1]}); Postgres says {nanos} (version {version})"
            )
        expected = (organization.status, organization.credit_limit_nanos, organization.config_version)
        if (fields["status"], int(fields.get("limit", 0)), int(fields["config_version"])) != expected:
            lines.append(
                f"org {key}: status, limit and version are {fields['status']}, {fields.get('limit')},"
                f" {fields['config_version']}; Postgres says {', '.join(map(str, expected))}"
            )
        lines += _days_differ(f"org {key}", fields, posted.get((key, WHOLE_ORGANIZATION), {}))
    return lines


def _keys_differ(loaded: Mapping[int, Fields], untold: set[int]) -> list[str]:
    ids = [key for key, fields in loaded.items() if "status" in fields]
    keys = {key.pk: key for key in ApiKey.objects.filter(pk__in=ids)}
    posted = _posted_days([(key.organization_id, key.pk) for key in keys.values()])
    lines = []
    for key_id in ids:
        fields, key = loaded[key_id], keys.get(key_id)
        if key is None:
            lines.append(f"key {key_id}: Redis admits it, and Postgres does not know it")
        elif key.organization_id not in untold:
            expected = ("revoked" if key.is_revoked else "active", key.config_version)
            if (fields["status"], int(fields["config_version"])) != expected:
                lines.append(
                    f"key {key_id}: is {fields['status']} (version {fields['config_version']});"
                    f" Postgres says {expected[0]} (version {expected[1]})"
                )
            lines += _days_differ(f"key {key_id}", fields, posted.get((key.organization_id, key_id), {}))
    return lines


def _days_differ(label: str, fields: Fields, posted: Mapping[int, int]) -> list[str]:
    first = _first_day()
    told = {int(name[7:]): int(value) for name, value in fields.items() if name.startswith("posted:")}
    return [
        f"{label}: {told.get(day, 0)} nanos are posted for day {day}; Postgres says {posted.get(day, 0)}"
        for day in sorted(told.keys() | posted.keys())
        if day >= first and told.get(day, 0) != posted.get(day, 0)
    ]


def _posted_days(holders: Iterable[tuple[int, int]]) -> dict[tuple[int, int], dict[int, int]]:
    wanted = set(holders)
    rows = BudgetDay.objects.filter(
        organization_id__in={organization_id for organization_id, _ in wanted}, admitted_day__gte=_first_day()
    )
    days: dict[tuple[int, int], dict[int, int]] = {}
    for organization_id, key_id, day, nanos in rows.values_list(
        "organization_id", "key_id", "admitted_day", "cost_nanos"
    ):
        if (organization_id, key_id) in wanted:
            days.setdefault((organization_id, key_id), {})[day] = nanos
    return days


def _first_day() -> int:
    """Return the first day that Redis has of a holder, whenever it was loaded: the day before is gone at midnight."""
    return epoch_day(datetime.now(UTC)) - DAYS_KEPT + 1


def _unnoticed_expiry(organization_ids: list[int]) -> dict[int, int]:
    rows = fetch_all(
        """SELECT organization_id, sum(remaining_nanos)::bigint FROM billing_creditlot
            WHERE organization_id = ANY(%s) AND remaining_nanos > 0 AND expired_at IS NULL AND expires_at <= now()
            GROUP BY organization_id""",
        [organization_ids],
    )
    return dict(rows)
