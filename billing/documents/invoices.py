"""Closing a month: an invoice of what was used, and a credit note for each earlier one that is given something back.

Two steps, each its own transaction, each harmless when it is done again, by whomever and however often:

1. The month is closed: under the lock of the organization's balance, which every posting takes first, the last
   transaction of the month is written down. From here on nothing can be posted into the month any more; what is settled
   later belongs to the next one.
2. The documents are drafted from rows that will not change, without any lock, and then written: the tax is posted, the
   numbers are taken, and rows are inserted, all or nothing. Only this last part holds the lock of the series.

A process that dies in between leaves a closed month without documents, which whoever comes next finishes.
"""

from collections.abc import Sequence
from datetime import datetime

from django.db import transaction
from django.db.models import Exists, OuterRef, QuerySet, Subquery

from accounts.models import Organization
from accounts.outbox import record_organization_change
from billing.bulk_rows import fetch_all
from billing.documents.closed_months import range_of
from billing.documents.drafts import Draft, LineDraft, draft_documents
from billing.documents.numbers import take_number
from billing.documents.parties import Party, describe_customer, describe_seller
from billing.documents.periods import Month, month_of, months_between
from billing.documents.posted import PostedRange, balance_after, last_id_before
from billing.documents.tax import NANOS_PER_CENT, TaxRule, round_to_cents, tax_cents_of
from billing.ledger.book import Book, Header, Posting, input_digest, organization_account, system_account
from billing.ledger.burn_order import PAID, plan_draws
from billing.models import (
    ClosedMonth,
    Document,
    DocumentLine,
    LedgerAccount,
    LedgerTransaction,
    OrganizationBalance,
)
from billing.shards import shard_of

CLOSING_ACTOR = "closing"
TAX_ORIGIN = "tax of a credit note"


class MonthNotOverError(ValueError):
    """The month has not ended by the clock of the ledger."""


def find_unfinished_months(organization: Organization, last: Month) -> list[Month]:
    """Return the months up to `last` whose documents are not written, from the first posting on, oldest first."""
    first = LedgerTransaction.objects.filter(organization=organization).order_by("id").first()
    if first is None:
        return []
    finished = ClosedMonth.objects.filter(organization=organization, finished_at__isnull=False)
    done = set(finished.values_list("month", flat=True))
    return [month for month in months_between(month_of(first.created_at), last) if str(month) not in done]


def organizations_to_close(last: Month) -> QuerySet[Organization]:
    """Return the organizations that something was posted to by the end of `last`, and whose `last` is not finished."""
    finished = ClosedMonth.objects.filter(month=str(last), finished_at__isnull=False, organization=OuterRef("pk"))
    # Ids of an organization's transactions rise with time: its first says it, however many there are.
    first = LedgerTransaction.objects.filter(organization=OuterRef("pk")).order_by("id").values("created_at")[:1]
    posted = Organization.objects.annotate(first_posted_at=Subquery(first)).filter(first_posted_at__lt=last.ends)
    return posted.filter(~Exists(finished)).order_by("pk")


def close_month(organization: Organization, month: Month) -> list[Document]:
    """Write the documents of a month, and before it those of every earlier month that has none; return the new ones.

    Raises MonthNotOverError, and DocumentError when a document would not say what the ledger says.
    """
    documents: list[Document] = []
    for unfinished in find_unfinished_months(organization, month):
        closed = _close(organization, unfinished)
        documents += _write_documents(closed, draft_documents(range_of(closed)))
    return documents


def draft_month(organization: Organization, month: Month) -> list[Draft]:
    """Return what closing this month would bill, without closing it. Months before it must be closed."""
    previous = ClosedMonth.objects.filter(organization=organization, month__lt=str(month)).order_by("-month").first()
    after_id = previous.last_transaction_id if previous else 0
    last_id = max(after_id, last_id_before(organization, month.ends))
    return draft_documents(PostedRange(organization.pk, after_id, last_id, month.begins, month.ends))


def _close(organization: Organization, month: Month) -> ClosedMonth:
    """Write down where the month ends in the ledger, once."""
    with transaction.atomic():
        OrganizationBalance.objects.select_for_update().get(organization=organization)
        now: datetime = fetch_all("SELECT clock_timestamp()")[0][0]
        found = ClosedMonth.objects.filter(organization=organization, month=str(month)).first()
        if found is not None:
            return found
        if now < month.ends:
            raise MonthNotOverError(f"{month.name} ends at {month.ends:%Y-%m-%d %H:%M} UTC.")
        previous = ClosedMonth.objects.filter(organization=organization).order_by("-month").first()
        after_id = previous.last_transaction_id if previous else 0
        last_id = max(after_id, last_id_before(organization, month.ends))
        return ClosedMonth.objects.create(
            organization=organization,
            month=str(month),
            after_transaction_id=after_id,
            last_transaction_id=last_id,
            opening_nanos=balance_after(organization.pk, after_id),
            closing_nanos=balance_after(organization.pk, last_id),
            closed_at=now,
        )


