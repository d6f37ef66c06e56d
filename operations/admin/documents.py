"""Invoices, credit notes and payment receipts, to look at and to fetch as PDF. Closed and never edited."""

from typing import Any

from django.conf import settings
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from billing.models import Document, DocumentLine
from operations.admin.base import ReadOnlyAdmin, ReadOnlyInline, detail_action, usd_column
from pages.documents.content import describe_document, describe_party
from pages.documents.electronic import attach_xml, can_be_electronic, invoice_xml
from pages.documents.pdf import DocumentTooLongError, render_pdf
from pages.templatetags.amounts import cents_usd


class DocumentLineInline(ReadOnlyInline):
    model = DocumentLine
    fields = ["position", "kind", "description", "model_id", "component", "quantity", "count", "amount"]
    readonly_fields = ["amount"]
    per_page = 100
    amount = usd_column("amount_nanos", "Amount")


@admin.register(Document)
class DocumentAdmin(ReadOnlyAdmin):
    list_display = ["label", "kind", "organization", "month", "net", "tax", "gross", "issued_at"]
    list_display_links = ["label"]
    list_filter = ["kind"]
    list_select_related = ["organization", "closed_month"]
    search_fields = ["=organization__slug", "=closed_month__month", "=number"]
    search_help_text = "A number (42 for INV-000042), the slug of an organization, or a month (2026-11)."
    ordering = ["-id"]
    inlines = [DocumentLineInline]
    actions_detail = ["pdf"]
    fields = ["label", "kind", "organization", "month", "issued_at", "net", "tax", "gross", "tax_note"]
    fields += ["corrects", "payment", "tax_transaction", "from_whom", "to_whom"]
    readonly_fields = ["label", "month", "net", "tax", "gross", "from_whom", "to_whom"]

    @admin.display(description="Number", ordering="id")
    def label(self, document: Document) -> str:
        return document.label

    @admin.display(description="Month")
    def month(self, document: Document) -> str:
        return document.closed_month.month if document.closed_month else ""

    @admin.display(description="Net", ordering="net_cents")
    def net(self, document: Document) -> str:
        return cents_usd(document.net_cents)

    @admin.display(description="Tax")
    def tax(self, document: Document) -> str:
        return f"{cents_usd(document.tax_cents)} ({document.tax_rate_ppm / 10_000:g} %)"

    @admin.display(description="Gross", ordering="gross_cents")
    def gross(self, document: Document) -> str:
        return cents_usd(document.gross_cents)

    @admin.display(description="From")
    def from_whom(self, document: Document) -> SafeString:
        return _party(describe_party(document.seller))

    @admin.display(description="To")
    def to_whom(self, document: Document) -> SafeString:
        return _party(describe_party(document.customer))

    @detail_action("PDF", permission="billing.view_document", url_path="pdf")
    def pdf(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """The file that the customer gets, to the byte."""
        document: Document = self.row_or_404(request, object_id)
        if not self.has_view_permission(request, document):
            raise PermissionDenied
        try:
            if settings.ELECTRONIC_INVOICES and can_be_electronic(document):
                body = attach_xml(
                    render_pdf("document", describe_document(document), is_archival=True), invoice_xml(document)
                )
            else:
                body = render_pdf("document", describe_document(document))
        except DocumentTooLongError as error:
            return HttpResponse(str(error), status=422, content_type="text/plain")
        name = f'attachment; filename="{document.label}.pdf"'
        return HttpResponse(body, content_type="application/pdf", headers={"Content-Disposition": name})


def _party(party: dict[str, Any]) -> SafeString:
    texts = [party["name"], *party["lines"], party["tax_id"]]
    return format_html("{}", " · ".join(text for text in texts if text))
