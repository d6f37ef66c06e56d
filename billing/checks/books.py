"""What a check reads: all of the books, or a span of them, so that what is proven need not be read again each night.

A query names its part by marks, which Books replaces:

    POSTED(column)      a transaction's id lies in the span
    SETTLED(record)     a usage record, or a correction, under this name was settled in it: by its transaction; where it
                        has none, by its time
    ADMITTED(column)    a moment lies in the months of the span
    AROUND(column)      the same with some days more on both sides, for what has a day of its own beside it
    ON_DAYS(column)     a UTC day, counted since 1970-01-01, lies in these months
    ON_DATES(column)    a date lies in them
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from django.db import connection

from billing.bulk_rows import fetch_all

MAX_BREAKS_LISTED = 50
FETCH_ROWS = 5_000
DAYS_AROUND = timedelta(days=3)
SECONDS_PER_DAY = 86_400
# Planned as if all of it were wanted: a sound ledger has no first rows at which the planner could hope to stop.
FIRST_OF = f"WITH found AS MATERIALIZED ({{query}}) SELECT * FROM found LIMIT {MAX_BREAKS_LISTED + 1}"  # noqa: S608
MARK = re.compile(r"\b(POSTED|SETTLED|ADMITTED|AROUND|ON_DAYS|ON_DATES)\(([\w.]+)\)")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How many rows were looked at, and a line with ids for each break; at most MAX_BREAKS_LISTED of each query.

    `note` says what was measured, or what could not be looked at and why.
    """

    rows: int
    breaks: Sequence[str] = ()
    note: str = ""


class Span(NamedTuple):
    """Transactions with after_transaction_id < id <= last_transaction_id, and whole UTC months: begins <= time < ends.

    None is no bound. Spans that follow each other leave nothing out and take nothing twice.
    """

    after_transaction_id: int | None = None
    last_transaction_id: int | None = None
    begins: datetime | None = None
    ends: datetime | None = None


EVERYTHING = Span()


class Books:
    """One span of the books, as checks read it. It counts each kind of rows once."""

    def __init__(self, span: Span = EVERYTHING) -> None:
        self.span = span
        self._counts: dict[str, int] = {}

    def judge(self, rows: str, *breaks: str) -> Outcome:
        """Return the outcome of queries: `rows` counts what is checked; each row of `breaks` is one line of text."""
        lines: list[str] = []
        for query in breaks:
            found = [row[0] for row in fetch_all(FIRST_OF.format(query=self.sql(query)))]
            lines += found[:MAX_BREAKS_LISTED]
            if len(found) > MAX_BREAKS_LISTED:
                lines.append(f"... and more of the same kind as: {found[0]}")
        return Outcome(self.count(rows), lines)

    def count(self, query: str) -> int:
        if query not in self._counts:
            self._counts[query] = int(fetch_all(self.sql(query))[0][0])
        return self._counts[query]

    def stream(self, query: str) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a query one by one. Postgres keeps them: however many there are, memory stays flat."""
        with connection.chunked_cursor() as cursor:
            cursor.execute(self.sql(query))
            while rows := cursor.fetchmany(FETCH_ROWS):
                yield from rows

    def sql(self, query: str) -> str:
        """Return a query of the program's own with its marks replaced."""
        return MARK.sub(lambda mark: _CONDITIONS[mark[1]](self.span, mark[2]), query)


def _posted(span: Span, column: str) -> str:
    return _between(column, span.after_transaction_id, ">", span.last_transaction_id, "<=")


def _settled(span: Span, record: str) -> str:
    if span == EVERYTHING:
        return "true"
    in_time = _between(f"{record}.settled_at", _moment(span.begins), ">=", _moment(span.ends), "<")
    posted = _posted(span, f"{record}.ledger_transaction_id")
    if posted == "true":
        posted = f"{record}.ledger_transaction_id IS NOT NULL"
    return f"({posted} OR ({record}.ledger_transaction_id IS NULL AND {in_time}))"


def _admitted(span: Span, column: str) -> str:
    return _between(column, _moment(span.begins), ">=", _moment(span.ends), "<")


def _around(span: Span, column: str) -> str:
    begins = span.begins and span.begins - DAYS_AROUND
    ends = span.ends and span.ends + DAYS_AROUND
    return _admitted(Span(None, None, begins, ends), column)


def _on_days(span: Span, column: str) -> str:
    first, last = (None if at is None else int(at.timestamp()) // SECONDS_PER_DAY for at in (span.begins, span.ends))
    return _between(column, first, ">=", last, "<")


def _on_dates(span: Span, column: str) -> str:
    first, last = (None if at is None else f"'{at.astimezone(UTC).date()}'::date" for at in (span.begins, span.ends))
    return _between(column, first, ">=", last, "<")


_CONDITIONS = {
    "POSTED": _posted,
    "SETTLED": _settled,
    "ADMITTED": _admitted,
    "AROUND": _around,
    "ON_DAYS": _on_days,
    "ON_DATES": _on_dates,
}


def _between(column: str, low: int | str | None, above: str, high: int | str | None, below: str) -> str:
    """Return a condition with the bounds that there are. They are numbers and times of ours, never input."""
    bounds = [f"{column} {above} {low}"] if low is not None else []
    bounds += [f"{column} {below} {high}"] if high is not None else []
    return " AND ".join(bounds) or "true"


def _moment(at: datetime | None) -> str | None:
    return None if at is None else f"'{at.astimezone(UTC).isoformat()}'::timestamptz"
