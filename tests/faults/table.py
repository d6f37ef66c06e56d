"""Fault x seeds x violations, as a table of Markdown. Pure."""

from collections.abc import Iterable
from itertools import groupby

from tests.faults.stage import Run

HEADINGS = ("fault", "runs", "seeds", "requests", "replies whole", "orphans", "violations")


def render_table(runs: Iterable[Run]) -> str:
    lines = ["", _row(HEADINGS), _row(["---"] * len(HEADINGS))]
    for name, group in groupby(sorted(runs, key=lambda run: (run.fault, run.seed)), key=lambda run: run.fault):
        of_one = list(group)
        sums = [sum(run.figures.get(figure, 0) for run in of_one) for figure in ("answers", "complete", "orphan")]
        violations = sum(len(run.violations) for run in of_one)
        lines.append(_row([name, len(of_one), _ranges(run.seed for run in of_one), *sums, violations]))
    return "\n".join(lines)


def _row(cells: Iterable[object]) -> str:
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
