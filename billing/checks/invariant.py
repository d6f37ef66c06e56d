"""What a check is, and how several are run on one unmoving view of the database."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.db import connection, transaction

from billing.bulk_rows import fetch_all

MAX_BREAKS_LISTED = 50
FETCH_ROWS = 5_000


@dataclass(frozen=True, slots=True)
class Outcome:
    """How many rows were looked at, and a line with ids for each break; at most MAX_BREAKS_LISTED of each query.

    `note` says what was measured, or what could not be looked at and why.
    """

    rows: int
    breaks: Sequence[str] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """`invariant` is its number in the list of invariants, such as "I4"; `name` says what holds."""

    invariant: str
    name: str
    run: Callable[[], Outcome]


@dataclass(slots=True)
class Report:
    outcomes: list[tuple[Check, Outcome]] = field(default_factory=list)

    @property
    def rows(self) -> int:
        return sum(outcome.rows for _, outcome in self.outcomes)

    @property
    def breaks(self) -> list[str]:
        return [f"{check.invariant} {line}" for check, outcome in self.outcomes for line in outcome.breaks]


def run_checks(checks: Iterable[Check]) -> Report:
    """Run checks on one snapshot: what is settled meanwhile cannot look like a break."""
    report = Report()
    with transaction.atomic():
        with connection.cursor() as cursor:
            if len(connection.savepoint_ids) == 0:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        for check in checks:
            report.outcomes.append((check, check.run()))
    return report


def stream(query: str) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of a query one by one. Postgres keeps them: however many there are, memory stays flat."""
    with connection.chunked_cursor() as cursor:
        cursor.execute(query)
        while rows := cursor.fetchmany(FETCH_ROWS):
            yield from rows


def judge(rows: str, *breaks: str) -> Outcome:
    """Return the outcome of queries: `rows` counts what is checked; each row of `breaks` is one line of text."""
    lines: list[str] = []
    for query in breaks:
        found = [row[0] for row in fetch_all(f"{query} LIMIT {MAX_BREAKS_LISTED + 1}")]  # constants of the program
        lines += found[:MAX_BREAKS_LISTED]
        if len(found) > MAX_BREAKS_LISTED:
            lines.append(f"... and more of the same kind as: {found[0]}")
    return Outcome(int(fetch_all(rows)[0][0]), lines)
