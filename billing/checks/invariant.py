"""What a check is, and how several are run on one unmoving view of the database."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from django.db import connection, transaction

from billing.checks.books import EVERYTHING, MAX_BREAKS_LISTED, Books, Outcome, Span
from billing.watching import watched

# For each step of a query that sorts or hashes: a month of a large installation, mostly without a file.
SORT_MEMORY = "64MB"


@dataclass(frozen=True, slots=True)
class Check:
    """`invariant` is its number in the list of invariants, such as "I4"; `name` says what holds.

    One that `is_whole` reads only what is small, or what may change at any time, and is not run for each span.
    """

    invariant: str
    name: str
    run: Callable[[Books], Outcome]
    is_whole: bool = False


@dataclass(slots=True)
class Report:
    outcomes: list[tuple[Check, Outcome]] = field(default_factory=list)

    @property
    def rows(self) -> int:
        return sum(outcome.rows for _, outcome in self.outcomes)

    @property
    def breaks(self) -> list[str]:
        return [f"{check.invariant} {line}" for check, outcome in self.outcomes for line in outcome.breaks]


def run_checks(checks: Iterable[Check], spans: Sequence[Span] = (EVERYTHING,)) -> Report:
    """Run checks on one snapshot: what is settled meanwhile cannot look like a break. Of the books, the spans."""
    checks = list(checks)
    found: list[list[Outcome]] = [[] for _ in checks]
    with transaction.atomic():
        with connection.cursor() as cursor:
            if len(connection.savepoint_ids) == 0:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            cursor.execute(f"SET LOCAL work_mem = '{SORT_MEMORY}'")
        for span in spans:
            books = Books(span)
            for check, outcomes in watched(list(zip(checks, found, strict=True)), len(checks)):
                if not check.is_whole:
                    outcomes.append(check.run(books))
        everything = Books()
        for check, outcomes in zip(checks, found, strict=True):
            if check.is_whole:
                outcomes.append(check.run(everything))
    return Report([(check, _sum(outcomes)) for check, outcomes in zip(checks, found, strict=True)])


def _sum(outcomes: Sequence[Outcome]) -> Outcome:
    """Return what a check found in all spans. A break may show in two of them, and is listed once."""
    if len(outcomes) == 1:
        return outcomes[0]
    lines = dict.fromkeys(line for outcome in outcomes for line in outcome.breaks)
    notes = dict.fromkeys(outcome.note for outcome in outcomes if outcome.note)
    return Outcome(sum(outcome.rows for outcome in outcomes), list(lines)[: 2 * MAX_BREAKS_LISTED], "; ".join(notes))
