"""What an organization used in a period, summed in the ways that people ask for: from roll-ups, never from records.

Days and months are UTC. Where an end user, a tag or a session is asked for, attributed days are read, which are
bounded: what was beyond their bound is in none of their names.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime, timedelta
from typing import Any, Literal

from django.db.models import Model, Q, QuerySet, Sum
from django.db.models.functions import TruncMonth

from accounts.models import Organization
from billing.models import AttributedDay, UsageDay, UsageHour
from billing.read_replica import read
from billing.usage.report import start_of_day

ATTRIBUTES = ("end_user", "tag", "session")
MAX_GROUPS = 100  # Of one table; the others are summed.
MAX_MODELS = 200
OTHER = AttributedDay.OTHER

Interval = Literal["hour", "day", "month"]
Grouping = Literal["model_id", "key_id", "end_user", "tag", "session"]


@dataclass(frozen=True, slots=True)
class Sums:
    """Sums over settled requests. Cost in nano-dollars, durations in milliseconds (see billing/models/roll_up.py)."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_write_tokens: int = 0
    cache_read_tokens: int = 0
    cost_nanos: int = 0
    timed_requests: int = 0
    first_byte_ms: int = 0
    duration_ms: int = 0

    @property
    def prompt_tokens(self) -> int:
        return self.input_tokens + self.cache_write_tokens + self.cache_read_tokens

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.output_tokens

    @property
    def cache_hit_permille(self) -> int | None:
        """How much of the prompts was read from a cache; None where there was no prompt."""
        return self.cache_read_tokens * 1000 // self.prompt_tokens if self.prompt_tokens else None

    @property
    def mean_first_byte_ms(self) -> int | None:
        return self.first_byte_ms // self.timed_requests if self.timed_requests else None

    @property
    def mean_duration_ms(self) -> int | None:
        return self.duration_ms // self.timed_requests if self.timed_requests else None

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(*(getattr(self, name) + getattr(other, name) for name in SUM_NAMES))

    def __sub__(self, other: "Sums") -> "Sums":
        return Sums(*(getattr(self, name) - getattr(other, name) for name in SUM_NAMES))


SUM_NAMES = tuple(field.name for field in fields(Sums))


@dataclass(frozen=True, slots=True)
class UsageFilter:
    """`first_day` to `last_day`, both included. Empty means all; `key_ids` None means all keys, and () none of them."""

    first_day: date
    last_day: date
    key_ids: tuple[int, ...] | None = None
    model_id: str = ""
    end_user: str = ""
    tag: str = ""
    session: str = ""

    @property
    def days(self) -> int:
        return (self.last_day - self.first_day).days + 1

    @property
    def names_attributes(self) -> bool:
        return bool(self.end_user or self.tag or self.session)


@dataclass(frozen=True, slots=True)
class Group:
    """What one model, key, ... used. `name` is a key's id, or the text itself; "" where requests named nobody."""

    name: Any
    sums: Sums


@dataclass(frozen=True, slots=True)
class Groups:
    """The groups that cost the most, the rest of them summed, and the requests that name no such group."""

    shown: Sequence[Group]
    rest: Sums | None
    unnamed: Sums | None


def sum_period(organization: Organization, wanted: UsageFilter) -> Sums:
    """Return the sums of the whole period."""
    return _read(_rows(organization, wanted).aggregate(**_SUMS))


def sum_by_interval(organization: Organization, wanted: UsageFilter, interval: Interval) -> dict[date | datetime, Sums]:
    """Return the sums of each hour (a datetime), day or month (its first day) in which anything was used.

    Hours are not kept by end user, tag and session: whoever asks for them gets days.
    """
    if interval == "hour" and not wanted.names_attributes:
        return _by(_hours(organization, wanted).values("hour"), "hour")
    rows = _rows(organization, wanted)
    if interval == "month":
        return _by(rows.annotate(month=TruncMonth("day")).values("month"), "month")
    return _by(rows.values("day"), "day")


def sum_by_group(
    organization: Organization, wanted: UsageFilter, grouping: Grouping, *, limit: int = MAX_GROUPS
) -> Groups:
    """Return what each group used, the dearest first."""
    rows = _rows(organization, wanted, by=grouping)
    if grouping in ATTRIBUTES:
        rows = rows.exclude(**{grouping: ""})
    found = rows.values(grouping).annotate(**_SUMS).order_by("-cost_nanos", "-requests", grouping)
    groups = [Group(row[grouping], _read(row)) for row in found[: limit + 1]]
    named = sum((group.sums for group in groups[:limit]), Sums())
    rest = None
    if len(groups) > limit:
        everybody = _read(rows.aggregate(**_SUMS))
        rest, named = everybody - named, everybody
    unnamed = sum_period(organization, wanted) - named if grouping in ATTRIBUTES else Sums()
    return Groups(groups[:limit], rest, unnamed if unnamed.requests else None)


def sum_by_day_and_model(
    organization: Organization, *, first_day: date, last_day: date
) -> list[tuple[date, str, Sums]]:
    """Return what was used on each UTC day by each language model, the latest day first, both ends included."""
    rows = _rows(organization, UsageFilter(first_day, last_day)).values("day", "model_id").annotate(**_SUMS)
    return [(row["day"], row["model_id"], _read(row)) for row in rows.order_by("-day", "model_id")]


def used_models(organization: Organization, wanted: UsageFilter) -> list[str]:
    """Return the models that were used in the period, by name."""
    rows = read(UsageDay).filter(organization_id=organization.pk, day__gte=wanted.first_day, day__lte=wanted.last_day)
    return list(rows.order_by("model_id").values_list("model_id", flat=True).distinct()[:MAX_MODELS])


_SUMS: Mapping[str, Sum] = {name: Sum(name, default=0) for name in SUM_NAMES}


def _rows(organization: Organization, wanted: UsageFilter, *, by: str = "") -> QuerySet[Any]:
    """Return the rows by day that are asked for, of the smaller table that knows them."""
    table: type[Model] = AttributedDay if wanted.names_attributes or by in ATTRIBUTES else UsageDay
    rows = read(table).filter(organization_id=organization.pk, day__gte=wanted.first_day, day__lte=wanted.last_day)
    return rows.filter(_narrow(wanted)).order_by()


def _hours(organization: Organization, wanted: UsageFilter) -> QuerySet[UsageHour]:
    return (
        read(UsageHour)
        .filter(
            _narrow(wanted),
            organization_id=organization.pk,
            hour__gte=start_of_day(wanted.first_day),
            hour__lt=start_of_day(wanted.last_day + timedelta(days=1)),
        )
        .order_by()
    )


def _narrow(wanted: UsageFilter) -> Q:
    narrowed = Q()
    if wanted.key_ids is not None:
        narrowed &= Q(key_id__in=wanted.key_ids)
    if wanted.model_id:
        narrowed &= Q(model_id=wanted.model_id)
    for name in ATTRIBUTES:
        if value := getattr(wanted, name):
            narrowed &= Q(**{name: value})
    return narrowed


def _by(rows: QuerySet[Any, Any], name: str) -> dict[date | datetime, Sums]:
    return {row[name]: _read(row) for row in rows.annotate(**_SUMS)}


def _read(row: Mapping[str, Any]) -> Sums:
    return Sums(*(int(row[name]) for name in SUM_NAMES))
