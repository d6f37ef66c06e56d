"""Money that moves by hand while a fault strikes: payments, grants, adjustments, refunds, codes, re-ratings.

Two operators carry out the same operations, each under its idempotency key, at nearly the same time; now and then the
connection of one to Postgres breaks in the middle, and it tries the same again until it has an answer. When all is
healed each operation is repeated once more. Then the ledger must hold the effect of each exactly once.
"""

import os
import random
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal, cast

import psycopg
from django.db import Error, connection, connections

from billing.credit.redemption import NewCode
from billing.ledger.book import IdempotencyConflictError, LedgerError
from tests.faults.ledger_operations import LedgerOperation, RefusedError, Rerating, draw_operation
from tests.support.live_stack import Tenant

OPERATORS = 2
MAX_OPERATIONS = 60
PAUSE_SECONDS = (0.02, 0.15)  # Between the operations of a operator.
CUT_SHARE = 0.25
CUT_AFTER_SECONDS = 0.03  # Within this a operation is usually done.
RETRY_PAUSE_SECONDS = 0.1
STOP_SECONDS = 120.0  # By then a operator that waits for Postgres has its answer.

Outcome = Literal["new", "repeated", "refused", "cut"]


@dataclass
class Operators:
    """`seed` names this run: idempotency keys are made from it.

    `loses_operations`: Postgres came back as of an earlier moment, so that what was posted may be posted again.
    """

    tenants: Sequence[Tenant]
    rerating: Rerating
    codes: Sequence[NewCode]
    seed: str
    loses_operations: bool = False
    operations: list[LedgerOperation] = field(default_factory=list)
    outcomes: dict[int, list[Outcome]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    _stopping: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def open(self) -> None:
        for operator in range(OPERATORS):
            thread = threading.Thread(target=self._work, args=(random.Random(f"{self.seed}/{operator}"),), daemon=True)
            thread.start()
            self._threads.append(thread)

    def close(self) -> None:
        """Let the operators finish what they are at."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(STOP_SECONDS)
            if thread.is_alive():
                self.problems.append("P4 a operator has no answer from Postgres")

    def repeat_all(self) -> None:
        """Carry out each operation once more, now that nothing is broken."""
        chance = random.Random(self.seed)
        for index in range(len(self.operations)):
            self._carry_out(index, chance, may_cut=False)

    def price_again(self) -> None:
        """Re-rate all that was settled, twice."""
        self.rerating.run()
        self.rerating.run()

    def violations(self) -> list[str]:
        """I9, I10, I11: name each operation whose effect is not there exactly once, as asked for."""
        found = list(self.problems)
        for index, operation in enumerate(self.operations):
            outcomes = self.outcomes.get(index, [])
            if outcomes.count("new") > 1 and not self.loses_operations:
                found.append(f"I9 {operation} was reported as new {outcomes.count('new')} times")
            answered = outcomes[-1:] if self.loses_operations else outcomes
            was_posted = "new" in answered or "repeated" in answered
            found += operation.violations(was_posted=was_posted)
        return found + self.rerating.violations()

    def counts(self) -> dict[str, int]:
        """Return how many operations there were, and how many attempts at them were cut off."""
        seen = [outcome for outcomes in self.outcomes.values() for outcome in outcomes]
        return {"operations": len(self.operations), "cut": seen.count("cut"), "refused": seen.count("refused")}

    def _work(self, chance: random.Random) -> None:
        index = 0
        try:
            while not self._stopping.is_set():
                time.sleep(chance.uniform(*PAUSE_SECONDS))
                try:
                    if not self._has_operation(index, chance):
                        continue
                    self._carry_out(index, chance, may_cut=True)
                    if chance.random() < 0.05:
                        self.rerating.run()
                except (Error, psycopg.Error):
                    _hang_up()
                    continue
                index += 1
        except Exception as error:
            self.problems.append(f"P4 a operator met {type(error).__name__}: {error}")
        finally:
            connections.close_all()

    def _has_operation(self, index: int, chance: random.Random) -> bool:
        """Say whether there is a operation of this number by now; whoever comes first thinks of it."""
        with self._lock:
            if index < len(self.operations):
                return True
            if index >= MAX_OPERATIONS:
                return False
            operation = draw_operation(f"{self.seed}/{index}", chance, self.tenants, self.codes, self.operations)
            if operation is None:
                return False
            self.operations.append(operation)
            return True

    def _carry_out(self, index: int, chance: random.Random, *, may_cut: bool) -> None:
        """Try until there is an answer: a broken connection leaves it open whether the operation was posted."""
        operation = self.operations[index]
        ends_at = time.monotonic() + STOP_SECONDS
        while True:
            cutter = _cut_soon(chance) if may_cut and chance.random() < CUT_SHARE else None
            try:
                outcome: Outcome = "new" if operation.act() else "repeated"
            except (Error, psycopg.Error):
                outcome = "cut"
                _hang_up()
            except (RefusedError, IdempotencyConflictError) as error:
                outcome = "refused"
                if isinstance(error, IdempotencyConflictError):
                    self.problems.append(f"I9 {operation}, repeated as it was, met: {error}")
            except LedgerError as error:
                outcome = "refused"
                self.problems.append(f"I10 {operation} met {type(error).__name__}: {error}")
            finally:
                if cutter is not None:
                    cutter.cancel()
                    cutter.join()
            with self._lock:
                self.outcomes.setdefault(index, []).append(outcome)
            if outcome != "cut":
                return
            if time.monotonic() > ends_at:
                raise TimeoutError(f"{operation} had no answer within {STOP_SECONDS:g} s")
            time.sleep(RETRY_PAUSE_SECONDS)


def _cut_soon(chance: random.Random) -> threading.Timer | None:
    """Shut this thread's connection to Postgres down from outside, in the middle of whatever it does then."""
    try:
        connection.ensure_connection()
        descriptor = os.dup(cast("psycopg.Connection[object]", connection.connection).pgconn.socket)
    except (Error, psycopg.Error, OSError):
        return None
    wire = socket.socket(fileno=descriptor)

    def cut() -> None:
        with suppress(OSError):
            wire.shutdown(socket.SHUT_RDWR)

    class Cutter(threading.Timer):
        def join(self, timeout: float | None = None) -> None:
            super().join(timeout)
            wire.close()

    cutter = Cutter(chance.uniform(0.0, CUT_AFTER_SECONDS), cut)
    cutter.start()
    return cutter


def _hang_up() -> None:
    with suppress(Error, psycopg.Error):
        connection.close()
