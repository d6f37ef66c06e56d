"""Runs faults one after another and reports each: for `make faults`, and to run one again from its seed."""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from billing.admission.redis.topology import SINGLE
from tests.faults.catalog import ALL_FAULTS, CLOCK_FAULTS, FAULTS_BY_TOPOLOGY
from tests.faults.scenario import Run, run_fault
from tests.faults.stacks import Stacks
from tests.faults.table import Rows, add_runs, render_table
from tests.support.durable_stack import FakeClock
from tests.support.live_stack import ROOT, looking_at

LONGEST_RUN_SECONDS = 45.0  # A run is not begun when less than this is left.
MAX_LINES_SHOWN = 12  # The report has them all.
DESCRIPTION = """
A fault strikes at moments that its seed chooses; what the machine does meanwhile it cannot choose. Without --seconds,
and without --seeds, each fault runs once with the seed given. Exits 1 when an invariant was broken.
"""


def main() -> int:
    arguments = _read_arguments()
    names = _choose(arguments.fault or list(FAULTS_BY_TOPOLOGY[arguments.topology]), arguments.topology)
    first_seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(10**6)
    runs: list[Run] = []
    commit = read_commit()
    with _folder(arguments.folder) as folder:
        stacks = Stacks(folder)
        try:
            for name, seed in _draw(names, first_seed, seeds=arguments.seeds, seconds=arguments.seconds):
                runs.append(replace(_run(stacks, name, seed, arguments.topology), commit=commit))
                _report(runs[-1], arguments.report)
        finally:
            stacks.drop()
    rows: Rows = {}
    add_runs(rows, map(asdict, runs))
    _say("\n" + render_table(rows))
    return 1 if any(run.violations for run in runs) else 0


def _read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=DESCRIPTION)
    parser.add_argument("--seconds", type=float, help="go on to further seeds for this long")
    parser.add_argument("--seeds", type=int, help="run so many seeds of each fault, however long it takes")
    parser.add_argument("--seed", type=int, help="the seed, or the first of them; a random one unless told")
    parser.add_argument("--fault", action="append", choices=list(ALL_FAULTS), help="only this fault; repeatable")
    parser.add_argument(
        "--topology",
        choices=list(FAULTS_BY_TOPOLOGY),
        default=SINGLE,
        help="what Redis admission lives on, or several machines",
    )
    parser.add_argument("--folder", type=Path, help="keep logs and data here, to look at afterwards")
    parser.add_argument("--report", type=Path, help="append each run to this file, a line of JSON each")
    return parser.parse_args()


def _choose(names: Sequence[str], topology: str) -> list[str]:
    unknown = set(names) - FAULTS_BY_TOPOLOGY[topology].keys()
    if unknown:
        sys.exit(f"{', '.join(unknown)} needs another --topology.")
    if FakeClock.is_installed() or not CLOCK_FAULTS.keys() & set(names):
        return list(names)
    _say(f"Left out, because libfaketime is not installed: {', '.join(CLOCK_FAULTS)}.")
    return [name for name in names if name not in CLOCK_FAULTS]


def read_commit() -> str:
    """Return the short id of the commit that is checked out, with a plus where files differ from it; "" outside git."""
    answers = [
        subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
        for words in (("rev-parse", "--short=7", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
    ]
    if any(answer.returncode for answer in answers):
        return ""
    commit, changes = (answer.stdout.strip() for answer in answers)
    return commit + ("+" if changes else "")


@contextmanager
def _folder(kept: Path | None) -> Iterator[Path]:
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
        yield Path(tempfile.mkdtemp(dir=kept))
        return
    with tempfile.TemporaryDirectory(prefix="crossmodel-faults-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _draw(
    names: Sequence[str], first_seed: int, *, seeds: int | None, seconds: float | None
) -> Iterator[tuple[str, int]]:
    """Every fault with the first seed, then every fault with the next, until it is enough; once unless told."""
    ends_at = None if seconds is None else time.monotonic() + seconds
    seed = first_seed
    while seeds is None or seed < first_seed + seeds:
        for name in names:
            if ends_at is not None and time.monotonic() + LONGEST_RUN_SECONDS > ends_at:
                return
            yield name, seed
        if ends_at is None and seeds is None:
            return
        seed += 1


def _run(stacks: Stacks, name: str, seed: int, topology: str) -> Run:
    stack = stacks.give(has_clock=name in CLOCK_FAULTS, topology=topology)
    with looking_at(stack):
        run = run_fault(stack, name, FAULTS_BY_TOPOLOGY[topology][name], seed=seed)
    if run.violations:
        stacks.drop()  # What is broken stays broken, and would be found again by every later run.
    return run


def _report(run: Run, path: Path | None) -> None:
    _say(
        f"{run.fault:<34} seed {run.seed:<7} {run.seconds:5.1f} s  {json.dumps(run.counts)}"
        f"  {len(run.violations)} violations"
    )
    for line in run.violations[:MAX_LINES_SHOWN]:
        _say(f"    {line}")
    if run.violations:
        _say(f"    answers: {run.answers}")
    if path is not None:
        with path.open("a") as report:
            report.write(json.dumps(asdict(run)) + "\n")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
