"""An orphan is a provisional judgement; the truth replaces it.

When the true event of a request arrives after its orphan was settled, at whatever time, the orphan's record stays as it
is, a correction beside it says what was true, and the difference is posted by a transaction of its own, once: the
unique request id of the correction sees to that. It is composed in the same database transaction, and under the same
locks, as the settlement of the batch in which the event came.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from billing.budgets.spent import add_to_spender_days
from billing.catalog.price_versions import price_table
from billing.corrections.refunded import refunded_by_request
from billing.corrections.rerating import current_costs, give_back, lots_drawn_by_transactions, rerated_by
from billing.ledger.book import Book, Header, Posting, system_account
from billing.models import LedgerAccount, LedgerTransaction, PriceVersion
from billing.pricing.cost import Usage, cost_nanos
from billing.settlement import rows
from billing.settlement.attributed_days import correct_attributed_days
from billing.settlement.events import AcceptedEvent, is_orphan
from billing.shards import shard_of

CORRECTION_ACTOR = "settlement"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Correction:
    """A true event beside the orphan that it replaces. Amounts in nano-dollars."""

    item: AcceptedEvent
    orphan: rows.OrphanRow
    before_nanos: int
    after_nanos: int

    @property
    def difference_nanos(self) -> int:
        return self.after_nanos - self.before_nanos

    @property
    def upstream_cost_nanos(self) -> int:
        return self.item.event.upstream_cost_nanos


def find_corrections(candidates: Sequence[AcceptedEvent]) -> list[Correction]:
    """Return those of the events that say the truth about a request which was settled as an orphan only.

    Each request is among the events once, as it ends. Raises PricingError for a truth that has no price.
    """
    truths = {item.event.request_id: item for item in candidates if not is_orphan(item)}
    orphans = rows.find_uncorrected_orphans(list(truths)) if truths else []
    if not orphans:
        return []
    ids = [orphan.request_id for orphan in orphans]
    costs, refunded, versions = current_costs(ids), refunded_by_request(ids), rerated_by(ids)
    corrections = []
    for orphan in orphans:
        item = truths[orphan.request_id.hex]
        before = costs.get(orphan.request_id, orphan.cost_nanos)
        true = item.event.cost_nanos
        if version := versions.get(orphan.request_id):
            true = _rate(item, version)
        # What was refunded is not given back a second time.
        after = max(true, min(before, refunded.get(orphan.request_id, 0)))
        corrections.append(Correction(item, orphan, before, after))
    return corrections


def post_corrections(book: Book, corrections: Sequence[Correction]) -> None:
    """Compose the differences, and write the corrections and what they change in the roll-ups."""
    transaction_ids: dict[str, int] = {}
    for correction in corrections:
        if correction.difference_nanos:
            transaction_ids[correction.item.event.request_id] = _post(book, correction)
        if correction.orphan.is_loss:
            _take_back_loss(book, correction)
    rows.insert_corrections(corrections, transaction_ids=transaction_ids, settled_at=book.now)
    rows.correct_hours(corrections)
    correct_attributed_days(corrections)
    rows.correct_budget_days(corrections)
    # What is given back is not given back to a budget.
    add_to_spender_days((correction.item.event, correction.difference_nanos) for correction in corrections)


def postings_needed(corrections: Sequence[Correction]) -> int:
    return 2 * len(corrections)


def _post(book: Book, correction: Correction) -> int:
    event, difference = correction.item.event, correction.difference_nanos
    shard = shard_of(event.organization_id)
    posting = book.start(_header(correction, "correction", event.organization_id, "The truth about an orphan"))
    posting.add(system_account(LedgerAccount.Kind.REVENUE, shard), difference)
    if difference > 0:
        # What is settled now was admitted by now, as with every charge: a clock ahead keeps no lot from paying.
        posting.charge(difference, as_of=min(EPOCH + timedelta(milliseconds=event.admitted_at_ms), book.now))
    else:
        drawn = lots_drawn_by_transactions([correction.orphan.ledger_transaction_id])
        _find_lots(posting, drawn)
        give_back(posting, -difference, drawn)
    return posting.transaction_id


def _take_back_loss(book: Book, correction: Correction) -> None:
    """Undo the loss that was booked for an orphan of which nothing was known: its cost is somebody's now."""
    loss, shard = correction.orphan.upstream_cost_nanos, shard_of(correction.item.event.organization_id)
    posting = book.start(_header(correction, "orphan-loss-correction", None, "The truth about an orphan"))
    posting.add(system_account(LedgerAccount.Kind.ORPHAN_LOSS, shard), loss)
    posting.add(system_account(LedgerAccount.Kind.UPSTREAM_COST, shard), -loss)


def _header(correction: Correction, prefix: str, organization_id: int | None, reason: str) -> Header:
    kind = LedgerTransaction.Kind.CORRECTION if organization_id else LedgerTransaction.Kind.ORPHAN_LOSS
    request_id = correction.item.event.request_id
    digest = hashlib.sha256(f"{prefix}:{request_id}".encode()).digest()
    return Header(kind, f"{prefix}:{request_id}", digest, organization_id, CORRECTION_ACTOR, reason)


def _find_lots(posting: Posting, drawn: dict[int, int]) -> None:
    organization_id = posting.header.organization_id
    if organization_id is not None:
        for lot_id in drawn:
            posting.book.find_lot(organization_id, lot_id)


def _rate(item: AcceptedEvent, version_id: int) -> int:
    """Return what the true usage costs by the price that a re-rating has put in the place of the first.

    Raises PricingError where that has no price for something that was used.
    """
    event = item.event
    if not item.is_billed:
        return 0
    version = PriceVersion.objects.prefetch_related("components").get(pk=version_id)
    return cost_nanos(Usage.of(event), price_table(version), event.factor_ppm)
