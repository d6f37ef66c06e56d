"""What a month is billed: its lines, drafted from ledger entries and usage records that will not change any more.

For every transaction, what was charged is what it added to revenue, and what promotional credit paid is what it took
from the promotional account less what it took back from promotion expense. The sum of both over a range is the net of
its documents, whatever kinds of transactions there are: nothing can be billed that the ledger does not hold.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from billing.bulk_rows import fetch_all
from billing.documents.components import price_components, read_price_tables
from billing.documents.posted import RECORDS_OF_RANGE, PostedRange, usage_bounds
from billing.models import DocumentLine, LedgerTransaction
from billing.usage_event import USAGE_COUNTS

MAX_SINGLE_ADJUSTMENTS = 100
Kind = LedgerTransaction.Kind
LineKind = DocumentLine.Kind


class DocumentError(Exception):
    """A document would not say what the ledger says. It is not written, and the text says why."""


@dataclass(frozen=True, slots=True)
class LineDraft:
    kind: DocumentLine.Kind
    amount_nanos: int
    description: str = ""
    model_id: str = ""
    component: str = ""
    price_version_id: int | None = None
    prompt_tokens_from: int = 0
    factor_ppm: int | None = None
    picos_per_unit: int | None = None
    quantity: int | None = None
    count: int = 0
    is_late: bool = False


@dataclass(slots=True)
class Draft:
    """The lines of one document to be, without its promotional credit. `corrects_month` is a ClosedMonth's id or None.

    Amounts as the ledger moved them: below zero where something was given back.
    """

    corrects_month: int | None = None
    lines: list[LineDraft] = field(default_factory=list)
    promotional_nanos: int = 0

    @property
    def charges_nanos(self) -> int:
        return sum(line.amount_nanos for line in self.lines)

    @property
    def net_nanos(self) -> int:
        return self.charges_nanos - self.promotional_nanos

    @property
    def is_empty(self) -> bool:
        return not self.lines and not self.promotional_nanos


@dataclass(frozen=True, slots=True)
class _Part:
    """The share of a transaction that belongs to one month: a ClosedMonth's id, or None for the month that is drafted.

    `charge_id` is what the transaction is about; `is_late` says that it lies before this month, whether billed or not.
    """

    transaction_id: int
    month_id: int | None
    is_late: bool
    count: int
    nanos: int


def draft_documents(posted: PostedRange) -> list[Draft]:
    """Return the draft of the month itself first, then one for each earlier month that is given something back.

    Raises DocumentError when the lines do not come to what the ledger says.
    """
    month = Draft(lines=_usage_lines(posted))
    earlier: dict[int, Draft] = {}
    facts = _read_facts(posted)
    parts = _read_parts(posted)
    sums: dict[tuple[str, int | None, bool], list[int]] = defaultdict(lambda: [0, 0, 0])
    for fact in facts:
        if fact.kind == Kind.USAGE:
            month.promotional_nanos += fact.promotional_nanos
        elif fact.kind in (Kind.REFUND, Kind.CORRECTION, Kind.RERATING):
            own = parts.get(fact.transaction_id) or [_Part(fact.transaction_id, None, False, 1, fact.charges_nanos)]
            if sum(part.nanos for part in own) != fact.charges_nanos:
                raise DocumentError(f"Transaction {fact.transaction_id} does not say which requests it is about.")
            for part, promotional in zip(own, _share(fact.promotional_nanos, own), strict=True):
                row = sums[fact.kind, part.month_id, part.is_late]
                row[0] += part.nanos
                row[1] += promotional
                row[2] += part.count
        else:
            month.promotional_nanos += fact.promotional_nanos
    given_back = _months_given_back(sums)
    for (kind, month_id, is_late), (nanos, promotional, count) in sorted(sums.items(), key=str):
        draft = month
        if month_id is not None and month_id in given_back:
            draft = earlier.setdefault(month_id, Draft(month_id))
        draft.promotional_nanos += promotional
        late = is_late and draft is month
        draft.lines.append(LineDraft(LineKind(kind), nanos, count=count, is_late=late))
    month.lines += _adjustments(facts)
    drafts = [month, *(earlier[month_id] for month_id in sorted(earlier))]
    _compare(drafts, facts)
    return drafts


def _months_given_back(sums: dict[tuple[str, int | None, bool], list[int]]) -> set[int]:
    """Return the earlier months that get a credit note. One that would have to pay more is billed with this month."""
    charges: dict[int, int] = defaultdict(int)
    nets: dict[int, int] = defaultdict(int)
    for (_, month_id, _), (nanos, promotional, _) in sums.items():
        if month_id is not None:
            charges[month_id] += nanos
            nets[month_id] += nanos - promotional
    return {month_id for month_id in nets if nets[month_id] <= 0 and charges[month_id] <= 0}


def _compare(drafts: Sequence[Draft], facts: "Sequence[_Fact]") -> None:
    posted = sum(fact.charges_nanos for fact in facts), sum(fact.promotional_nanos for fact in facts)
    drafted = sum(draft.charges_nanos for draft in drafts), sum(draft.promotional_nanos for draft in drafts)
    if drafted != posted:
        raise DocumentError(f"Lines come to {drafted} nanos, charged and promotional; the ledger says {posted}.")


@dataclass(frozen=True, slots=True)
class _Fact:
    """What one transaction charged and how much of it promotional credit paid. Usage is one fact for all of it."""

    transaction_id: int
    kind: str
    reason: str
    charges_nanos: int
    promotional_nanos: int


def _read_facts(posted: PostedRange) -> list[_Fact]:
    rows = fetch_all(
        """SELECT CASE WHEN ledger.kind = 'usage' THEN 0 ELSE ledger.id END, ledger.kind,
                CASE WHEN ledger.kind = 'adjustment' THEN ledger.reason ELSE '' END,
                coalesce(sum(entry.amount_nanos) FILTER (WHERE account.kind = 'revenue'), 0)::bigint,
                -coalesce(sum(entry.amount_nanos)
                    FILTER (WHERE account.kind IN ('promotional', 'promotion_expense')), 0)::bigint
            FROM billing_ledgertransaction ledger
            JOIN billing_ledgerentry entry ON entry.transaction_id = ledger.id
            JOIN billing_ledgeraccount account ON account.id = entry.account_id
            WHERE ledger.organization_id = %(organization_id)s AND ledger.id > %(after_id)s AND ledger.id <= %(last_id)s
              AND account.kind IN ('revenue', 'promotional', 'promotion_expense')
            GROUP BY 1, 2, 3 ORDER BY 1""",
        posted.parameters,
    )
    return [_Fact(*row) for row in rows if row[3] or row[4]]


_PARTS = """
    SELECT ledger.id AS transaction_id, split_part(ledger.idempotency_key, ':', 2)::bigint AS charge_id, 1 AS requests,
        (SELECT sum(amount_nanos) FROM billing_ledgerentry entry
            JOIN billing_ledgeraccount account ON account.id = entry.account_id
            WHERE transaction_id = ledger.id AND account.kind = 'revenue') AS nanos
    FROM billing_ledgertransaction ledger
    WHERE ledger.organization_id = %(organization_id)s AND ledger.id > %(after_id)s AND ledger.id <= %(last_id)s
      AND ledger.kind = 'refund'
    UNION ALL
    SELECT correction.ledger_transaction_id, coalesce(record.ledger_transaction_id, correction.ledger_transaction_id),
        1, correction.cost_after_nanos - correction.cost_before_nanos
    FROM billing_usagecorrection correction JOIN billing_usagerecord record USING (request_id)
    WHERE correction.organization_id = %(organization_id)s
      AND correction.ledger_transaction_id > %(after_id)s AND correction.ledger_transaction_id <= %(last_id)s
    UNION ALL
    SELECT rerated.ledger_transaction_id, coalesce(record.ledger_transaction_id, correction.ledger_transaction_id,
        rerated.ledger_transaction_id), 1, rerated.cost_after_nanos - rerated.cost_before_nanos
    FROM billing_ledgertransaction ledger
    JOIN billing_reratedrequest rerated ON rerated.ledger_transaction_id = ledger.id
    JOIN billing_usagerecord record USING (request_id)
    LEFT JOIN billing_usagecorrection correction USING (request_id)
    WHERE ledger.organization_id = %(organization_id)s AND ledger.id > %(after_id)s AND ledger.id <= %(last_id)s
      AND ledger.kind = 'rerating'"""


def _read_parts(posted: PostedRange) -> dict[int, list[_Part]]:
    """Return, by transaction, how much is about requests of which month; without an invoice it is this month's."""
    rows = fetch_all(
        f"""SELECT part.transaction_id, earlier.id, part.charge_id <= %(after_id)s, sum(part.requests)::bigint,
                sum(part.nanos)::bigint
            FROM ({_PARTS}) part
            LEFT JOIN LATERAL (SELECT closed.id FROM billing_closedmonth closed
                WHERE closed.organization_id = %(organization_id)s AND closed.last_transaction_id <= %(after_id)s
                  AND part.charge_id > closed.after_transaction_id AND part.charge_id <= closed.last_transaction_id
                  AND EXISTS (SELECT 1 FROM billing_document document WHERE document.closed_month_id = closed.id
                    AND document.kind = 'invoice')) earlier ON true
            GROUP BY 1, 2, 3 ORDER BY 1, 2, 3""",  # noqa: S608  A constant above.
        posted.parameters,
    )
    parts: dict[int, list[_Part]] = defaultdict(list)
    for row in rows:
        parts[row[0]].append(_Part(*row))
    return parts


