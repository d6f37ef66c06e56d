"""Negative controls: each guard taken out in a copy of the tree, and the invariant that it guards seen to break.

python -m tests.faults.controls        all of them; exits 1 when one breaks nothing
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
NOT_COPIED = shutil.ignore_patterns(".venv", ".git", "var", "__pycache__", "node_modules", ".*_cache")
SEEDS = (1, 2, 3)  # A guard that chance spares once is missed the next time.
RUN_SECONDS = 300


class PatchError(Exception):
    """The text that a control replaces is not there, or more than once: the control must follow the code."""


@dataclass(frozen=True)
class Patch:
    path: str
    before: str
    after: str

    def apply(self, tree: Path) -> None:
        """Replace the text. Raises PatchError."""
        file = tree / self.path
        text = file.read_text()
        if text.count(self.before) != 1:
            raise PatchError(f"{self.path} holds this {text.count(self.before)} times, not once:\n{self.before}")
        file.write_text(text.replace(self.before, self.after))


@dataclass(frozen=True)
class Control:
    name: str
    invariant: str
    fault: str
    patches: tuple[Patch, ...]


SCRIPTS = "billing/admission/scripts/"
CONTROLS = (
    Control(
        "no unique key",
        "I4",
        "worker_killed_before_it_confirms",
        (
            Patch(
                "billing/migrations/0002_guards_and_partitions.py",
                "ALTER TABLE billing_usagerecord ADD CONSTRAINT billing_usagerecord_pkey PRIMARY KEY (request_id);",
                "CREATE INDEX billing_usagerecord_pkey ON billing_usagerecord (request_id);",
            ),
            Patch(
                "billing/settlement_rows.py",
                "            FROM {{rows}}\n            ON CONFLICT (request_id) DO NOTHING\n",
                "            FROM {{rows}}\n",
            ),
        ),
    ),
    Control(
        "confirm before commit",
        "I3",
        "postgres_killed",
        (
            Patch(
                "billing/tasks.py",
                "    batch = settle_batch(shard, entries) if entries else None\n",
                "    from billing.stream import SettledBatch\n\n"
                "    ids = [entry.stream_id for entry in entries]\n"
                "    confirm_batch(SettledBatch(shard, ids, [], []), epoch=epoch)\n"
                "    batch = settle_batch(shard, entries) if entries else None\n",
            ),
        ),
    ),
    Control(
        "no hold",
        "I6",
        "crowd_on_a_small_balance",
        (
            Patch(SCRIPTS + "admit.lua", "'amount', ARGV[4], 'day', day", "'amount', '0', 'day', day"),
            Patch(
                SCRIPTS + "admit.lua", "count_hold(KEYS[3], KEYS[4], ARGV[4], ", "count_hold(KEYS[3], KEYS[4], '0', "
            ),
        ),
    ),
    Control(
        "settlement refuses",
        "I3",
        "costs_exceed_holds",
        (
            Patch(
                "billing/settlement.py",
                "        total_nanos = sum(item.event.cost_nanos for item in items)\n        header",
                "        total_nanos = sum(item.event.cost_nanos for item in items)\n"
                "        if book.balances[organization_id].posted_nanos < total_nanos:\n"
                '            raise LedgerError("The balance does not cover it.")\n'
                "        header",
            ),
        ),
    ),
    Control(
        "deltas summed",
        "I5",
        "upstream_repeats_itself",
        (
            Patch(
                "gateway/protocol/messages_usage.py",
                "            self._output = max(output, self._output or 0)\n",
                "            self._output = output + (self._output or 0)\n",
            ),
        ),
    ),
    Control(
        "orphans released",
        "I3",
        "gateway_killed",
        (
            Patch(SCRIPTS + "reap.lua", "    count_event(org, key, hold[5], hold[4], true)\n", ""),
            Patch(
                SCRIPTS + "reap.lua",
                "    append_event(KEYS[3], hold[1], hold[2], hold[5], hold[4], hold[6], hold[7] or '0')\n",
                "",
            ),
        ),
    ),
    Control(
        "no fence",
        "I6",
        "crowd_while_redis_is_emptied",
        (
            Patch(
                SCRIPTS + "_common.lua",
                "  return epoch and string.match(epoch, '^%w+') == run_id()\n",
                "  if not epoch then redis.call('SET', epoch_key, run_id() .. ':0') end\n  return true\n",
            ),
        ),
    ),
    Control(
        "tokens not reserved",
        "I14",
        "worker_killed",
        (
            Patch(
                SCRIPTS + "admit.lua",
                "local wanted = {1, tonumber(ARGV[6]), tonumber(ARGV[7])}",
                "local wanted = {1, 0, 0}",
            ),
        ),
    ),
    Control(
        "requests not counted",
        "I14",
        "upstream_repeats_itself",
        (Patch(SCRIPTS + "_common.lua", "  note_counter(redis.call('HINCRBY', org, 'open', one))\n", ""),),
    ),
    Control(
        "no claim on a key",
        "I9",
        "worker_killed",
        (
            Patch(
                "gateway/idempotency.py",
                "        if row.expires_at <= now or _was_released(row):\n",
                "        if row.expires_at <= now or row.pk:\n",
            ),
        ),
    ),
    Control(
        "refunds without a key",
        "I9",
        "postgres_killed",
        (
            Patch(
                "billing/refunds.py",
                'idempotency_key=f"refund:{charge_id}:{request_id.hex}:{idempotency_key}",',
                "idempotency_key=f\"refund:{charge_id}:{request_id.hex}:{__import__('uuid').uuid4().hex}\"\n"
                '        f":{request_id.hex}:{idempotency_key}",',
            ),
        ),
    ),
    Control(
        "payments without a key",
        "I11",
        "postgres_killed",
        (
            Patch(
                "billing/top_ups.py",
                'idempotency_key=f"payment:{payment_provider}:{payment_id}",',
                "idempotency_key=f\"{__import__('uuid').uuid4().hex}:payment:{payment_provider}:{payment_id}\",",
            ),
        ),
    ),
)


def take_out(control: Control, folder: Path) -> Path:
    """Return a copy of the tree without the guard. Raises PatchError."""
    tree = folder / control.name.replace(" ", "-")
    shutil.copytree(ROOT, tree, ignore=NOT_COPIED)
    for patch in control.patches:
        patch.apply(tree)
    return tree


def broken_invariants(tree: Path, fault: str, seed: int) -> set[str]:
    """Run one fault in a tree and return the invariants that its report names."""
    report = tree / f"report-{seed}.jsonl"
    command = [sys.executable, "-m", "tests.faults", "--fault", fault, "--seed", str(seed), "--report", str(report)]
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    result = subprocess.run(
        command, cwd=tree, env=environment, capture_output=True, text=True, timeout=RUN_SECONDS, check=False
    )
    if not report.exists():
        raise RuntimeError(f"{fault} did not run to its end:\n{result.stdout[-2000:]}{result.stderr[-2000:]}")
    [run] = [json.loads(line) for line in report.read_text().splitlines()]
    return {line.split()[0] for line in run["violations"]}


def show(controls: Iterable[Control]) -> list[str]:
    """Return the names of controls that broke nothing, and print a line for each."""
    spared = []
    for control in controls:
        with tempfile.TemporaryDirectory(prefix="crossmodel-control-", ignore_cleanup_errors=True) as folder:
            tree = take_out(control, Path(folder))
            for seed in SEEDS:
                broken = broken_invariants(tree, control.fault, seed)
                if control.invariant in broken:
                    break
            else:
                spared.append(control.name)
        verdict = "broken" if control.invariant in broken else "NOT broken"
        sys.stdout.write(
            f"| {control.name} | {control.fault} | {seed} | {control.invariant} {verdict} | "
            f"{', '.join(sorted(broken)) or 'none'} |\n"
        )
        sys.stdout.flush()
    return spared


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.controls")
    parser.add_argument("--only", action="append", choices=[control.name for control in CONTROLS])
    wanted = parser.parse_args().only
    sys.stdout.write("| without | fault | seed | invariant | all that broke |\n|---|---|---|---|---|\n")
    return 1 if show(control for control in CONTROLS if not wanted or control.name in wanted) else 0


if __name__ == "__main__":
    sys.exit(main())
