"""Settlement: turns waiting usage events into usage records and debits, exactly once, and never refuses.

One database transaction settles a batch of a shard: organizations are locked in id order, records inserted where their
request id is new, and what was inserted is debited. So a batch that is settled again, by a doubled worker or after a
crash before Redis was told, changes nothing. Postgres' unique key is the only thing that de-duplicates.

An event that cannot be settled goes to quarantine and counts as settled, so that it holds up nobody: entries that
cannot be read are found one by one; a batch that the database refuses is halved until the event at fault stands alone.
Faults of the database itself (connection lost, deadlock, a missing table) are no event's fault: they are raised, and
the whole batch is settled by whoever comes next.
"""

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime, timedelta

from django.db import DataError, IntegrityError, transaction

from billing import settlement_rows
from billing.budgets import WHOLE_ORGANIZATION, read_posted_days
from billing.bulk_rows import fetch_all
from billing.credit_lots import credit_figures
from billing.ledger import Book, Header, LedgerError, house_account
from billing.ledger_rows import AccountName
from billing.models import LedgerAccount, LedgerTransaction
from billing.quarantine import quarantine_entries
from billing.settlement_corrections import Correction, find_corrections, post_corrections, postings_needed
from billing.settlement_events import (
    AcceptedEvent,
    RejectedEntry,
    choose_terminal_states,
    is_orphan,
    read_entries,
)
from billing.stream import CreditFigure, PostedDay, SettledBatch, StreamEntry

SETTLEMENT_LOCK = 0x5E77  # With the shard: the advisory lock of the worker that settles it.
SETTLEMENT_ACTOR = "settlement"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EVENT_FAULTS = (DataError, IntegrityError, LedgerError)


class EntryRefusedError(ValueError):
    """The entry itself is at fault, and would be again; the text says what is wrong with it."""


def settle_batch(shard: int, entries: Sequence[StreamEntry]) -> SettledBatch | None:
    """Settle these entries of a shard, commit, and return what Redis may now be told.

    None when another worker is settling the shard. Raises DatabaseError when the database cannot do it now; parts that
    were committed before that are settled again without effect.
    """
    known = _existing_organizations({entry.organization_id for entry in entries})
    accepted, rejected = read_entries(shard, entries, organization_ids=known)
    parts = _settle_halving(shard, accepted, known)
    if rejected:
        parts.append(_quarantine(shard, rejected, known))
    settled = [part for part in parts if part is not None]
    if parts and not settled:
        return None
    return _merge(shard, settled)


def settle_entry(shard: int, entry: StreamEntry) -> SettledBatch | None:
    """Settle one entry or say what is wrong with it, instead of putting it into quarantine.

    None when another worker is settling the shard. Raises EntryRefusedError; then nothing was written.
    """
    known = _existing_organizations({entry.organization_id})
    accepted, rejected = read_entries(shard, [entry], organization_ids=known)
    if rejected:
        raise EntryRefusedError(rejected[0].reason)
    try:
        return _settle_together(shard, accepted)
    except EVENT_FAULTS as error:
        raise EntryRefusedError(f"{type(error).__name__}: {error}") from error


def _settle_halving(shard: int, accepted: Sequence[AcceptedEvent], known: Collection[int]) -> list[SettledBatch | None]:
    if not accepted:
        return []
    try:
        return [_settle_together(shard, accepted)]
    except EVENT_FAULTS as error:
        if len(accepted) == 1:
            return [_quarantine(shard, [RejectedEntry(accepted[0].entry, f"{type(error).__name__}: {error}")], known)]
    middle = len(accepted) // 2
    return _settle_halving(shard, accepted[:middle], known) + _settle_halving(shard, accepted[middle:], known)


