"""The statement of an organization: its ledger transactions, newest first, with the balance after each."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db.models import Prefetch

from accounts.models import Organization
from billing.models import (
    LedgerAccount,
    LedgerEntry,
    LedgerTransaction,
    OrganizationBalance,
    ReratedRequest,
    UsageCorrection,
)

PAGE_ROWS = 50


@dataclass(frozen=True, slots=True)
class StatementLine:
    """Amounts in nano-dollars. `balance_after_nanos` is None in a filtered statement, where it would mislead."""

    transaction: LedgerTransaction
    amount_nanos: int
    balance_after_nanos: int | None


@dataclass(frozen=True, slots=True)
class StatementPage:
    """`older_than` is the transaction id that the next page starts below; None on the last page."""

    lines: Sequence[StatementLine]
    older_than: int | None


def posted_nanos(organization: Organization) -> int:
    """Return the posted balance; an organization that nothing was ever posted to has 0."""
    balance = OrganizationBalance.objects.filter(organization=organization).first()
    return balance.posted_nanos if balance else 0


def list_statement(
    organization: Organization,
    *,
    before: int | None = None,
    kinds: Sequence[str] = (),
    since: datetime | None = None,
    until: datetime | None = None,
    limit: int = PAGE_ROWS,
) -> StatementPage:
    """Return the lines below transaction `before`, posted in [since, until), of these kinds, or of all that are not
    narrowed down.
    """
    transactions = (
        LedgerTransaction.objects.filter(organization=organization)
        .order_by("-id")
        .prefetch_related(_own_entries(organization))
    )
    if before is not None:
        transactions = transactions.filter(pk__lt=before)
    if since is not None:
        transactions = transactions.filter(created_at__gte=since)
    if until is not None:
        transactions = transactions.filter(created_at__lt=until)
    if kinds:
        transactions = transactions.filter(kind__in=kinds)
    found = list(transactions[: limit + 1])
    page = found[:limit]
    older_than = page[-1].pk if len(found) > limit else None
    balances = [None] * len(page) if kinds else _balances_after(organization, page)
    return StatementPage(
        lines=[
            StatementLine(transaction, sum(entry.amount_nanos for entry in transaction.entries.all()), balance)
            for transaction, balance in zip(page, balances, strict=True)
        ],
        older_than=older_than,
    )


def find_transaction(organization: Organization, transaction_id: int) -> LedgerTransaction | None:
    """Return the transaction with the organization's own entries, or None when it is not the organization's."""
    return (
        LedgerTransaction.objects.filter(organization=organization, pk=transaction_id)
        .prefetch_related(_own_entries(organization), "lot_entries__lot")
        .first()
    )


@dataclass(frozen=True, slots=True)
class CorrectedRequest:
    """A request whose cost a transaction corrected: `difference_nanos` is above zero where something was given back."""

    request_id: UUID
    difference_nanos: int


def corrected_requests(transaction: LedgerTransaction, *, limit: int) -> list[CorrectedRequest]:
    """Return the requests that a re-rating, a refund or a correction is about, at most `limit`; else none."""
    if transaction.kind == LedgerTransaction.Kind.REFUND:
        request_id = UUID(transaction.idempotency_key.split(":")[2])
        return [CorrectedRequest(request_id, sum(entry.amount_nanos for entry in transaction.entries.all()))]
    if transaction.kind == LedgerTransaction.Kind.CORRECTION:
        found = UsageCorrection.objects.filter(ledger_transaction_id=transaction.pk)
        return [CorrectedRequest(row.request_id, -row.difference_nanos) for row in found]
    if transaction.kind != LedgerTransaction.Kind.RERATING:
        return []
    rows = ReratedRequest.objects.filter(ledger_transaction_id=transaction.pk)
    return [
        CorrectedRequest(row.request_id, row.cost_before_nanos - row.cost_after_nanos)
        for row in rows.order_by("-request_id")[:limit]
    ]


def _own_entries(organization: Organization) -> "Prefetch[str]":
    # The system's accounts are the other half of every transaction, and not for customers to see.
    entries = LedgerEntry.objects.filter(account__organization=organization).select_related("account")
    return Prefetch("entries", queryset=entries)


def _balances_after(organization: Organization, page: Sequence[LedgerTransaction]) -> list[int | None]:
    """Walk up from the oldest transaction of the page, keeping the balance of each of the organization's accounts."""
    if not page:
        return []
    oldest_id = page[-1].pk
    account_balances = {}
    for account in LedgerAccount.objects.filter(organization=organization):
        last = account.entries.filter(transaction_id__lt=oldest_id).order_by("-seq").first()
        account_balances[account.pk] = last.balance_after_nanos if last else 0
    balances: list[int | None] = []
    for transaction in reversed(page):
        for entry in sorted(transaction.entries.all(), key=lambda entry: entry.seq):
            account_balances[entry.account_id] = entry.balance_after_nanos
        balances.append(sum(account_balances.values()))
    return balances[::-1]
