"""Runs faults one after another and reports each: for `make faults`, and to run one again from its seed."""

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from tests.faults.catalog import CLOCK_FAULTS, FAULTS
from tests.faults.stage import Run, run_fault
from tests.faults.table import render_table
from tests.faults.worlds import Worlds
from tests.support.durable_world import FakeClock
from tests.support.world import looking_at

LONGEST_RUN_SECONDS = 45.0  # A run is not begun when less than this is left.
MAX_LINES_SHOWN = 12  # The report has them all.
DESCRIPTION = """
A fault strikes at moments that its seed chooses; what the machine does meanwhile it cannot choose. Without --seconds,
each fault runs once with the seed given. Exits 1 when an invariant was broken.
"""


def main() -> int:
    arguments = _read_arguments()
    names = _choose(arguments.fault or list(FAULTS))
    first_seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(10**6)
    runs: list[Run] = []
    with tempfile.TemporaryDirectory(prefix="crossmodel-faults-", ignore_cleanup_errors=True) as folder:
        worlds = Worlds(Path(folder))
        try:
            for run in _play(worlds, names, first_seed=first_seed, seconds=arguments.seconds):
                runs.append(run)
                _report(run, arguments.report)
        finally:
            worlds.drop()
    _say(render_table(runs))
    return 1 if any(run.violations for run in runs) else 0


def _read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=DESCRIPTION)
    parser.add_argument("--seconds", type=float, help="go on to further seeds for this long")
    parser.add_argument("--seed", type=int, help="the seed, or the first of them; a random one unless told")
    parser.add_argument("--fault", action="append", choices=list(FAULTS), help="only this fault; repeatable")
    parser.add_argument("--report", type=Path, help="append each run to this file, a line of JSON each")
    return parser.parse_args()


def _choose(names: Sequence[str]) -> list[str]:
    if FakeClock.is_installed() or not CLOCK_FAULTS.keys() & set(names):
        return list(names)
    _say(f"Left out, because libfaketime is not installed: {', '.join(CLOCK_FAULTS)}.")
    return [name for name in names if name not in CLOCK_FAULTS]


def _play(worlds: Worlds, names: Sequence[str], *, first_seed: int, seconds: float | None) -> Iterator[Run]:
    """Every fault with the first seed, then every fault with the next, until the time is up; once without a time."""
    ends_at = time.monotonic() + (seconds or 0.0)
    seed = first_seed
    while True:
        for name in names:
            if seconds is not None and time.monotonic() + LONGEST_RUN_SECONDS > ends_at:
                return
            yield _run(worlds, name, seed)
        if seconds is None:
            return
        seed += 1


def _run(worlds: Worlds, name: str, seed: int) -> Run:
    world = worlds.give(has_clock=name in CLOCK_FAULTS)
    with looking_at(world):
        run = run_fault(world, name, FAULTS[name], seed=seed)
    if run.violations:
        worlds.drop()  # What is broken stays broken, and would be found again by every later run.
    return run


def _report(run: Run, path: Path | None) -> None:
    _say(
        f"{run.fault:<34} seed {run.seed:<7} {run.seconds:5.1f} s  {json.dumps(run.figures)}"
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
