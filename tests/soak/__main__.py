"""python -m tests.soak --minutes N: exit code 0 when nothing grew and every answer was as it should be, else 1."""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from tests.soak.samples import Sampler
from tests.soak.surfaces import Crowd
from tests.soak.verdict import judge, render
from tests.support.local_run import LocalRun

SAMPLES = 40
LEAST_MINUTES = 1.0
MAX_FAULTS_SHOWN = 20
SETTLE_SECONDS = 5.0
MAX_UNAVAILABLE_SHARE = 0.01


def main() -> int:
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=LEAST_MINUTES)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if options.minutes < LEAST_MINUTES:
        parser.error(f"less than {LEAST_MINUTES:g} minute shows nothing")
    with tempfile.TemporaryDirectory() as folder:
        temporary = Path(folder, "tmp")
        temporary.mkdir()
        with LocalRun(Path(folder, "var"), variables={"TMPDIR": str(temporary)}) as run:
            return asyncio.run(soak(run, temporary, seconds=options.minutes * 60, seed=options.seed))


async def soak(run: LocalRun, temporary: Path, *, seconds: float, seed: int) -> int:
    sampler = Sampler(run, temporary)
    crowd = Crowd(run, seed=seed)
    stop = asyncio.Event()
    using = asyncio.create_task(crowd.use(stop))
    samples: list[Mapping[str, float]] = []
    answers: list[int] = []
    started = time.monotonic()
    for number in range(1, SAMPLES + 1):
        await asyncio.sleep(max(0.0, started + seconds * number / SAMPLES - time.monotonic()))
        samples.append(await asyncio.to_thread(sampler.sample))
        answers.append(crowd.total)
    stop.set()
    await using
    sampler.close()
    await asyncio.sleep(SETTLE_SECONDS)
    ledger = await asyncio.to_thread(run.manage, "check_ledger")

    growths = judge(samples, answers)
    grew = [each.name for each in growths if each.is_too_much]
    lines = [
        render(growths),
        f"{crowd.total} answers in {seconds / 60:g} minutes, {crowd.total / seconds:.1f} a second:",
        *(f"  {name}: {count}" for name, count in sorted(crowd.answers.items())),
        f"check_ledger: {(ledger.stdout.strip() or ledger.stderr.strip()).splitlines()[-1]}",
        *(f"not as it should be: {fault}" for fault in crowd.faults[:MAX_FAULTS_SHOWN]),
        *(f"asked to try again: {line}" for line in [line for line in run.lines if " 503 " in line][:MAX_FAULTS_SHOWN]),
        f"{len(crowd.faults)} answers were not as they should be, {crowd.unavailable} asked to try again.",
        f"Grew: {', '.join(grew)}" if grew else "Nothing grew that is not a record.",
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    is_busy = crowd.unavailable > crowd.total * MAX_UNAVAILABLE_SHARE
    return 1 if grew or crowd.faults or is_busy or ledger.returncode else 0


if __name__ == "__main__":
    sys.exit(main())
