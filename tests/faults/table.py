"""What has been run, for ever: fault x commit x seeds x violations, as the table in docs/money.md.

python -m tests.faults.table REPORT...            print the table of the document with these reports in it
python -m tests.faults.table --write REPORT...    put it into the document

A report is what `python -m tests.faults --report FILE` appends to. A run that the table has already (same fault, commit
and seed) is not counted again, unless it broke an invariant: that is counted whenever it happens.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DOCUMENT = Path(__file__).resolve().parent.parent.parent / "docs/money.md"
HEADINGS = ("fault", "runs", "commit: seeds", "requests", "replies whole", "orphans", "violations")
TABLE = re.compile(r"^\| " + r" \| ".join(HEADINGS) + r" \|\n(?:\|.*\n)*", re.MULTILINE)
COUNTS = {"requests": "answers", "whole": "complete", "orphans": "orphan"}


class TableError(Exception):
    """The document has no such table, or one with a row that cannot be read."""


@dataclass
class Row:
    """All runs of one fault. `seeds` by commit, in the order in which these came; `broken`: which had violations."""

    fault: str
    runs: int = 0
    seeds: dict[str, set[int]] = field(default_factory=dict)
    requests: int = 0
    whole: int = 0
    orphans: int = 0
    violations: int = 0
    broken: dict[str, set[int]] = field(default_factory=dict)

    def add(self, run: Mapping[str, Any]) -> bool:
        """Count a run, a line of a report; False when it is known and broke nothing."""
        seeds = self.seeds.setdefault(run["commit"], set())
        if run["seed"] in seeds and not run["violations"]:
            return False
        seeds.add(run["seed"])
        self.runs += 1
        for name, count in COUNTS.items():
            setattr(self, name, getattr(self, name) + run["counts"].get(count, 0))
        self.violations += len(run["violations"])
        if run["violations"]:
            self.broken.setdefault(run["commit"], set()).add(run["seed"])
        return True

    def cells(self) -> list[object]:
        violations = f"{self.violations} ({_by_commit(self.broken)})" if self.broken else self.violations
        counts = self.requests, self.whole, self.orphans
        return [f"`{self.fault}`", self.runs, _by_commit(self.seeds), *counts, violations]


Rows = dict[str, Row]


def add_runs(rows: Rows, runs: Iterable[Mapping[str, Any]]) -> int:
    """Add runs to the rows and return how many were known before."""
    known = 0
    for run in runs:
        name = run["fault"] if run["topology"] == "single" else f"{run['fault']} on {run['topology']}"
        known += not rows.setdefault(name, Row(name)).add(run)
    return known


def render_table(rows: Rows) -> str:
    lines = [_line(HEADINGS), _line(["---"] * len(HEADINGS))]
    lines += [_line(row.cells()) for _, row in sorted(rows.items())]
    return "\n".join(lines) + "\n"


def find_table(document: str) -> Rows:
    """Return the rows of the table in a document. Raises TableError."""
    found = TABLE.search(document)
    if found is None:
        raise TableError(f"There is no table with the headings {', '.join(HEADINGS)}.")
    rows = [_read_row(line) for line in found[0].splitlines()[2:]]
    return {row.fault: row for row in rows}


def replace_table(document: str, rows: Rows) -> str:
    """Return the document with these rows in its table. Raises TableError."""
    find_table(document)
    return TABLE.sub(lambda _: render_table(rows), document, count=1)


def read_reports(paths: Iterable[Path]) -> list[dict[str, Any]]:
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


def _read_row(line: str) -> Row:
    try:
        name, runs, seeds, *counts, violations = (cell.strip() for cell in line.strip("|").split("|"))
        count, _, broken = violations.rstrip(")").partition(" (")
        requests, whole, orphans = map(int, counts)
        return Row(
            name.strip("`"),
            int(runs),
            _read_by_commit(seeds),
            requests,
            whole,
            orphans,
            int(count),
            _read_by_commit(broken) if broken else {},
        )
    except ValueError as error:
        raise TableError(f"{line}: {error}") from None


def _by_commit(seeds: Mapping[str, Iterable[int]]) -> str:
    return "; ".join(f"{commit}: {_ranges(numbers)}" for commit, numbers in seeds.items())


def _read_by_commit(text: str) -> dict[str, set[int]]:
    parts = (part.split(": ") for part in text.split("; "))
    return {commit: set(_read_ranges(seeds)) for commit, seeds in parts}


def _line(cells: Iterable[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _ranges(seeds: Iterable[int]) -> str:
    """Return "3-7, 9" for 3, 4, 5, 6, 7, 9."""
    parts: list[list[int]] = []
    for seed in sorted(set(seeds)):
        if parts and seed == parts[-1][-1] + 1:
            parts[-1].append(seed)
        else:
            parts.append([seed])
    return ", ".join(f"{part[0]}-{part[-1]}" if len(part) > 1 else str(part[0]) for part in parts)


def _read_ranges(text: str) -> Iterable[int]:
    for part in text.split(", "):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.table")
    parser.add_argument("reports", nargs="+", type=Path, metavar="REPORT")
    parser.add_argument("--write", action="store_true", help="write into docs/money.md")
    arguments = parser.parse_args()
    document = DOCUMENT.read_text()
    rows = find_table(document)
    runs = read_reports(arguments.reports)
    known = add_runs(rows, runs)
    if arguments.write:
        DOCUMENT.write_text(replace_table(document, rows))
    else:
        sys.stdout.write(render_table(rows))
    broken = sum(1 for run in runs if run["violations"])
    sys.stderr.write(f"{len(runs)} runs: {known} in the table before, {broken} broke an invariant\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
