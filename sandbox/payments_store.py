"""What the sandbox payment provider remembers: checkouts, and events on their way to the seller. In SQLite, on disk.

A checkout holds all that became of it: payment, charge, refunds, disputes. Amounts are whole cents. Times are whole
seconds of the provider's own clock. Every change of a checkout and the event that tells of it are one commit.
"""

import json
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BUSY_SECONDS = 10.0
Checkout = dict[str, Any]
SCHEMA = """
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    CREATE TABLE IF NOT EXISTS checkout (
        id TEXT PRIMARY KEY, mode TEXT, reference TEXT, created INTEGER, paid_at INTEGER, charge TEXT, body TEXT,
        UNIQUE (mode, reference));
    CREATE TABLE IF NOT EXISTS answered (key TEXT PRIMARY KEY, input TEXT, answer TEXT);
    CREATE TABLE IF NOT EXISTS event (
        id TEXT PRIMARY KEY, number INTEGER, created INTEGER, body TEXT, attempts INTEGER DEFAULT 0,
        next_at REAL, delivered_at REAL, last_status TEXT DEFAULT '');
"""


class Store:
    """One connection under a lock: a sandbox has few customers."""

    def __init__(self, path: Path | None) -> None:
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(
            str(path or ":memory:"), timeout=BUSY_SECONDS, check_same_thread=False, isolation_level=None
        )
        self._connection.executescript(SCHEMA)
        self._lock = threading.RLock()

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    @contextmanager
    def commit(self) -> Iterator[None]:
        """Do all inside or nothing, and alone."""
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def find(self, column: str, value: str) -> Checkout | None:
        """Return the checkout with this `id`, `charge` or `reference` (of a payment), or None."""
        condition = {"id": "id = ?", "charge": "charge = ?", "reference": "mode = 'payment' AND reference = ?"}[column]
        with self._lock:
            row = self._connection.execute(f"SELECT body FROM checkout WHERE {condition}", [value]).fetchone()  # noqa: S608
        return json.loads(row[0]) if row else None

    def create(self, checkout: Checkout) -> Checkout:
        """Keep a new checkout; the earlier one where its mode and reference have one."""
        with self._lock:
            self._connection.execute(
                "INSERT INTO checkout VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", _row(checkout)
            )
            [body] = self._connection.execute(
                "SELECT body FROM checkout WHERE mode = ? AND reference = ?", [checkout["mode"], checkout["reference"]]
            ).fetchone()
        known: Checkout = json.loads(body)
        return known

    def save(self, checkout: Checkout) -> None:
        with self._lock:
            self._connection.execute("INSERT OR REPLACE INTO checkout VALUES (?, ?, ?, ?, ?, ?, ?)", _row(checkout))

    def list_paid(self, start: int, end: int) -> list[Checkout]:
        """Return the checkouts that were paid from `start` on and before `end`, the earliest first."""
        with self._lock:
            rows = self._connection.execute(
                "SELECT body FROM checkout WHERE paid_at >= ? AND paid_at < ? ORDER BY paid_at, id", [start, end]
            ).fetchall()
        return [json.loads(row[0]) for row in rows]

    def list_newest(self, limit: int) -> list[Checkout]:
        with self._lock:
            rows = self._connection.execute(
                "SELECT body FROM checkout ORDER BY created DESC, rowid DESC LIMIT ?", [limit]
            ).fetchall()
        return [json.loads(row[0]) for row in rows]

    def answered(self, key: str) -> tuple[str, str] | None:
        """Return input and answer of an idempotency key that was used before."""
        with self._lock:
            row = self._connection.execute("SELECT input, answer FROM answered WHERE key = ?", [key]).fetchone()
        return (row[0], row[1]) if row else None

    def remember(self, key: str, given: str, answer: str) -> None:
        with self._lock:
            self._connection.execute("INSERT INTO answered VALUES (?, ?, ?)", [key, given, answer])

    def add_event(self, kind: str, checkout: Checkout, **more: Any) -> None:
        """Queue an event that tells of the checkout as it is now."""
        now = int(time.time())
        event_id = make_id("evt")
        body = {"id": event_id, "type": kind, "created": now, "checkout": checkout, **more}
        with self._lock:
            self._connection.execute(
                """INSERT INTO event (id, number, created, body, next_at)
                    VALUES (?, (SELECT coalesce(max(number), 0) + 1 FROM event), ?, ?, ?)""",
                [event_id, now, json.dumps(body), time.time()],
            )

    def due_events(self, limit: int) -> list[tuple[str, str, int]]:
        """Return (id, body, attempts) of the events that are to be sent by now, the oldest first."""
        with self._lock:
            rows = self._connection.execute(
                """SELECT id, body, attempts FROM event WHERE delivered_at IS NULL AND next_at <= ?
                    ORDER BY number LIMIT ?""",
                [time.time(), limit],
            ).fetchall()
        return [(row[0], row[1], row[2]) for row in rows]

    def note_delivery(self, event_id: str, *, status: str, next_at: float | None) -> None:
        """Keep how an attempt went. Without `next_at` there is no other."""
        with self._lock:
            self._connection.execute(
                """UPDATE event SET attempts = attempts + 1, last_status = ?, next_at = coalesce(?, next_at),
                    delivered_at = CASE WHEN ? IS NULL THEN ? ELSE NULL END WHERE id = ?""",
                [status, next_at, next_at, time.time(), event_id],
            )

    def list_events(self, limit: int) -> list[dict[str, Any]]:
        with self._lock:
            rows = self._connection.execute(
                "SELECT body, attempts, last_status, delivered_at FROM event ORDER BY number DESC LIMIT ?", [limit]
            ).fetchall()
        return [
            json.loads(row[0]) | {"attempts": row[1], "last_status": row[2], "delivered": row[3] is not None}
            for row in rows
        ]


def make_id(prefix: str) -> str:
    return f"{prefix}_sandbox{secrets.token_hex(10)}"


def _row(checkout: Checkout) -> list[Any]:
    names = ("id", "mode", "reference", "created", "paid_at", "charge")
    return [*(checkout.get(name) for name in names), json.dumps(checkout)]
