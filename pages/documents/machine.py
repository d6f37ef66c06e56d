"""Documents and statements for programs: every amount a decimal string of US dollars, exact."""

from collections.abc import Iterator
from typing import Any

from billing.documents.periods import Month, parse_month
from billing.documents.statement import Statement
from billing.documents.tax import NANOS_PER_CENT
from billing.models import Document, DocumentLine
from billing.money import format_usd

LINE_COLUMNS = (
    "document",
    "position",
    "kind",
    "description",
    "model",
    "component",
    "price_version_id",
    "prompt_tokens_from",
    "price_picos_per_unit",
    "factor_ppm",
    "quantity",
    "requests",
    "late",
    "amount_usd",
)
STATEMENT_COLUMNS = (
    "day",
    "kind",
    "model",
    "count",
    "transaction_id",
    "posted_at",
    "reason",
    "amount_usd",
    "balance_at_end_of_day_usd",
)


def document_body(document: Document) -> dict[str, Any]:
    """Return a document as JSON has it."""
    month = parse_month(document.closed_month.month) if document.closed_month else None
    return {
        "number": document.label,
        "kind": document.kind,
        "issued_at": document.issued_at.isoformat(),
        "currency": "USD",
        "period": _period(month) if month else None,
        "corrects": document.corrects.label if document.corrects else None,
        "payment_transaction_id": document.payment_id,
        "seller": document.seller,
        "customer": document.customer,
        "lines": [dict(zip(LINE_COLUMNS[1:], _line(line), strict=True)) for line in document.lines.all()],
        "charges": format_usd(document.charges_nanos),
        "promotional_credit": format_usd(document.promotional_nanos),
        "net_exact": format_usd(document.net_nanos),
        "net": _cents(document.net_cents),
        "tax_rate_ppm": document.tax_rate_ppm,
        "tax_note": document.tax_note,
        "tax": _cents(document.tax_cents),
        "gross": _cents(document.gross_cents),
    }


def document_rows(document: Document) -> Iterator[list[Any]]:
    """Yield the lines of a document as CSV has them, under LINE_COLUMNS."""
    for line in document.lines.all():
        yield [document.label, *_line(line)]


def statement_body(statement: Statement, month: Month, *, is_closed: bool) -> dict[str, Any]:
    """Return a statement as JSON has it."""
    return {
        "organization": statement.organization.slug,
        "period": _period(month),
        "is_closed": is_closed,
        "currency": "USD",
        "opening_balance": format_usd(statement.opening_nanos),
        "closing_balance": format_usd(statement.closing_nanos),
        "totals": {total.kind: format_usd(total.amount_nanos) for total in statement.totals},
        "rows": [dict(zip(STATEMENT_COLUMNS, row, strict=True)) for row in statement_rows(statement)],
    }


def statement_rows(statement: Statement) -> Iterator[list[Any]]:
    """Yield the rows of a statement as CSV has them, under STATEMENT_COLUMNS."""
    for day in statement.days:
        for row in day.rows:
            yield [
                row.day.isoformat(),
                row.kind,
                row.model_id,
                row.count,
                row.transaction_id,
                row.posted_at.isoformat() if row.posted_at else None,
                row.reason,
                format_usd(row.amount_nanos),
                format_usd(day.balance_nanos),
            ]


def _line(line: DocumentLine) -> list[Any]:
    return [
        line.position,
        line.kind,
        line.description,
        line.model_id,
        line.component,
        line.price_version_id,
        line.prompt_tokens_from,
        line.picos_per_unit,
        line.factor_ppm,
        line.quantity,
        line.count,
        line.is_late,
        format_usd(line.amount_nanos),
    ]


def _period(month: Month) -> dict[str, str]:
    return {"begins": month.begins.isoformat(), "ends": month.ends.isoformat()}


def _cents(amount: int) -> str:
    return format_usd(amount * NANOS_PER_CENT)
