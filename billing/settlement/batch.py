"""Settlement: turns waiting usage events into usage records and debits, exactly once, and never refuses.

One database transaction settles batches of some shards: organizations are locked in id order, records inserted where
their request id is new, and what was inserted is debited. So a batch that is settled again, by a doubled worker or
after a crash before Redis was told, changes nothing. Postgres' unique key is the only thing that de-duplicates. A
transaction costs two dozen statements whatever is in it, so shards with little in them share one.

An event that cannot be settled goes to quarantine and counts as settled, so that it holds up nobody: entries that
cannot be read are found one by one; what the database or the ledger refuses is halved until the event at fault stands
alone. Faults of the database itself (connection lost, deadlock, a missing table) are no event's fault: they are raised,
and all of it is settled by whoever comes next.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import TypeVar

from django.db import DataError, IntegrityError, transaction

from billing.budgets.spent import add_to_spender_days, read_posted_spender_days
from billing.bulk_rows import fetch_all
from billing.credit.lots import read_spendable_credit
from billing.ledger.accounts import AccountName
from billing.ledger.book import Book, Header, LedgerError, system_account
from billing.models import LedgerAccount, LedgerTransaction
from billing.pricing.cost import PricingError
from billing.settlement import rows
from billing.settlement.attributed_days import add_to_attributed_days
from billing.settlement.corrections import Correction, find_corrections, post_corrections, postings_needed
from billing.settlement.events import (
    AcceptedEvent,
    RejectedEntry,
    choose_terminal_states,
    is_orphan,
    read_entries,
)
from billing.settlement.quarantine import quarantine_entries
from billing.shards import shard_of
from billing.usage.budgets import WHOLE_ORGANIZATION, read_posted_days
from billing.usage_stream import PostedDay, SettledBatch, SpendableCredit, StreamEntry

SETTLEMENT_LOCK = 0x5E77  # With the shard: the advisory lock of the worker that settles it.
SETTLEMENT_ACTOR = "settlement"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# A truth that has no price is one of them: a re-rating's version need not price all that was used.
EVENT_FAULTS = (DataError, IntegrityError, LedgerError, PricingError)

T = TypeVar("T")
EventsByShard = Mapping[int, Sequence[AcceptedEvent]]


class EntryRefusedError(ValueError):
    """The entry itself is at fault, and would be again; the text says what is wrong with it."""


def settle_batch(shard: int, entries: Sequence[StreamEntry]) -> SettledBatch | None:
    """Settle these entries of a shard, commit, and return what Redis may now be told.

    None when another worker is settling the shard. Raises DatabaseError: see settle_batches().
    """
    return settle_batches({shard: entries}).get(shard)


def settle_batches(waiting: Mapping[int, Sequence[StreamEntry]]) -> dict[int, SettledBatch]:
    """Settle entries by shard, commit, and return by shard what Redis may now be told.

    Shards that another worker is settling are left out. Raises DatabaseError when the database cannot do it now; parts
    that were committed before that are settled again without effect.
    """
    known = _existing_organizations({entry.organization_id for entries in waiting.values() for entry in entries})
    read = {shard: read_entries(shard, entries, organization_ids=known) for shard, entries in waiting.items()}
    parts = _settle_halving({shard: accepted for shard, (accepted, _) in read.items() if accepted}, known)
    parts += [_quarantine(shard, rejected, known) for shard, (_, rejected) in read.items() if rejected]
    by_shard: dict[int, list[SettledBatch]] = {shard: [] for shard in waiting}
    for part in parts:
        by_shard[part.shard].append(part)
    return {shard: _merge(shard, settled) for shard, settled in by_shard.items() if settled or not waiting[shard]}


def settle_entry(shard: int, entry: StreamEntry) -> SettledBatch | None:
    """Settle one entry or say what is wrong with it, instead of putting it into quarantine.

    None when another worker is settling the shard. Raises EntryRefusedError; then nothing was written.
    """
    known = _existing_organizations({entry.organization_id})
    accepted, rejected = read_entries(shard, [entry], organization_ids=known)
    if rejected:
        raise EntryRefusedError(rejected[0].reason)
    try:
        settled = _settle_together({shard: accepted})
    except EVENT_FAULTS as error:
        raise EntryRefusedError(f"{type(error).__name__}: {error}") from error
    return settled[0] if settled else None


def _settle_halving(accepted: EventsByShard, known: Collection[int]) -> list[SettledBatch]:
    """Settle all of it in one transaction, or else in halves: by shards first, then by events."""
    if not accepted:
        return []
    shards = list(accepted)
    items = accepted[shards[0]]
    try:
        return _settle_together(accepted)
    except EVENT_FAULTS as error:
        if len(shards) == 1 and len(items) == 1:
            return [_quarantine(shards[0], [RejectedEntry(items[0].entry, f"{type(error).__name__}: {error}")], known)]
    middle = len(shards) // 2
    halves: list[EventsByShard] = [
        {shard: accepted[shard] for shard in part} for part in (shards[:middle], shards[middle:])
    ]
    if len(shards) == 1:
        middle = len(items) // 2
        halves = [{shards[0]: items[:middle]}, {shards[0]: items[middle:]}]
    return [part for half in halves for part in _settle_halving(half, known)]


def _settle_together(by_shard: EventsByShard) -> list[SettledBatch]:
    """Settle what no other worker is settling, in one transaction. Returns a batch for each shard of it."""
    with transaction.atomic():
        mine = {shard: by_shard[shard] for shard in _lock_shards(by_shard)}
        if not mine:
            return []
        accepted = [item for items in mine.values() for item in items]
        billed, failed = choose_terminal_states(accepted)
        organization_ids = sorted({item.event.organization_id for item in accepted})
        corrections = find_corrections([*billed, *failed])
        book = Book.open(
            organization_ids,
            system=_system_accounts(mine, billed, corrections),
            postings=len(organization_ids) + len(mine) + postings_needed(corrections),
        )
        if corrections:  # Read again under the locks of the book: refunds and re-ratings take them too.
            corrections = find_corrections([*billed, *failed])
        transaction_ids = {organization_id: book.take_transaction_id() for organization_id in organization_ids}
        inserted = _insert_records(billed, failed, transaction_ids, settled_at=book.now)
        _debit(book, inserted, transaction_ids)
        _post_orphan_losses(book, inserted)
        post_corrections(book, corrections)
        book.write()
        rows.add_to_hours(inserted)
        add_to_attributed_days(inserted)
        rows.add_to_budget_days(inserted)
        add_to_spender_days((item.event, item.event.cost_nanos) for item in inserted)
        new = _by_shard(inserted, _payer_of)
        balances = _by_shard(_read_credit(organization_ids), attrgetter("organization_id"))
        posted_days = _by_shard(_read_days(billed), attrgetter("organization_id"))
        return [
            SettledBatch(
                shard=shard,
                stream_ids=[item.entry.stream_id for item in items],
                balances=balances[shard],
                posted_days=posted_days[shard],
                inserted=len(new[shard]),
            )
            for shard, items in mine.items()
        ]


def _payer_of(item: AcceptedEvent) -> int:
    return item.event.organization_id


def _by_shard(things: Iterable[T], organization_of: Callable[[T], int]) -> dict[int, list[T]]:
    """Return what belongs to organizations by their shards; a shard of which there is nothing has an empty list."""
    shards: dict[int, list[T]] = defaultdict(list)
    for thing in things:
        shards[shard_of(organization_of(thing))].append(thing)
    return shards


def _insert_records(
    billed: list[AcceptedEvent], failed: list[AcceptedEvent], transaction_ids: dict[int, int], *, settled_at: datetime
) -> list[AcceptedEvent]:
    """Insert records, failed requests and details; return the billed events that are new.

    A request keeps exactly one terminal state: a record replaces a failed request, unless it is only an orphan's.
    """
    seen_failed = rows.find_failed([item.event.request_id for item in billed])
    billed = [item for item in billed if not (is_orphan(item) and item.event.request_id in seen_failed)]
    inserted = rows.insert_usage(billed, transaction_ids=transaction_ids, settled_at=settled_at)
    if seen_failed:
        rows.delete_failed(seen_failed.intersection(item.event.request_id for item in inserted))
    new_failed = rows.insert_failed(failed, settled_at=settled_at)
    rows.insert_details([*inserted, *new_failed])
    return inserted


def _debit(book: Book, inserted: Iterable[AcceptedEvent], transaction_ids: dict[int, int]) -> None:
    """Compose one transaction for each organization that has new records with a cost."""
    by_organization: dict[int, list[AcceptedEvent]] = defaultdict(list)
    for item in inserted:
        if item.event.cost_nanos:
            by_organization[item.event.organization_id].append(item)
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
        posting.add(system_account(LedgerAccount.Kind.REVENUE, shard_of(organization_id)), total_nanos)


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


def _post_orphan_losses(book: Book, inserted: Iterable[AcceptedEvent]) -> None:
    """Post what upstreams will charge for orphans that nobody pays for, as our own loss: one transaction by shard."""
    for shard, lost in _by_shard(filter(_is_loss, inserted), _payer_of).items():
        _post_orphan_loss(book, shard, lost)


def _post_orphan_loss(book: Book, shard: int, lost: Sequence[AcceptedEvent]) -> None:
    total_nanos = sum(item.event.upstream_cost_nanos for item in lost)
    header = Header(
        LedgerTransaction.Kind.ORPHAN_LOSS,
        f"orphan-loss:{lost[0].event.request_id}",
        _digest(lost),
        None,
        SETTLEMENT_ACTOR,
        f"Estimated upstream cost of {len(lost)} orphans without a checkpoint",
    )
    posting = book.start(header)
    posting.add(system_account(LedgerAccount.Kind.ORPHAN_LOSS, shard), -total_nanos)
    posting.add(system_account(LedgerAccount.Kind.UPSTREAM_COST, shard), total_nanos)


def _is_loss(item: AcceptedEvent) -> bool:
    return is_orphan(item) and not item.event.cost_nanos and item.event.upstream_cost_nanos > 0


def _system_accounts(
    shards: Iterable[int], billed: Iterable[AcceptedEvent], corrections: Sequence[Correction]
) -> list[AccountName]:
    of_losses = {shard_of(item.event.organization_id) for item in billed if _is_loss(item)}
    of_losses |= {shard_of(each.item.event.organization_id) for each in corrections if each.orphan.is_loss}
    kinds = (LedgerAccount.Kind.ORPHAN_LOSS, LedgerAccount.Kind.UPSTREAM_COST)
    names = [system_account(LedgerAccount.Kind.REVENUE, shard) for shard in shards]
    return names + [system_account(kind, shard) for shard in sorted(of_losses) for kind in kinds]


def _read_credit(organization_ids: Sequence[int]) -> list[SpendableCredit]:
    balances = read_spendable_credit(organization_ids)
    return [balances[organization_id] for organization_id in organization_ids]


def _read_days(billed: Sequence[AcceptedEvent]) -> list[PostedDay]:
    days = {(item.event.organization_id, item.event.key_id, item.event.admitted_day) for item in billed}
    days |= {(organization_id, WHOLE_ORGANIZATION, day) for organization_id, _, day in days}
    return [*read_posted_days(days), *read_posted_spender_days([item.event for item in billed])]


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
    """Return one batch of several. Later parts were read later, so their balances win."""
    if len(parts) == 1:
        return parts[0]
    balances = {credit.organization_id: credit for part in parts for credit in part.balances}
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
    found = fetch_all("SELECT id FROM accounts_organization WHERE id = ANY(%s::bigint[])", [sorted(organization_ids)])
    return {row[0] for row in found}


def _lock_shards(shards: Iterable[int]) -> list[int]:
    """Lock those of these shards that nobody else has, and return them. Waits for nobody."""
    found = fetch_all(
        "SELECT shard, pg_try_advisory_xact_lock(%s, shard) FROM unnest(%s::integer[]) AS given(shard)",
        [SETTLEMENT_LOCK, sorted(shards)],
    )
    return [shard for shard, is_locked in found if is_locked]


def _digest(items: Iterable[AcceptedEvent]) -> bytes:
    return hashlib.sha256(
        ",".join(f"{item.event.request_id}={item.event.cost_nanos}" for item in items).encode()
    ).digest()


def _moment(milliseconds: int) -> datetime:
    return EPOCH + timedelta(milliseconds=milliseconds)
