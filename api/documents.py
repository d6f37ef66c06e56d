"""`/api/v1/documents` and `/api/v1/statements`: invoices, credit notes, receipts, and the ledger of a month."""

import re
from typing import Any

from django.http import Http404, HttpResponse
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.exceptions import APIException, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.access import Permission
from accounts.models import Organization
from api.fields import AmountField
from api.management import Acting, ManagementView
from api.paging import PAGE, PAGE_PARAMETERS, PagedAnswer, read_page
from billing.documents.closed_months import find_month, months_of
from billing.documents.closing import issue_receipts
from billing.documents.lookup import find_document
from billing.documents.periods import InvalidPeriodError, Month, month_of, parse_month_begun
from billing.documents.statement import Statement, write_statement
from billing.models import Document
from billing.money import NANOS_PER_CENT, format_usd
from pages.documents import machine
from pages.documents.files import document_pdf, statement_pdf
from pages.documents.pdf import DocumentTooLongError

MONTH_PLACE = re.compile(r"[0-9]{4}-[0-9]{2}")


class TooLongForPdfError(APIException):
    status_code = 413
    default_code = "document_too_long"


class DocumentShown(serializers.Serializer[Any]):
    id = serializers.CharField(help_text="Its number.")
    kind = serializers.ChoiceField(choices=Document.Kind.choices)
    month = serializers.CharField(allow_null=True, help_text="Such as 2026-10; null for a receipt.")
    issued_at = serializers.DateTimeField()
    currency = serializers.CharField()
    net = AmountField()
    tax = AmountField()
    gross = AmountField()


class DocumentList(PagedAnswer):
    data = DocumentShown(many=True)  # type: ignore[assignment]  # The envelope's name is also one of DRF's own.


class DocumentAnswer(serializers.Serializer[Any]):
    data = serializers.DictField(help_text="As the file in the console.")  # type: ignore[assignment]  # DRF's own name


class StatementMonth(serializers.Serializer[Any]):
    id = serializers.CharField(help_text="The month, such as 2026-10.")
    is_closed = serializers.BooleanField()


class StatementList(PagedAnswer):
    data = StatementMonth(many=True)  # type: ignore[assignment]  # The envelope's name is also one of DRF's own.


PDF_ANSWER = {(200, "application/pdf"): OpenApiTypes.BINARY}


class DocumentsView(ManagementView):
    needs = {"GET": Permission.SEE_BILLING}
    takes = PAGE | {"kind"}

    @extend_schema(
        operation_id="list_documents",
        responses=DocumentList,
        parameters=[*PAGE_PARAMETERS, OpenApiParameter("kind", str, enum=Document.Kind.values)],
    )
    def get(self, request: Request) -> Response:
        """Invoices, credit notes and receipts of payments, newest first."""
        organization = self.acting(request).organization
        issue_receipts(organization)
        found = organization.documents.select_related("closed_month")
        if (kind := request.query_params.get("kind")) is not None:
            if kind not in Document.Kind.values:
                raise ValidationError({"kind": [f"One of {', '.join(Document.Kind.values)}."]})
            found = found.filter(kind=kind)
        return Response(read_page(request, "documents").of(found, lambda rows: [_show(row) for row in rows]))


class OneDocumentView(ManagementView):
    needs = {"GET": Permission.SEE_BILLING}

    @extend_schema(operation_id="get_document", responses=DocumentAnswer)
    def get(self, request: Request, number: str) -> Response:
        """One document with its lines, by its number, such as INV-000007."""
        return Response({"data": machine.document_body(_find(self.acting(request), number))})


class DocumentPdfView(ManagementView):
    needs = {"GET": Permission.SEE_BILLING}

    @extend_schema(operation_id="get_document_pdf", responses=PDF_ANSWER)
    def get(self, request: Request, number: str) -> HttpResponse:
        """The same as PDF."""
        document = _find(self.acting(request), number)
        try:
            return HttpResponse(document_pdf(document), content_type="application/pdf")
        except DocumentTooLongError as error:
            raise TooLongForPdfError(str(error)) from None


class StatementsView(ManagementView):
    needs = {"GET": Permission.SEE_BILLING}
    takes = PAGE

    @extend_schema(operation_id="list_statements", responses=StatementList, parameters=PAGE_PARAMETERS)
    def get(self, request: Request) -> Response:
        """The months that there is a statement of, newest first."""
        organization = self.acting(request).organization
        page = read_page(request, "statements", places=MONTH_PLACE)
        months = months_of(organization, last=month_of(timezone.now()))
        older = [month for month in months if page.place is None or str(month) < page.place]
        closed = set(organization.closed_months.values_list("month", flat=True))
        return Response(
            page.cut(older, str, lambda kept: [{"id": str(month), "is_closed": str(month) in closed} for month in kept])
        )


class OneStatementView(ManagementView):
    needs = {"GET": Permission.SEE_BILLING}

    @extend_schema(operation_id="get_statement", responses=DocumentAnswer)
    def get(self, request: Request, month: str) -> Response:
        """The ledger of a month, such as 2026-10: usage summed by day and model, and every other posting."""
        period, written, is_closed = _write(self.acting(request).organization, month)
        return Response({"data": machine.statement_body(written, period, is_closed=is_closed)})


class StatementPdfView(ManagementView):
    needs = {"GET": Permission.SEE_BILLING}

    @extend_schema(operation_id="get_statement_pdf", responses=PDF_ANSWER)
    def get(self, request: Request, month: str) -> HttpResponse:
        """The same as PDF."""
        organization = self.acting(request).organization
        period, written, is_closed = _write(organization, month)
        try:
            body = statement_pdf(organization, written, period, is_closed=is_closed)
        except DocumentTooLongError as error:
            raise TooLongForPdfError(str(error)) from None
        return HttpResponse(body, content_type="application/pdf")


def _find(acting: Acting, number: str) -> Document:
    document = find_document(acting.organization, number)
    if document is None:
        raise Http404
    return document


def _write(organization: Organization, text: str) -> tuple[Month, Statement, bool]:
    try:
        month = parse_month_begun(text, now=timezone.now())
    except InvalidPeriodError:
        raise Http404 from None
    posted, is_closed = find_month(organization, month)
    return month, write_statement(organization, posted), is_closed


def _show(document: Document) -> dict[str, Any]:
    return {
        "id": document.label,
        "kind": document.kind,
        "month": document.closed_month.month if document.closed_month else None,
        "issued_at": document.issued_at,
        "currency": "USD",
        "net": format_usd(document.net_cents * NANOS_PER_CENT),
        "tax": format_usd(document.tax_cents * NANOS_PER_CENT),
        "gross": format_usd(document.gross_cents * NANOS_PER_CENT),
    }
