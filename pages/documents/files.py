"""Documents and statements as PDF, for whoever asks: a page or a program."""

from django.conf import settings

from accounts.models import Organization
from billing.documents.periods import Month
from billing.documents.statement import Statement
from billing.models import Document
from pages.documents.content import describe_document
from pages.documents.electronic import attach_xml, can_be_electronic, invoice_xml
from pages.documents.pdf import render_pdf
from pages.documents.statement_content import describe_statement


def document_pdf(document: Document) -> bytes:
    """Return the PDF, with EN 16931 XML in it where the settings ask for that. Raises DocumentTooLongError."""
    if settings.ELECTRONIC_INVOICES and can_be_electronic(document):
        body = render_pdf("document", describe_document(document), is_archival=True)
        return attach_xml(body, invoice_xml(document))
    return render_pdf("document", describe_document(document))


def statement_pdf(organization: Organization, statement: Statement, month: Month, *, is_closed: bool) -> bytes:
    """Return the PDF. Raises DocumentTooLongError."""
    return render_pdf("statement", describe_statement(organization, statement, month, is_closed=is_closed))
