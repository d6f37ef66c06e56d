"""Statements month by month, invoices, credit notes and payment receipts, as page and as file."""

from collections.abc import Callable, Iterable, Sequence
from datetime import date
from functools import partial
from typing import Any

import orjson
from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_safe

from accounts.access import Access, Permission
from billing.documents.closed_months import find_month, months_of
from billing.documents.closing import issue_receipts
from billing.documents.lookup import find_document
from billing.documents.periods import InvalidPeriodError, Month, month_of, parse_month_begun
from billing.documents.statement import Statement, write_statement
from billing.documents.usage_export import COLUMN_SETS, export_usage
from billing.ledger.statements import list_statement
from billing.models import Document
from billing.request_id import parse_request_id
from billing.usage.report import start_of_day
from console.entrance import console_page
from pages.csv_lines import csv_lines
from pages.documents import machine
from pages.documents.content import describe_document
from pages.documents.figures import decimals_for
from pages.documents.files import document_pdf, statement_pdf
from pages.documents.fonts import characters_without_font
from pages.documents.pdf import DocumentTooLongError
from pages.documents.statement_content import describe_statement
from pages.streams import stream_chunks

MAX_MONTHS = 120
MAX_DOCUMENTS = 500
FILE_KINDS = (("pdf", "PDF"), ("csv", "CSV"), ("json", "JSON"))


@require_safe
@console_page(Permission.SEE_BILLING)
def documents(request: HttpRequest, access: Access) -> HttpResponse:
    """Every month with its statement and its documents, and the receipts of payments."""
    organization = access.organization
    issue_receipts(organization)
    found = list(organization.documents.select_related("closed_month")[:MAX_DOCUMENTS])
    by_month: dict[str, list[Document]] = {}
    for document in found:
        if document.closed_month is not None:
            by_month.setdefault(document.closed_month.month, []).insert(0, document)
    months = months_of(organization, last=month_of(timezone.now()))[:MAX_MONTHS]
    context = {
        "months": [(month, by_month.get(str(month), [])) for month in months],
        "this_month": month_of(timezone.now()),
        "receipts": [document for document in found if document.kind == Document.Kind.PAYMENT_RECEIPT],
    }
    return render(request, "console/documents.html", context)


@require_safe
@console_page(Permission.SEE_BILLING)
def document(request: HttpRequest, access: Access, label: str) -> HttpResponse:
    found = _find_document(access, label)
    content = describe_document(found)
    context = {
        "document": found,
        "content": content,
        "parties": [("From", content["seller"]), ("To", content["customer"])],
        "without_font": characters_without_font(content),
        "credit_notes": found.credit_notes.all(),
        "file_kinds": FILE_KINDS,
    }
    return render(request, "console/document.html", context)


@require_safe
@console_page(Permission.SEE_BILLING)
def document_file(request: HttpRequest, access: Access, label: str, kind: str) -> HttpResponse:
    """The same as PDF, CSV or JSON."""
    found = _find_document(access, label)
    if kind == "pdf":
        return _pdf(request, found.label, partial(document_pdf, found))
    return _file(found.label, kind, machine.document_body(found), machine.LINE_COLUMNS, machine.document_rows(found))


@require_safe
@console_page(Permission.SEE_BILLING)
def statement(request: HttpRequest, access: Access, month: str) -> HttpResponse:
    period, written, is_closed = _write_statement(access, month)
    content = describe_statement(access.organization, written, period, is_closed=is_closed)
    days = list(zip(written.days, content["days"], strict=True))
    context = {
        "month": period,
        "statement": written,
        "is_closed": is_closed,
        "content": content,
        "parties": [("From", content["seller"]), ("To", content["customer"])],
        "without_font": characters_without_font(content),
        "file_kinds": FILE_KINDS,
        "days": [(day, list(zip(day.rows, shown["rows"], strict=True)), shown) for day, shown in days],
    }
    return render(request, "console/statement.html", context)