def _write_documents(closed: ClosedMonth, drafts: Sequence[Draft]) -> list[Document]:
    """Write the documents of a closed month, once: tax, numbers, rows and lines in one transaction."""
    organization, seller = closed.organization, describe_seller()
    customer, rule = describe_customer(organization)
    tax_owed = system_account(LedgerAccount.Kind.TAX_OWED, shard_of(organization.pk))
    wanted = [draft for draft in drafts if not draft.is_empty]
    with transaction.atomic():
        # Locked first: whoever closes the same month waits here, and then finds it finished.
        if ClosedMonth.objects.select_for_update().get(pk=closed.pk).finished_at is not None:
            return []
        documents = [_document_of(closed, draft, seller, customer, rule) for draft in wanted]
        book = None
        if any(document.tax_cents for document in documents):
            book = Book.open([organization.pk], system=[tax_owed], postings=len(documents))
        for document in documents:
            document.number = take_number(document.kind)
        # Asked under the lock of the series, so that times rise with numbers.
        issued_at: datetime = fetch_all("SELECT clock_timestamp()")[0][0]
        for document, draft in zip(documents, wanted, strict=True):
            document.issued_at = issued_at
            if book is not None and document.tax_cents:
                document.tax_transaction_id = book.take_transaction_id()
            document.save(force_insert=True)
            _insert_lines(document, draft)
            if book is not None and document.tax_cents:
                _post_tax(book, document)
        if book is not None:
            book.write()
            record_organization_change(organization)
        ClosedMonth.objects.filter(pk=closed.pk, finished_at=None).update(finished_at=issued_at)
    return documents


def _document_of(closed: ClosedMonth, draft: Draft, seller: Party, customer: Party, rule: TaxRule) -> Document:
    """Return a document of a draft, not numbered yet. What comes out below zero is a credit note."""
    corrects = None
    if draft.corrects_month is not None:
        corrects = Document.objects.get(closed_month=draft.corrects_month, kind=Document.Kind.INVOICE)
        # A correction follows what it corrects: the same rate, whatever applies by now.
        rule = TaxRule(corrects.tax_rate_ppm, corrects.tax_note)
    is_credit = corrects is not None or draft.net_nanos < 0
    sign = -1 if is_credit else 1
    net_cents = round_to_cents(sign * draft.net_nanos)
    tax_cents = tax_cents_of(net_cents, rule.rate_ppm)
    return Document(
        kind=Document.Kind.CREDIT_NOTE if is_credit else Document.Kind.INVOICE,
        organization=closed.organization,
        closed_month=closed,
        corrects=corrects,
        seller=seller,
        customer=customer,
        charges_nanos=sign * draft.charges_nanos,
        promotional_nanos=sign * draft.promotional_nanos,
        net_nanos=sign * draft.net_nanos,
        tax_rate_ppm=rule.rate_ppm,
        tax_note=rule.note,
        net_cents=net_cents,
        tax_cents=tax_cents,
        gross_cents=net_cents + tax_cents,
    )


def _insert_lines(document: Document, draft: Draft) -> None:
    sign = -1 if document.kind == Document.Kind.CREDIT_NOTE else 1
    lines = list(draft.lines)
    if draft.promotional_nanos:
        lines.append(LineDraft(DocumentLine.Kind.PROMOTIONAL, -draft.promotional_nanos))
    DocumentLine.objects.bulk_create(
        DocumentLine(
            document=document,
            position=position,
            kind=line.kind,
            description=line.description,
            model_id=line.model_id,
            component=line.component,
            price_version_id=line.price_version_id,
            prompt_tokens_from=line.prompt_tokens_from,
            factor_ppm=line.factor_ppm,
            picos_per_unit=line.picos_per_unit,
            quantity=line.quantity,
            count=line.count,
            is_late=line.is_late,
            amount_nanos=sign * line.amount_nanos,
        )
        for position, line in enumerate(lines, 1)
    )


def _post_tax(book: Book, document: Document) -> None:
    """Take the tax of an invoice from the balance, or give back that of a credit note.

    Only paid credit pays tax: promotional credit is a discount, and there is no tax on a discount. What paid credit
    does not cover is owed.
    """
    kind, organization_id = LedgerTransaction.Kind.TAX, document.organization_id
    nanos = document.tax_cents * NANOS_PER_CENT
    is_credit = document.kind == Document.Kind.CREDIT_NOTE
    inputs = {"document_id": document.pk, "tax_cents": document.tax_cents, "kind_of_document": document.kind}
    header = Header(
        kind,
        f"tax:{document.pk}",
        input_digest(kind, organization_id, inputs),
        organization_id,
        CLOSING_ACTOR,
        f"Tax of {document.label}",
    )
    posting = book.start(header, transaction_id=document.tax_transaction_id)
    tax_owed = system_account(LedgerAccount.Kind.TAX_OWED, shard_of(organization_id))
    if is_credit:
        posting.add(tax_owed, -nanos)
        posting.open_lot(PAID, nanos, origin=TAX_ORIGIN)
    else:
        posting.add(tax_owed, nanos)
        _charge_paid_credit(posting, organization_id, nanos)


def _charge_paid_credit(posting: Posting, organization_id: int, nanos: int) -> None:
    rest = nanos
    paid = [lot for lot in posting.book.lots.get(organization_id, ()) if lot.kind == PAID]
    for lot, drawn in plan_draws(paid, nanos, as_of=posting.book.now):
        posting.move_lot(lot, -drawn)
        rest -= drawn
    if rest:
        posting.add(organization_account(LedgerAccount.Kind.RECEIVABLE, organization_id), -rest)
