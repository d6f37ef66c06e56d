"""Redis against Postgres: where nothing is going on, admission enforces exactly what the book of record says.

Redis moves on while it is read, so this is no part of the snapshot that the other checks share. A shard with requests
in flight, or with changes that it does not know yet, is passed over. A difference counts only when it is seen, the same
in every amount, each time one looks: the worker publishes every second.
"""

import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple

from accounts.models import AdmissionChange, ApiKey, Organization
from billing.admission.calls.publish import DAYS_KEPT
from billing.admission.errors import AdmissionUnavailableError
from billing.admission.inspection import ShardState, read_shards
from billing.admission.outbox import epoch_day
from billing.budgets.spenders import Spender, read_name
from billing.bulk_rows import fetch_all
from billing.checks.books import MAX_BREAKS_LISTED, Books, Outcome
from billing.checks.invariant import Check
from billing.credit.lots import spendable_credit
from billing.days import date_of
from billing.models import BudgetDay, SpenderDay
from billing.money import say_usd
from billing.usage.budgets import WHOLE_ORGANIZATION

LOOKS = 4
SECONDS_BETWEEN_LOOKS = 1.0
ZERO_WHEN_QUIET = ("held", "unsettled", "open")
AMOUNTS = ("held", "unsettled")

Fields = Mapping[str, str]


class AdmissionDifference(NamedTuple):
    """Where Redis and Postgres differ: of whom, in words, and by how many nano-dollars where it is an amount."""

    holder: str  # "org 7", "key 7", "member 7-12" or "user 7-" and a digest.
    text: str
    amount_nanos: int = 0


class Comparison(NamedTuple):
    holders: int
    differences: list[AdmissionDifference]
    note: str


def admission_check(*, looks: int = LOOKS, seconds_between: float = SECONDS_BETWEEN_LOOKS) -> Check:
    """Return the check of Redis. It is run by itself, not on the snapshot of run_checks()."""
    run = partial(_run, looks=looks, seconds_between=seconds_between)
    return Check("I8", "where nothing is in flight, Redis enforces what Postgres says", run, is_whole=True)


def compare_admission(*, looks: int = LOOKS, seconds_between: float = SECONDS_BETWEEN_LOOKS) -> Comparison:
    """Return the differences that stay the same over several looks. Raises AdmissionUnavailableError."""
    shards = read_shards()
    found = _compare(shards)
    for _ in range(looks - 1):
        if not found:
            break
        time.sleep(seconds_between)
        shards = read_shards()
        seen = set(_compare(shards))
        found = [difference for difference in found if difference in seen]
    compared = [shard for shard in shards if shard.is_built and shard.is_quiet]
    holders = sum(len(shard.holders) + len(shard.spenders) for shard in compared)
    return Comparison(holders, found, _note(shards))


def _run(_: Books, *, looks: int, seconds_between: float) -> Outcome:
    try:
        comparison = compare_admission(looks=looks, seconds_between=seconds_between)
    except AdmissionUnavailableError as error:
        return Outcome(0, note=f"not compared: {error}")
    lines = [f"{found.holder}: {found.text}" for found in comparison.differences]
    return Outcome(comparison.holders, lines[:MAX_BREAKS_LISTED], note=comparison.note)


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


def _compare(shards: Iterable[ShardState]) -> list[AdmissionDifference]:
    """Return each difference in the shards that are quiet."""
    quiet = [shard for shard in shards if shard.is_built and shard.is_quiet]
    holders = {holder: fields for shard in quiet for holder, fields in shard.holders.items()}
    spenders = {name: fields for shard in quiet for name, fields in shard.spenders.items()}
    untold = set(AdmissionChange.objects.values_list("organization_id", flat=True))
    return [
        *_counters_left({f"{scope} {holder_id}": fields for (scope, holder_id), fields in holders.items()}),
        *_counters_left({name.replace(":", " "): fields for name, fields in spenders.items()}),
        *_spenders_differ(spenders),
        *_organizations_differ({key: fields for (scope, key), fields in holders.items() if scope == "org"}, untold),
        *_keys_differ({key: fields for (scope, key), fields in holders.items() if scope == "key"}, untold),
    ]


def _counters_left(holders: Mapping[str, Fields]) -> list[AdmissionDifference]:
    return [
        AdmissionDifference(
            holder,
            f"{_of_day(name)} is {say_usd(int(value)) if _is_amount(name) else value}, and nothing is in flight",
            int(value) if _is_amount(name) else 0,
        )
        for holder, fields in holders.items()
        for name, value in fields.items()
        if name.partition(":")[0] in ZERO_WHEN_QUIET and int(value)
    ]


