"""Prices a past window again, when its price was wrong, and posts the differences as adjusting ledger transactions.

Usage records and their debits stay as they are. What a request costs since is kept beside it, so that running the same
re-rating again, or one whose window overlaps, finds no difference and posts nothing.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID

from django.db.models import Sum
from django.utils import timezone

from accounts.models import Organization
from billing.catalog.price_versions import price_table
from billing.corrections.refunded import refunded_by_request
from billing.ledger.book import Posting, organization_account, post_transaction, system_account
from billing.ledger.burn_order import PROMOTIONAL
from billing.models import (
    Approval,
    CreditLot,
    CreditLotEntry,
    LanguageModel,
    LedgerAccount,
    LedgerTransaction,
    PriceVersion,
    ReratedRequest,
    Rerating,
    UsageCorrection,
    UsageRecord,
)
from billing.pricing.cost import MissingPriceError, PriceTable, Usage, cost_nanos
from billing.request_id import first_id_at
from billing.shards import shard_of
from billing.watching import watched

MAX_WINDOW = timedelta(days=92)
REQUESTS_PER_POSTING = 5_000  # One ledger transaction corrects so many at most: its rows are written under a lock.
MAX_LOTS = 100
REFUND_ORIGIN = "re-rating"

Kind = LedgerAccount.Kind


class ReratingError(ValueError):
    """The window cannot be priced so; the text says why. Nothing was posted."""


@dataclass(frozen=True, slots=True)
class ReratingPlan:
    """The requests of one language model in [begins, ends), by the time of their id, and the price that was right."""

    language_model: LanguageModel
    price_version: PriceVersion
    begins: datetime
    ends: datetime


@dataclass(slots=True)
class Difference:
    """What changes for one organization, in nano-dollars. `requests` counts those whose cost differs.

    `chunks` are as many as their requests are read in.
    """

    organization: Organization
    requests: int = 0
    before_nanos: int = 0
    after_nanos: int = 0
    chunks: int = field(default=0, compare=False)

    @property
    def difference_nanos(self) -> int:
        """Positive where the organization pays more, negative where it gets something back."""
        return self.after_nanos - self.before_nanos


@dataclass(frozen=True, slots=True)
class _Change:
    request_id: UUID
    before_nanos: int
    after_nanos: int


class _NothingToPostError(Exception):
    """Another run posted these differences meanwhile."""


class _CancelOutError(Exception):
    """What some requests cost more, others cost less: a transaction moves something, so it takes two of them."""


def plan_rerating(plan: ReratingPlan) -> list[Difference]:
    """Return the difference for each organization that has one, and change nothing. Raises ReratingError."""
    table = check_plan(plan)
    differences = []
    organizations = _organizations(plan)
    for organization in watched(organizations, len(organizations)):
        difference = Difference(organization)
        for records in _chunks(plan, organization):
            difference.chunks += 1
            for change in _changes(records, table):
                difference.requests += 1
                difference.before_nanos += change.before_nanos
                difference.after_nanos += change.after_nanos
        if difference.requests:
            differences.append(difference)
    return differences


def apply_rerating(
    plan: ReratingPlan,
    *,
    actor: str,
    reason: str,
    approval: Approval | None = None,
    differences: list[Difference] | None = None,
) -> list[Difference]:
    """Post the differences and return them: more is charged like usage, less goes back to where it came from.

    Each organization's requests are corrected by transactions of their own. If this stops in the middle, running it
    again posts what is missing. `differences` are those of a plan that was just made; `approval` is who decided it.
    Raises ReratingError before anything is posted.
    """
    if not actor.strip() or not reason.strip():
        raise ReratingError("A re-rating names a person and a reason.")
    if differences is None:
        differences = plan_rerating(plan)
    if not differences:
        return []
    rerating = Rerating.objects.create(
        language_model=plan.language_model,
        price_version=plan.price_version,
        begins=plan.begins,
        ends=plan.ends,
        actor=actor,
        reason=reason,
        approval=approval,
    )
    table = price_table(plan.price_version)
    parts = ((row.organization, records) for row in differences for records in _chunks(plan, row.organization))
    for organization, records in watched(parts, sum(difference.chunks for difference in differences)):
        _post(rerating, organization, records, table)
    return differences


def count_requests(plan: ReratingPlan, *, at_most: int) -> int:
    """Return how many requests would be priced again, and no more than `at_most`."""
    return UsageRecord.objects.filter(**_records(plan)).order_by()[:at_most].count()


def current_costs(request_ids: Sequence[UUID]) -> dict[UUID, int]:
    """Return what corrected and re-rated requests cost now, in nano-dollars. Those that are neither are missing."""
    rows = ReratedRequest.objects.filter(request_id__in=request_ids).order_by("request_id", "-id")
    latest = {row.request_id: row for row in rows.distinct("request_id")}
    costs = {request_id: row.cost_after_nanos for request_id, row in latest.items()}
    for correction in UsageCorrection.objects.filter(request_id__in=request_ids):
        rerated = latest.get(correction.request_id)
        # Ids of an organization's transactions rise with time. A correction without one changed nothing.
        if rerated is None or (correction.ledger_transaction_id or 0) > rerated.ledger_transaction_id:
            costs[correction.request_id] = correction.cost_after_nanos
    return costs


def rerated_by(request_ids: Sequence[UUID]) -> dict[UUID, int]:
    """Return the price version by which requests were re-rated last."""
    rows = ReratedRequest.objects.filter(request_id__in=request_ids).order_by("request_id", "-id")
    return dict(rows.distinct("request_id").values_list("request_id", "rerating__price_version_id"))


def check_plan(plan: ReratingPlan) -> PriceTable:
    """Return the table to price by. Raises ReratingError when the price or the window does not fit."""
    version = plan.price_version
    if version.approved_at is None:
        raise ReratingError(f"Price version {version.pk} {'is a draft' if version.is_draft else 'was discarded'}.")
    if version.upstream_id is not None or version.language_model_id != plan.language_model.pk:
        raise ReratingError(f"Price version {version.pk} is not a sale price of {plan.language_model.model_id}.")
    if not timedelta() < plan.ends - plan.begins <= MAX_WINDOW:
        raise ReratingError(f"A window lasts up to {MAX_WINDOW.days} days; this one is {plan.ends - plan.begins} long.")
    if plan.ends > timezone.now():
        raise ReratingError("The window has not ended yet.")
    return price_table(version)


def _records(plan: ReratingPlan) -> dict[str, object]:
    return {
        "language_model_id": plan.language_model.pk,
        "request_id__gte": first_id_at(plan.begins),
        "request_id__lt": first_id_at(plan.ends),
    }


def _organizations(plan: ReratingPlan) -> list[Organization]:
    ids = UsageRecord.objects.filter(**_records(plan)).order_by().values_list("organization_id", flat=True).distinct()
    return list(Organization.objects.filter(pk__in=list(ids)).order_by("pk"))


def _chunks(plan: ReratingPlan, organization: Organization) -> Iterator[list[UsageRecord]]:
    records = UsageRecord.objects.filter(**_records(plan), organization_id=organization.pk).order_by("request_id")
    chunk = list(records[:REQUESTS_PER_POSTING])
    while chunk:
        yield chunk
        chunk = list(records.filter(request_id__gt=chunk[-1].request_id)[:REQUESTS_PER_POSTING])


def _changes(records: list[UsageRecord], table: PriceTable) -> list[_Change]:
    """Return the requests whose cost differs. Their organization's factor stays as it was at the time.

    What was refunded is not given back a second time: no cost falls below what its refunds returned.
    """
    ids = [record.request_id for record in records]
    now, refunded = current_costs(ids), refunded_by_request(ids)
    true = {row.request_id: row for row in UsageCorrection.objects.filter(request_id__in=ids)}
    changes = []
    for record in records:
        before = now.get(record.request_id, record.cost_nanos)
        try:
            after = cost_nanos(Usage.of(true.get(record.request_id, record)), table, record.factor_ppm)
        except MissingPriceError as error:
            raise ReratingError(f"Request {record.request_id.hex}: {error}.") from None
        after = max(after, min(before, refunded.get(record.request_id, 0)))
        if after != before:
            changes.append(_Change(record.request_id, before, after))
    return changes


def _post(rerating: Rerating, organization: Organization, records: list[UsageRecord], table: PriceTable) -> None:
    try:
        _post_changes(rerating, organization, records, table)
    except _CancelOutError:
        # What goes back goes first, so that nobody owes meanwhile.
        for side in ("less", "more"):
            _post_changes(rerating, organization, records, table, side=side)


def _post_changes(
    rerating: Rerating, organization: Organization, records: list[UsageRecord], table: PriceTable, *, side: str = ""
) -> None:
    """Post what differs: all of it, or only of the requests that cost `side` than before. Raises _CancelOutError."""
    drawn = _lots_drawn_by(records)
    revenue = system_account(Kind.REVENUE, shard_of(organization.pk))
    first = (rerating.pk, organization.pk, records[0].request_id.hex)

    def compose(posting: Posting) -> None:
        # Under the organization's lock: a run beside this one has posted by now, or waits.
        changes = [
            change
            for change in _changes(records, table)
            if not side or (side == "more") == (change.after_nanos > change.before_nanos)
        ]
        if not changes:
            raise _NothingToPostError
        total = sum(change.after_nanos - change.before_nanos for change in changes)
        if total == 0:
            raise _CancelOutError
        posting.add(revenue, total)
        if total > 0:
            posting.charge(total, as_of=posting.book.now)
        else:
            give_back(posting, -total, drawn)
        ReratedRequest.objects.bulk_create(
            ReratedRequest(
                rerating=rerating,
                request_id=change.request_id,
                organization_id=organization.pk,
                cost_before_nanos=change.before_nanos,
                cost_after_nanos=change.after_nanos,
                ledger_transaction_id=posting.transaction_id,
            )
            for change in changes
        )

    post = partial(
        post_transaction,
        organization,
        kind=LedgerTransaction.Kind.RERATING,
        idempotency_key=":".join(filter(None, ("rerating", *map(str, first), side))),
        inputs={"rerating": rerating.pk, "first": records[0].request_id.hex} | ({"side": side} if side else {}),
        actor=rerating.actor,
        reason=f"{rerating}, {rerating.language_model.model_id}: {rerating.reason}",
        system=[revenue],
        compose=compose,
        lot_ids=[*drawn, *_spent_paid_lots(organization)],
    )
    try:
        post()
    except _NothingToPostError:
        return


def _lots_drawn_by(records: list[UsageRecord]) -> dict[int, int]:
    """Return, by lot, what the debits of these records, and their corrections, drew from it."""
    corrections = UsageCorrection.objects.filter(request_id__in=[record.request_id for record in records])
    debits = [record.ledger_transaction_id for record in records]
    return lots_drawn_by_transactions([*debits, *corrections.values_list("ledger_transaction_id", flat=True)])


def lots_drawn_by_transactions(transaction_ids: Iterable[int | None]) -> dict[int, int]:
    """Return, by lot, what these debits drew from it, in nano-dollars."""
    transactions = {transaction_id for transaction_id in transaction_ids if transaction_id}
    rows = CreditLotEntry.objects.filter(transaction_id__in=transactions).order_by().values_list("lot_id")
    return {lot_id: -int(amount) for lot_id, amount in rows.annotate(amount=Sum("amount_nanos")) if amount < 0}


def _spent_paid_lots(organization: Organization) -> list[int]:
    lots = CreditLot.objects.filter(organization=organization, kind=CreditLot.Kind.PAID, remaining_nanos=0)
    return list(lots.order_by("-pk").values_list("pk", flat=True)[:MAX_LOTS])


def give_back(posting: Posting, amount_nanos: int, drawn: Mapping[int, int]) -> None:
    """Clear what is owed, then fill the lots that paid for it, the last drawn first, then other paid lots.

    What fits nowhere becomes promotional credit, so that promotional credit never turns into cash.
    """
    organization_id = posting.header.organization_id
    if organization_id is None:
        raise ReratingError("A re-rating is of one organization.")
    owed = min(posting.owed_nanos(), amount_nanos)
    if owed:
        posting.add(organization_account(Kind.RECEIVABLE, organization_id), owed)
    rest = amount_nanos - owed
    lots = sorted(posting.book.lots.get(organization_id, ()), key=lambda lot: lot.burn_key, reverse=True)
    for lot in lots:
        part = min(rest, drawn.get(lot.lot_id, 0), lot.amount_nanos - lot.remaining_nanos)
        posting.move_lot(lot, part)
        rest -= part
    for lot in lots:
        if lot.kind != PROMOTIONAL:
            part = min(rest, lot.amount_nanos - lot.remaining_nanos)
            posting.move_lot(lot, part)
            rest -= part
    if rest:
        posting.open_lot(PROMOTIONAL, rest, origin=REFUND_ORIGIN)