def _settle_together(shard: int, accepted: Sequence[AcceptedEvent]) -> SettledBatch | None:
    billed, failed = choose_terminal_states(accepted)
    organization_ids = sorted({item.event.organization_id for item in accepted})
    with transaction.atomic():
        if not _lock_shard(shard):
            return None
        corrections = find_corrections(accepted)
        book = Book.open(
            organization_ids,
            house=_house_accounts(shard, billed, corrections),
            postings=len(organization_ids) + 1 + postings_needed(corrections),
        )
        if corrections:  # Read again under the locks of the book: refunds and re-ratings take them too.
            corrections = find_corrections(accepted)
        transaction_ids = {organization_id: book.take_transaction_id() for organization_id in organization_ids}
        inserted = _insert_records(billed, failed, transaction_ids, settled_at=book.now)
        _debit(book, shard, inserted, transaction_ids)
        _post_orphan_loss(book, shard, inserted)
        post_corrections(book, shard, corrections)
        book.write()
        settlement_rows.add_to_hours(inserted)
        settlement_rows.add_to_budget_days(inserted)
        return SettledBatch(
            shard=shard,
            stream_ids=[item.entry.stream_id for item in accepted],
            balances=_read_credit(organization_ids),
            posted_days=_read_days(billed),
            inserted=len(inserted),
        )


def _insert_records(
    billed: list[AcceptedEvent], failed: list[AcceptedEvent], transaction_ids: dict[int, int], *, settled_at: datetime
) -> list[AcceptedEvent]:
    """Insert records, failed requests and details; return the billed events that are new.

    A request keeps exactly one terminal state: a record replaces a failed request, unless it is only an orphan's.
    """
    seen_failed = settlement_rows.find_failed([item.event.request_id for item in billed])
    billed = [item for item in billed if not (is_orphan(item) and item.event.request_id in seen_failed)]
    inserted = settlement_rows.insert_usage(billed, transaction_ids=transaction_ids, settled_at=settled_at)
    if seen_failed:
        settlement_rows.delete_failed(seen_failed.intersection(item.event.request_id for item in inserted))
    new_failed = settlement_rows.insert_failed(failed, settled_at=settled_at)
    settlement_rows.insert_details([*inserted, *new_failed])
    return inserted


def _debit(book: Book, shard: int, inserted: Iterable[AcceptedEvent], transaction_ids: dict[int, int]) -> None:
    """Compose one transaction for each organization that has new records with a cost."""
    by_organization: dict[int, list[AcceptedEvent]] = defaultdict(list)
    for item in inserted:
        if item.event.cost_nanos:
            by_organization[item.event.organization_id].append(item)
    revenue = house_account(LedgerAccount.Kind.REVENUE, shard)
    for organization_id, items in sorted(by_organization.items()):
        total_nanos = sum(item.event.cost_nanos for item in items)
        header = Header(
            LedgerTransaction.Kind.USAGE,
            f"usage:{items[0].event.request_id}",
            _digest(items),
            organization_id,
            SETTLEMENT_ACTOR,
            f"{len(items)} requests" if len(items) > 1 else "1 request",
        )
        posting = book.start(header, transaction_id=transaction_ids[organization_id])
        for admitted_at, cost_nanos in _charges(book, organization_id, items):
            posting.charge(cost_nanos, as_of=admitted_at)
        posting.add(revenue, total_nanos)


def _charges(book: Book, organization_id: int, items: Sequence[AcceptedEvent]) -> list[tuple[datetime, int]]:
    """Return the sums to charge, split where a lot expires between admissions: it pays for the earlier ones.

    What is settled now was admitted by now: a clock that ran ahead keeps no lot from paying that is valid still.
    """
    moments = [min(_moment(item.event.admitted_at_ms), book.now) for item in items]
    first, last = min(moments), max(moments)
    expiries = sorted(
        lot.expires_at
        for lot in book.lots.get(organization_id, ())
        if lot.expires_at and first < lot.expires_at <= last
    )
    if not expiries:
        return [(last, sum(item.event.cost_nanos for item in items))]
    sums: dict[int, int] = defaultdict(int)
    latest: dict[int, datetime] = {}
    for item, admitted_at in zip(items, moments, strict=True):
        period = sum(expiry <= admitted_at for expiry in expiries)
        sums[period] += item.event.cost_nanos
        latest[period] = max(admitted_at, latest.get(period, admitted_at))
    return [(latest[period], sums[period]) for period in sorted(sums)]


