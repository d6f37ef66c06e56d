"""The periods of documents: months of UTC, half-open. Pure; nothing else decides where a month begins or ends.

A moment lies in a month when `begins <= moment < ends`. So every moment lies in exactly one month, whatever the length
of the month, the year, or the clock of whoever reads the document.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

FIRST_YEAR, LAST_YEAR = 2020, 2199
MONTH_PATTERN = re.compile(r"([0-9]{4})-([0-9]{2})")


class InvalidPeriodError(ValueError):
    """The text names no month, or one out of bounds."""


@dataclass(frozen=True, slots=True, order=True)
class Month:
    """A month of UTC. Months sort by time. Raises InvalidPeriodError for what is none."""

    year: int
    month: int

    def __post_init__(self) -> None:
        if not (FIRST_YEAR <= self.year <= LAST_YEAR and 1 <= self.month <= 12):
            raise InvalidPeriodError(f"{self.year:04d}-{self.month:02d} is not a month of {FIRST_YEAR} to {LAST_YEAR}.")

    def __str__(self) -> str:
        return f"{self.year:04d}-{self.month:02d}"

    @property
    def begins(self) -> datetime:
        """The first moment of the month."""
        return datetime(self.year, self.month, 1, tzinfo=UTC)

    @property
    def ends(self) -> datetime:
        """The first moment after the month."""
        year, month = divmod(self.year * 12 + self.month, 12)
        return datetime(year, month + 1, 1, tzinfo=UTC)

    @property
    def next(self) -> "Month":
        return month_of(self.ends)

    @property
    def previous(self) -> "Month":
        return month_of(self.begins - timedelta(microseconds=1))

    @property
    def last_day(self) -> date:
        return (self.ends - timedelta(days=1)).date()

    @property
    def name(self) -> str:
        """The month in English words: "November 2026"."""
        return f"{self.begins:%B} {self.year}"

    def contains(self, moment: datetime) -> bool:
        return self.begins <= moment < self.ends


def month_of(moment: datetime) -> Month:
    """Return the month that a moment lies in. Raises ValueError for a moment without a time zone."""
    if moment.tzinfo is None:
        raise ValueError("A moment without a time zone lies in no month.")
    moment = moment.astimezone(UTC)
    return Month(moment.year, moment.month)


def parse_month(text: str) -> Month:
    """Return the month of a text such as "2026-11". Raises InvalidPeriodError."""
    found = MONTH_PATTERN.fullmatch(text) if text.isascii() else None
    if found is None:
        raise InvalidPeriodError(f"{text!r} is not a month such as 2026-11.")
    return Month(int(found[1]), int(found[2]))


def parse_month_begun(text: str, *, now: datetime) -> Month:
    """Return the month of a text, which is this one or an earlier one. Raises InvalidPeriodError."""
    month = parse_month(text)
    if month > month_of(now):
        raise InvalidPeriodError(f"{month} has not begun.")
    return month


def months_between(first: Month, last: Month) -> Iterator[Month]:
    """Yield the months from the first to the last, both included; none when they stand the other way round."""
    while first <= last:
        yield first
        first = first.next
