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


SCRIPTS = "billing/admission/lua/"
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
                "billing/settlement/rows.py",
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
                "operations/tasks.py",
                "    with BATCHES.time():\n        batches = settle_batches(",
                "    from billing.usage_stream import SettledBatch\n\n"
                "    for shard, each in waiting.items():\n"
                "        ids = [entry.stream_id for entry in each.entries]\n"
                "        confirm_batch(SettledBatch(shard, ids, [], []), epoch=each.epoch)\n"
                "    with BATCHES.time():\n        batches = settle_batches(",
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
                "billing/settlement/batch.py",
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
                "gateway/protocol/messages/usage.py",
                "            self._output = max(output, self._output or 0)\n",
                "            self._output = output + (self._output or 0)\n",
            ),
        ),
    ),
    Control(
        "holds of end users kept",
        "I8",
        "worker_killed",
        (
            Patch(
                SCRIPTS + "close.lua",
                "  count_spenders(prefix, spenders, 'held', kept_amount(hold[1]), day, false)\n",
                "",
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
                "    append_event(KEYS[3], hold[1], hold[2], hold[5], hold[4], hold[6], hold[7] or '0', hold[8])\n",
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
                "  local run_id = epoch and string.match(epoch, '^(%w+):')\n",
                "  local found = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')\n"
                "  if not epoch then redis.call('SET', epoch_key, found .. ':0') end\n"
                "  if true then return epoch or found .. ':0' end\n"
                "  local run_id = epoch and string.match(epoch, '^(%w+):')\n",
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
                "judge(2, tonumber(ARGV[6]))\njudge(3, tonumber(ARGV[7]))",
                "judge(2, 0)\njudge(3, 0)",
            ),
        ),
    ),
    Control(
        "requests not counted",
        "I14",
        "upstream_repeats_itself",
        (Patch(SCRIPTS + "_common.lua", "  note_counter(redis.call('HINCRBY', org, 'open', one), org, key)\n", ""),),
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
        "vanished entries settled",
        "I3",
        "entries_trimmed",
        tuple(Patch(SCRIPTS + name, " or note_vanished_events(KEYS[3])", "") for name in ("renew.lua", "reap.lua")),
    ),
    Control(
        "refunds without a key",
        "I9",
        "postgres_killed",
        (
            Patch(
                "billing/corrections/refunds.py",
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
                "billing/credit/top_ups.py",
                "idempotency_key=payment_key(payment_provider, payment_id),",
                "idempotency_key=__import__('uuid').uuid4().hex + payment_key(payment_provider, payment_id),",
            ),
        ),
    ),
    Control(
        "webhooks without a key",
        "I11",
        "payment_messages_doubled",
        (
            Patch(
                "billing/payments/orders.py",
                "    if top_up.ledger_transaction_id is not None:\n        return False\n    posted = ",
                "    posted = ",
            ),
            Patch(
                "billing/payments/orders.py",
                "        payment_id=top_up.reference.hex,\n        amount_nanos=top_up.amount_nanos,\n",
                "        payment_id=__import__('uuid').uuid4().hex if top_up.paid_at else top_up.reference.hex,\n"
                "        amount_nanos=top_up.amount_nanos,\n",
            ),
            Patch(
                "billing/migrations/0011_payments.py",
                "              OR (OLD.ledger_transaction_id IS NOT NULL\n",
                "              OR (false AND OLD.ledger_transaction_id IS NOT NULL\n",
            ),
        ),
    ),
    Control(
        "success before the commit",
        "I11",
        "gateway_killed_among_payment_messages",
        (
            Patch(
                "api/payment_webhooks.py",
                "        news = [applied for applied in map(apply_event, events) if applied.changed]\n",
                "        import threading\n\n"
                "        threading.Timer(1.0, lambda: list(map(apply_event, events))).start()\n"
                "        news = []\n",
            ),
        ),
    ),
    Control(
        "numbers from the maximum",
        "I12",
        "closings_at_once_and_one_killed",
        (
            Patch(
                "billing/documents/numbers.py",
                '        """INSERT INTO billing_documentseries AS series (name, last_number) VALUES (%s, 1)\n'
                "            ON CONFLICT (name) DO UPDATE SET last_number = series.last_number + 1"
                ' RETURNING last_number""",\n',
                '        "SELECT coalesce(max(number), 0) + 1 FROM billing_document WHERE kind = %s",\n',
            ),
        ),
    ),
    Control(
        "expiry read outside the lock",
        "I10",
        "lot_expired",
        (
            Patch(
                "billing/credit/lots.py",
                "        book = Book.open([organization.pk], system=system, postings=due.count())\n",
                "        from billing.ledger.rows import read_lots\n\n"
                "        stale = read_lots([organization.pk])\n"
                "        __import__('time').sleep(0.1)\n"
                "        book = Book.open([organization.pk], system=system, postings=due.count())\n"
                "        book.lots[organization.pk] = stale\n",
            ),
        ),
    ),
    Control(
        "deliveries done when they are claimed",
        "I16",
        "webhook_endpoint_down",
        (
            Patch(
                "billing/webhooks/deliveries.py",
                "UPDATE billing_webhookdelivery SET claimed_until",
                "UPDATE billing_webhookdelivery SET state = 'delivered', claimed_until",
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
    told = [line.split() for line in run["violations"]]
    # What check_ledger finds stands under one heading, and is named by the check: "I1-I15 BROKEN  I10 ...".
    return {words[0] for words in told} | {words[2] for words in told if words[1:2] == ["BROKEN"]}


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
