"""Receipts: one for each payment that came in, by the ledger transaction that credited it."""

from django.db import IntegrityError, transaction
from django.db.models import Exists, OuterRef

from accounts.models import Organization
from billing.bulk_rows import fetch_all
from billing.documents.numbers import take_number
from billing.documents.parties import describe_customer, describe_seller
from billing.documents.tax import round_to_cents
from billing.models import Document, DocumentLine, LedgerAccount, LedgerEntry, LedgerTransaction

MAX_RECEIPTS_PER_ROUND = 500


class NotAPaymentError(ValueError):
    """The transaction is not a top-up."""


def payments_without_receipt(organization: Organization | None = None) -> list[LedgerTransaction]:
    """Return the oldest payments, of an organization or of all, that have no receipt yet.

    An order that a discount paid for whole brought no money in: it has no receipt.
    """
    cash = LedgerEntry.objects.filter(transaction=OuterRef("pk"), account__kind=LedgerAccount.Kind.CASH)
    payments = LedgerTransaction.objects.filter(Exists(cash), kind=LedgerTransaction.Kind.TOP_UP, receipt=None)
    if organization is not None:
        payments = payments.filter(organization=organization)
    return list(payments.select_related("organization").order_by("id")[:MAX_RECEIPTS_PER_ROUND])


def issue_receipt(payment: LedgerTransaction) -> Document:
    """Return the receipt of a payment, written now unless it was before. Raises NotAPaymentError.

    A payment is no supply: it bears no tax of its own. The tax is on the invoice that it pays.
    """
    if payment.kind != LedgerTransaction.Kind.TOP_UP or payment.organization is None:
        raise NotAPaymentError(f"Transaction {payment.pk} is not a top-up.")
    found = Document.objects.filter(payment=payment).first()
    if found is not None:
        return found
    try:
        return _write_receipt(payment.organization, payment)
    except IntegrityError:
        # Somebody else has just written it: the payment has one receipt, and the number that was taken is free again.
        found = Document.objects.filter(payment=payment).first()
        if found is None:
            raise
        return found


def _write_receipt(organization: Organization, payment: LedgerTransaction) -> Document:
    provider, paid_nanos = _read_payment(payment)
    customer, _ = describe_customer(organization)
    cents = round_to_cents(paid_nanos)
    with transaction.atomic():
        number = take_number(Document.Kind.PAYMENT_RECEIPT)
        receipt = Document.objects.create(
            kind=Document.Kind.PAYMENT_RECEIPT,
            number=number,
            organization=organization,
            payment=payment,
            issued_at=fetch_all("SELECT clock_timestamp()")[0][0],
            seller=describe_seller(),
            customer=customer,
            charges_nanos=paid_nanos,
            net_nanos=paid_nanos,
            net_cents=cents,
            gross_cents=cents,
        )
        DocumentLine.objects.create(
            document=receipt,
            position=1,
            kind=DocumentLine.Kind.PAYMENT,
            description=f"{provider} · {payment.reason}"[:500],
            count=1,
            amount_nanos=paid_nanos,
        )
    return receipt


def _read_payment(payment: LedgerTransaction) -> tuple[str, int]:
    """Return the payment provider and how much came in, from the entry on the cash account."""
    rows = fetch_all(
        """SELECT account.payment_provider, -entry.amount_nanos
            FROM billing_ledgerentry entry JOIN billing_ledgeraccount account ON account.id = entry.account_id
            WHERE entry.transaction_id = %s AND account.kind = 'cash'""",
        [payment.pk],
    )
    if len(rows) != 1:
        raise NotAPaymentError(f"Transaction {payment.pk} has {len(rows)} entries on cash accounts.")
    return str(rows[0][0]), int(rows[0][1])