def _is_amount(counter: str) -> bool:
    return counter.partition(":")[0] in AMOUNTS


def _of_day(counter: str) -> str:
    """Return the name of a counter with its day as people write it."""
    name, _, day = counter.partition(":")
    return f"{name} of {date_of(int(day))}" if day else name


def _organizations_differ(loaded: Mapping[int, Fields], untold: set[int]) -> list[AdmissionDifference]:
    # Without a status Redis has not loaded it: admission asks Postgres first.
    ids = [key for key, fields in loaded.items() if "status" in fields and key not in untold]
    organizations = Organization.objects.in_bulk(ids)
    credit, unnoticed = spendable_credit(ids), _unnoticed_expiry(ids)
    posted = _posted_days([(key, WHOLE_ORGANIZATION) for key in ids])
    lines = []
    for key in ids:
        fields, organization = loaded[key], organizations.get(key)
        if organization is None:
            lines.append(AdmissionDifference(f"org {key}", "Redis admits it, and Postgres does not know it"))
            continue
        nanos, version = credit.get(key, (0, 0))
        told = (int(fields.get("credit", 0)), int(fields.get("version", 0)))
        # Between a lot's expiry and the round that notices it, Redis still counts the lot.
        if told not in {(nanos, version), (nanos + unnoticed.get(key, 0), version)}:
            text = (
                f"credit is {say_usd(told[0])} (version {told[1]}); Postgres says {say_usd(nanos)} (version {version})"
            )
            lines.append(AdmissionDifference(f"org {key}", text, told[0] - nanos))
        expected = (organization.status, organization.credit_limit_nanos, organization.config_version)
        if (fields["status"], int(fields.get("limit", 0)), int(fields["config_version"])) != expected:
            limit = int(fields.get("limit", 0))
            text = (
                f"status, limit and version are {fields['status']}, {say_usd(limit)}, {fields['config_version']};"
                f" Postgres says {expected[0]}, {say_usd(expected[1])}, {expected[2]}"
            )
            off = limit - organization.credit_limit_nanos
            lines.append(AdmissionDifference(f"org {key}", text, off))
        lines += _days_differ(f"org {key}", fields, posted.get((key, WHOLE_ORGANIZATION), {}))
    return lines


def _keys_differ(loaded: Mapping[int, Fields], untold: set[int]) -> list[AdmissionDifference]:
    ids = [key for key, fields in loaded.items() if "status" in fields]
    keys = {key.pk: key for key in ApiKey.objects.filter(pk__in=ids)}
    posted = _posted_days([(key.organization_id, key.pk) for key in keys.values()])
    lines = []
    for key_id in ids:
        fields, key = loaded[key_id], keys.get(key_id)
        if key is None:
            lines.append(AdmissionDifference(f"key {key_id}", "Redis admits it, and Postgres does not know it"))
        elif key.organization_id not in untold:
            expected = (key.status, key.config_version)
            if (fields["status"], int(fields["config_version"])) != expected:
                text = (
                    f"is {fields['status']} (version {fields['config_version']});"
                    f" Postgres says {expected[0]} (version {expected[1]})"
                )
                lines.append(AdmissionDifference(f"key {key_id}", text))
            lines += _days_differ(f"key {key_id}", fields, posted.get((key.organization_id, key_id), {}))
    return lines


def _spenders_differ(loaded: Mapping[str, Fields]) -> list[AdmissionDifference]:
    """Compare the days of members and end users. One without a version is not loaded: admission asks Postgres first."""
    spenders = {name: read_name(name) for name, fields in loaded.items() if "config_version" in fields}
    rows = SpenderDay.objects.filter(
        organization_id__in={spender.organization_id for spender in spenders.values()},
        spender__in={spender.id for spender in spenders.values()},
        admitted_day__gte=_first_day(),
    )
    posted: dict[Spender, dict[int, int]] = {}
    for row in rows:
        spender = Spender(row.organization_id, row.scope, row.spender)
        posted.setdefault(spender, {})[row.admitted_day] = row.cost_nanos
    return [
        difference
        for name, spender in spenders.items()
        for difference in _days_differ(name.replace(":", " "), loaded[name], posted.get(spender, {}))
    ]


def _days_differ(label: str, fields: Fields, posted: Mapping[int, int]) -> list[AdmissionDifference]:
    first = _first_day()
    told = {int(name[7:]): int(value) for name, value in fields.items() if name.startswith("posted:")}
    return [
        AdmissionDifference(
            label,
            f"{say_usd(told.get(day, 0))} are posted for {date_of(day)}; Postgres says {say_usd(posted.get(day, 0))}",
            told.get(day, 0) - posted.get(day, 0),
        )
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