def _share(amount: int, parts: Sequence[_Part]) -> list[int]:
    """Divide an amount over parts by their size, whole nano-dollars, the last taking what is left."""
    whole = sum(abs(part.nanos) for part in parts)
    shares = [amount * abs(part.nanos) // whole if whole else 0 for part in parts[:-1]]
    return [*shares, amount - sum(shares)]


def _adjustments(facts: Iterable[_Fact]) -> list[LineDraft]:
    """Return a line for each adjustment with its reason, and one for those beyond the first."""
    adjusted = [fact for fact in facts if fact.charges_nanos and fact.kind not in _KINDS_WITH_LINES]
    lines = [
        LineDraft(LineKind.ADJUSTMENT, fact.charges_nanos, fact.reason, count=1)
        for fact in adjusted[:MAX_SINGLE_ADJUSTMENTS]
    ]
    rest = adjusted[MAX_SINGLE_ADJUSTMENTS:]
    if rest:
        text = f"{len(rest)} further adjustments"
        lines.append(LineDraft(LineKind.ADJUSTMENT, sum(fact.charges_nanos for fact in rest), text, count=len(rest)))
    return lines


_KINDS_WITH_LINES = (Kind.USAGE, Kind.REFUND, Kind.CORRECTION, Kind.RERATING)


def _usage_lines(posted: PostedRange) -> list[LineDraft]:
    """Return a line for each model, price, tier, factor and component, what is late apart from the rest.

    A line is quantity x price x factor, rounded down to the nano-dollar. What requests cost beyond that (each is
    rounded up once, or costs the minimum charge) is one line of its own for each model.
    """
    counts = ", ".join(f"sum(record.{name})::bigint" for name in USAGE_COUNTS)
    rows = fetch_all(
        f"""SELECT record.admitted_at < %(begins)s, record.model_id, record.price_version_id, record.factor_ppm,
                coalesce(tiers.starts[width_bucket(record.input_tokens + record.cache_write_5m_tokens
                    + record.cache_write_1h_tokens + record.cache_read_tokens, tiers.starts)], 0),
                count(*), sum(record.cost_nanos)::bigint, {counts}
            FROM billing_usagerecord record
            LEFT JOIN (SELECT price_version_id,
                    array_agg(DISTINCT prompt_tokens_from::bigint ORDER BY prompt_tokens_from::bigint) AS starts
                FROM billing_pricecomponent GROUP BY price_version_id) tiers
                ON tiers.price_version_id = record.price_version_id
            WHERE {RECORDS_OF_RANGE} GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 5, 4""",  # noqa: S608  Constants.
        {**posted.parameters, **usage_bounds(posted).parameters, "begins": posted.begins},
    )
    tables = read_price_tables({row[2] for row in rows})
    lines: list[LineDraft] = []
    beyond: dict[tuple[bool, str], list[int]] = {}
    for is_late, model_id, version_id, factor_ppm, tier, requests, cost, *quantities in rows:
        table = tables.get(version_id)
        if table is None:
            raise DocumentError(f"{model_id}: price version {version_id} of {requests} requests does not exist.")
        for component, quantity, picos, nanos in price_components(table, tier, factor_ppm, quantities):
            cost -= nanos
            lines.append(
                LineDraft(
                    LineKind.USAGE,
                    nanos,
                    model_id=model_id,
                    component=component,
                    price_version_id=version_id,
                    prompt_tokens_from=tier,
                    factor_ppm=factor_ppm,
                    picos_per_unit=picos,
                    quantity=quantity,
                    count=requests,
                    is_late=is_late,
                )
            )
        if cost:
            row = beyond.setdefault((is_late, model_id), [0, 0])
            row[0] += cost
            row[1] += requests
    lines += [
        LineDraft(LineKind.ROUNDING, nanos, model_id=model_id, count=requests, is_late=is_late)
        for (is_late, model_id), (nanos, requests) in beyond.items()
    ]
    return sorted(lines, key=lambda line: (line.is_late, line.model_id, line.kind == LineKind.ROUNDING))
