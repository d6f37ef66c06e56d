"""The book of breaks: notes what comparisons found, and how each was settled. Nobody else writes the rows."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, datetime

from django.db import connection, transaction
from django.utils import timezone

from accounts.models import User
from billing.models import LedgerTransaction, PaymentBreak, ReconciliationBreak, ReconciliationSource
from billing.money import NANOS_PER_USD
from billing.payments.breaks import resolve_break

BREAKS_LOCK = 7_303_023  # Two runs at once would each take back what the other has just found.
NANOS_PER_CENT = NANOS_PER_USD // 100
PAYMENT_BREAK_PREFIX = "payment_break:"
MAX_SUBJECT_CHARS = 200
MAX_DETAIL_CHARS = 1000
MAX_BREAKS_PER_RUN = 1_000  # Past these something is wrong with the whole; the run's note says how many there were.

State = ReconciliationBreak.State


class ResolutionError(ValueError):
    """The break stays as it is; the text says why."""


@dataclass(frozen=True, slots=True)
class Difference:
    """What a comparison found. `amount_nanos` is what we have less what the other side says."""

    subject: str
    detail: str
    amount_nanos: int
    organization_id: int | None = None


def note_differences(source: str, differences: Collection[Difference], *, day: date | None) -> int:
    """Open a break for each difference, and close those of this source and day that are no longer found.

    What a person has resolved stays resolved as long as it is found again each time, with the same amount. Returns how
    many breaks are open now.
    """
    now = timezone.now()
    found = {each.subject[:MAX_SUBJECT_CHARS]: each for each in list(differences)[:MAX_BREAKS_PER_RUN]}
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [BREAKS_LOCK])
        rows = ReconciliationBreak.objects.filter(source=source, day=day, state=State.OPEN).select_for_update()
        known = {row.subject: row for row in rows}
        for subject, row in known.items():
            if subject in found:
                _write(row, found[subject])
                row.last_seen_at = now
            else:
                row.state = State.VANISHED
                row.gone_at = now
        fields = ["detail", "amount_nanos", "amount_cents", "organization_id", "last_seen_at", "state", "gone_at"]
        ReconciliationBreak.objects.bulk_update(known.values(), fields)
        settled = _settled(source, day, found, now)
        new = [
            _write(ReconciliationBreak(source=source, subject=subject, day=day, found_at=now, last_seen_at=now), each)
            for subject, each in found.items()
            if subject not in known and settled.get(subject) != each.amount_nanos
        ]
        ReconciliationBreak.objects.bulk_create(new)
    return sum(subject in found for subject in known) + len(new)


def cents_of(nanos: int) -> int:
    """Return whole cents, rounded away from zero, so that no difference looks like none."""
    cents = -(-abs(nanos) // NANOS_PER_CENT)
    return -cents if nanos < 0 else cents


def take_over(row: ReconciliationBreak, *, owner: User | None) -> None:
    """Say who sees to it. Raises ResolutionError when it is no longer open."""
    if not ReconciliationBreak.objects.filter(pk=row.pk, state=State.OPEN).update(owner=owner):
        raise ResolutionError("The break is no longer open.")


def resolve(row: ReconciliationBreak, *, actor: str, note: str, transaction_id: int | None = None) -> None:
    """Settle a break by a note, or by the ledger transaction that put it right. Raises ResolutionError."""
    if not actor.strip() or not note.strip():
        raise ResolutionError("A resolution names a person and says why.")
    if transaction_id is not None:
        _check_posting(row, transaction_id)
    kind = ReconciliationBreak.Resolution.NOTE if transaction_id is None else ReconciliationBreak.Resolution.POSTING
    with transaction.atomic():
        changed = ReconciliationBreak.objects.filter(pk=row.pk, state=State.OPEN).update(
            state=State.RESOLVED,
            resolution=kind,
            note=note.strip(),
            ledger_transaction_id=transaction_id,
            resolved_by=actor,
            resolved_at=timezone.now(),
        )
        if not changed:
            raise ResolutionError("The break is no longer open.")
        shown = _payment_break_of(row)
        if shown is not None:
            resolve_break(shown, resolution=note, actor=actor)


def resolve_payment_break(row: PaymentBreak, *, resolution: str, actor: str) -> bool:
    """Settle a break of payments by a note, also where the list of all breaks shows it. False when it was before."""
    with transaction.atomic():
        if not resolve_break(row, resolution=resolution, actor=actor):
            return False
        shown = ReconciliationBreak.objects.filter(
            source=ReconciliationSource.PAYMENTS, subject=f"{PAYMENT_BREAK_PREFIX}{row.pk}", state=State.OPEN
        )
        shown.update(
            state=State.RESOLVED,
            resolution=ReconciliationBreak.Resolution.NOTE,
            note=resolution.strip(),
            resolved_by=actor,
            resolved_at=timezone.now(),
        )
    return True


def _payment_break_of(row: ReconciliationBreak) -> PaymentBreak | None:
    """Return the break of payments that this row shows in the list of all breaks."""
    if row.source != ReconciliationSource.PAYMENTS or not row.subject.startswith(PAYMENT_BREAK_PREFIX):
        return None
    return PaymentBreak.objects.filter(pk=int(row.subject.removeprefix(PAYMENT_BREAK_PREFIX))).first()


def _check_posting(row: ReconciliationBreak, transaction_id: int) -> None:
    posting = LedgerTransaction.objects.filter(pk=transaction_id).first()
    if posting is None:
        raise ResolutionError(f"There is no ledger transaction {transaction_id}.")
    if row.organization_id is not None and posting.organization_id not in (None, row.organization_id):
        raise ResolutionError(f"Ledger transaction {transaction_id} is of another organization.")


def _write(row: ReconciliationBreak, difference: Difference) -> ReconciliationBreak:
    row.detail = difference.detail[:MAX_DETAIL_CHARS]
    row.amount_nanos = difference.amount_nanos
    row.amount_cents = cents_of(difference.amount_nanos)
    row.organization_id = difference.organization_id
    return row


def _settled(source: str, day: date | None, found: Collection[str], now: datetime) -> dict[str, int]:
    """Return the amounts of what a person has resolved and is still found. What is no longer found is marked so."""
    resolved = ReconciliationBreak.objects.filter(source=source, day=day, state=State.RESOLVED, gone_at=None)
    resolved.exclude(subject__in=found).update(gone_at=now)
    return dict(resolved.filter(subject__in=found).order_by("id").values_list("subject", "amount_nanos"))