def _post_orphan_loss(book: Book, shard: int, inserted: Iterable[AcceptedEvent]) -> None:
    """Post what upstreams will charge for orphans that nobody pays for, as the house's own loss."""
    lost = [item for item in inserted if _is_loss(item)]
    total_nanos = sum(item.event.upstream_cost_nanos for item in lost)
    if not total_nanos:
        return
    header = Header(
        LedgerTransaction.Kind.ORPHAN_LOSS,
        f"orphan-loss:{lost[0].event.request_id}",
        _digest(lost),
        None,
        SETTLEMENT_ACTOR,
        f"Estimated upstream cost of {len(lost)} orphans without a checkpoint",
    )
    posting = book.start(header)
    posting.add(house_account(LedgerAccount.Kind.ORPHAN_LOSS, shard), -total_nanos)
    posting.add(house_account(LedgerAccount.Kind.UPSTREAM_COST, shard), total_nanos)


def _is_loss(item: AcceptedEvent) -> bool:
    return is_orphan(item) and not item.event.cost_nanos and item.event.upstream_cost_nanos > 0


def _house_accounts(
    shard: int, billed: Iterable[AcceptedEvent], corrections: Sequence[Correction]
) -> list[AccountName]:
    kinds = [LedgerAccount.Kind.REVENUE]
    if any(_is_loss(item) for item in billed) or any(correction.orphan.is_loss for correction in corrections):
        kinds += [LedgerAccount.Kind.ORPHAN_LOSS, LedgerAccount.Kind.UPSTREAM_COST]
    return [house_account(kind, shard) for kind in kinds]


def _read_credit(organization_ids: Sequence[int]) -> list[CreditFigure]:
    figures = credit_figures(organization_ids)
    return [figures[organization_id] for organization_id in organization_ids]


def _read_days(billed: Iterable[AcceptedEvent]) -> list[PostedDay]:
    days = {(item.event.organization_id, item.event.key_id, item.event.admitted_day) for item in billed}
    days |= {(organization_id, WHOLE_ORGANIZATION, day) for organization_id, _, day in days}
    return read_posted_days(days)


def _quarantine(shard: int, rejected: Sequence[RejectedEntry], known: Collection[int]) -> SettledBatch:
    added = quarantine_entries(shard, rejected, organization_ids=known)
    return SettledBatch(
        shard=shard,
        stream_ids=[item.entry.stream_id for item in rejected],
        balances=[],
        posted_days=[],
        quarantined=len(added),
    )


def _merge(shard: int, parts: Sequence[SettledBatch]) -> SettledBatch:
    """Return one batch of several. Later parts were read later, so their figures win."""
    if len(parts) == 1:
        return parts[0]
    balances = {figure.organization_id: figure for part in parts for figure in part.balances}
    days = {(day.scope, day.holder_id, day.admitted_day): day for part in parts for day in part.posted_days}
    return SettledBatch(
        shard=shard,
        stream_ids=[stream_id for part in parts for stream_id in part.stream_ids],
        balances=list(balances.values()),
        posted_days=list(days.values()),
        inserted=sum(part.inserted for part in parts),
        quarantined=sum(part.quarantined for part in parts),
    )


def _existing_organizations(organization_ids: Collection[int]) -> set[int]:
    rows = fetch_all("SELECT id FROM accounts_organization WHERE id = ANY(%s::bigint[])", [sorted(organization_ids)])
    return {row[0] for row in rows}


def _lock_shard(shard: int) -> bool:
    return bool(fetch_all("SELECT pg_try_advisory_xact_lock(%s, %s)", [SETTLEMENT_LOCK, shard])[0][0])


def _digest(items: Iterable[AcceptedEvent]) -> bytes:
    return hashlib.sha256(
        ",".join(f"{item.event.request_id}={item.event.cost_nanos}" for item in items).encode()
    ).digest()


def _moment(milliseconds: int) -> datetime:
    return EPOCH + timedelta(milliseconds=milliseconds)