@require_safe
@console_page(Permission.SEE_BILLING)
def statement_file(request: HttpRequest, access: Access, month: str, kind: str) -> HttpResponse:
    """The same as PDF, CSV or JSON."""
    period, written, is_closed = _write_statement(access, month)
    name = f"statement-{access.organization.slug}-{period}"
    if kind == "pdf":
        return _pdf(request, name, partial(statement_pdf, access.organization, written, period, is_closed=is_closed))
    body = machine.statement_body(written, period, is_closed=is_closed)
    return _file(name, kind, body, machine.STATEMENT_COLUMNS, machine.statement_rows(written))


@require_safe
@console_page(Permission.SEE_BILLING)
def statement_day(request: HttpRequest, access: Access, month: str, day: int) -> HttpResponse:
    """The single postings of one day of a statement."""
    period = _read_month(month)
    try:
        which = date(period.year, period.month, day)
    except ValueError:
        raise Http404 from None
    before = request.GET.get("before", "")
    if before and not (before.isascii() and before.isdigit() and len(before) <= 18):
        raise Http404
    page = list_statement(
        access.organization,
        before=int(before) if before else None,
        since=start_of_day(which),
        until=start_of_day(date.fromordinal(which.toordinal() + 1)),
    )
    amounts = [nanos or 0 for line in page.lines for nanos in (line.amount_nanos, line.balance_after_nanos)]
    values = {"month": period, "day": which, "page": page, "decimals": decimals_for(amounts)}
    return render(request, "console/statement_day.html", values)


@require_safe
@console_page(Permission.SEE_USAGE)
def statement_usage(request: HttpRequest, access: Access, month: str) -> StreamingHttpResponse:
    """The requests of a month, one by one, as they are read from Postgres: `?columns=focus`, `?after=REQUEST-ID`."""
    period = _read_month(month)
    columns = request.GET.get("columns", "own")
    after = parse_request_id(request.GET["after"]) if request.GET.get("after") else None
    if columns not in COLUMN_SETS or (request.GET.get("after") and after is None):
        raise Http404
    organization = access.organization
    posted, _ = find_month(organization, period)
    invoice = organization.documents.filter(closed_month__month=str(period), corrects=None).first()
    rows = export_usage(
        organization,
        posted,
        columns=columns,
        invoice=invoice.label if invoice else "",
        issuer=settings.SELLER_NAME,
        after=after,
    )
    response = StreamingHttpResponse(stream_chunks(rows), content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="usage-{organization.slug}-{period}-{columns}.csv"'
    return response


def _find_document(access: Access, label: str) -> Document:
    found = find_document(access.organization, label)
    if found is None:
        raise Http404
    return found


def _read_month(text: str) -> Month:
    try:
        return parse_month_begun(text, now=timezone.now())
    except InvalidPeriodError:
        raise Http404 from None


def _write_statement(access: Access, text: str) -> tuple[Month, Statement, bool]:
    month = _read_month(text)
    posted, is_closed = find_month(access.organization, month)
    return month, write_statement(access.organization, posted), is_closed


def _pdf(request: HttpRequest, name: str, make: Callable[[], bytes]) -> HttpResponse:
    try:
        body = make()
    except DocumentTooLongError as error:
        return render(request, "console/document_too_long.html", {"reason": str(error)}, status=413)
    return _answer(name, "pdf", "application/pdf", body)


def _file(
    name: str, kind: str, body: dict[str, Any], columns: Sequence[str], rows: Iterable[Sequence[Any]]
) -> HttpResponse:
    if kind == "json":
        return _answer(name, kind, "application/json", orjson.dumps(body, option=orjson.OPT_INDENT_2))
    if kind == "csv":
        return _answer(name, kind, "text/csv; charset=utf-8", "".join(csv_lines(columns, rows)).encode())
    raise Http404


def _answer(name: str, kind: str, content_type: str, body: bytes) -> HttpResponse:
    response = HttpResponse(body, content_type=content_type)
    response["Content-Disposition"] = f'attachment; filename="{name}.{kind}"'
    return response
