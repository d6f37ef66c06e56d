"""What stands on a document, ready to be set: words and figures as texts. HTML and PDF show the same."""

from collections.abc import Sequence
from typing import Any

from accounts.countries import country_name
from billing.documents.periods import parse_month
from billing.documents.tax import format_rate
from billing.models import Document, DocumentLine, PriceComponent
from billing.pricing.cost import FACTOR_ONE_PPM
from pages.documents import figures

Content = dict[str, Any]
LineKind = DocumentLine.Kind

ROUNDING_RULE = (
    "Lines are exact, to the nano-dollar. Their sum is rounded once to the cent, half a cent up; tax is computed once"
    " from that net and rounded the same way."
)
OTHER_GROUP = "Corrections and adjustments"
LATE_NOTE = "Late: used or posted before this month, and settled or corrected in it."
TAX_ID_STATES = {"not_checked": "not checked", "valid": "checked", "invalid": "not valid"}


def describe_document(document: Document) -> Content:
    """Return what a closed document says. Amounts are US dollars."""
    lines = list(document.lines.all())
    decimals = figures.decimals_for(line.amount_nanos for line in lines)
    discount = [line for line in lines if line.kind == LineKind.PROMOTIONAL]
    content: Content = {
        "kind": document.get_kind_display(),
        "label": document.label,
        "issued": figures.day(document.issued_at),
        "facts": _facts(document),
        "seller": describe_party(document.seller),
        "customer": describe_party(document.customer),
        "groups": _groups([line for line in lines if line.kind != LineKind.PROMOTIONAL], decimals),
        "totals": _totals(document, discount, decimals),
        "headline": {"label": _headline(document), "amount": figures.cents(document.gross_cents)},
        "notes": _notes(document, lines),
        "currency": "USD",
    }
    return content


def _facts(document: Document) -> list[list[str]]:
    facts = [["Number", document.label], ["Date of issue", figures.day(document.issued_at)]]
    if document.closed_month is not None:
        month = parse_month(document.closed_month.month)
        facts.append(["Period", figures.month(month)])
    if document.corrects is not None:
        facts.append(["Corrects", f"{document.corrects.label} of {figures.day(document.corrects.issued_at)}"])
    if document.payment is not None:
        facts.append(["Date of payment", figures.day(document.payment.created_at)])
    return facts


def describe_party(party: dict[str, str]) -> Content:
    tax_id = party.get("tax_id", "")
    state = TAX_ID_STATES.get(party.get("tax_id_state", ""), "")
    lines = [line for line in party.get("address", "").splitlines() if line]
    if party.get("country"):
        lines.append(country_name(party["country"]))
    return {
        "name": party["name"],
        "lines": lines,
        "tax_id": f"Tax id {tax_id}" + (f" ({state})" if state else "") if tax_id else "",
    }


def _headline(document: Document) -> str:
    return {
        Document.Kind.INVOICE: "Paid from your prepaid balance",
        Document.Kind.CREDIT_NOTE: "Given back to your balance",
        Document.Kind.PAYMENT_RECEIPT: "Received, with thanks",
    }[Document.Kind(document.kind)]


def _groups(lines: Sequence[DocumentLine], decimals: int) -> list[Content]:
    """Return lines by model; what is no model's has a group without a name. Each group says what it comes to."""
    groups: dict[tuple[bool, str], list[DocumentLine]] = {}
    for line in lines:
        groups.setdefault((line.is_late and bool(line.model_id), line.model_id), []).append(line)
    return [
        {
            "name": model_id or ("" if members[0].kind == LineKind.PAYMENT else OTHER_GROUP),
            "is_late": is_late,
            "amount": figures.exact(sum(line.amount_nanos for line in members), decimals),
            "lines": [_line(line, decimals) for line in members],
        }
        for (is_late, model_id), members in groups.items()
    ]


def _line(line: DocumentLine, decimals: int) -> Content:
    return {
        "text": _text(line),
        "detail": _detail(line),
        "quantity": figures.count(line.quantity) if line.quantity is not None else "",
        "price": figures.published_price(line.component, line.picos_per_unit)
        if line.picos_per_unit is not None
        else "",
        "amount": figures.exact(line.amount_nanos, decimals),
    }


def _text(line: DocumentLine) -> str:
    if line.component:
        return str(PriceComponent.Component(line.component).label)
    if line.kind == LineKind.ADJUSTMENT and line.description:
        return f"Adjustment: {line.description}"
    if line.kind == LineKind.PAYMENT:
        return "Payment received"
    return str(LineKind(line.kind).label)


def _detail(line: DocumentLine) -> str:
    parts = []
    if line.kind == LineKind.PAYMENT:
        parts.append(line.description)
    if line.prompt_tokens_from:
        parts.append(f"prompts from {figures.count(line.prompt_tokens_from)} tokens")
    if line.factor_ppm is not None and line.factor_ppm != FACTOR_ONE_PPM:
        parts.append(f"price \N{MULTIPLICATION SIGN} {figures.factor(line.factor_ppm)}")
    if line.kind in (LineKind.REFUND, LineKind.CORRECTION, LineKind.RERATING, LineKind.ROUNDING) and line.count:
        parts.append(f"{figures.count(line.count)} request{'s' if line.count != 1 else ''}")
    if line.is_late and not line.model_id:
        parts.append("of earlier months")
    return ", ".join(parts)


def _totals(document: Document, discount: Sequence[DocumentLine], decimals: int) -> list[Content]:
    if document.kind == Document.Kind.PAYMENT_RECEIPT:
        return [_total("Total", figures.cents(document.gross_cents), is_strong=True)]
    totals = []
    if discount:
        totals.append(_total("Charges", figures.exact(document.charges_nanos, decimals)))
        totals += [_total("Promotional credit", figures.exact(line.amount_nanos, decimals)) for line in discount]
    totals.append(_total("Net", figures.cents(document.net_cents)))
    if document.tax_rate_ppm:
        totals.append(_total(f"Tax, {format_rate(document.tax_rate_ppm)}", figures.cents(document.tax_cents)))
    else:
        totals.append(_total("Tax", figures.cents(0)))
    return [*totals, _total("Total", figures.cents(document.gross_cents), is_strong=True)]


def _total(label: str, amount: str, *, is_strong: bool = False) -> Content:
    return {"label": label, "amount": amount, "is_strong": is_strong}


def _notes(document: Document, lines: Sequence[DocumentLine]) -> list[str]:
    notes = []
    if document.tax_note:
        notes.append(document.tax_note)
    if any(line.is_late for line in lines):
        notes.append(LATE_NOTE)
    if document.kind == Document.Kind.INVOICE:
        notes.append(
            "Nothing is left to pay: usage was taken from the balance as it was settled, and tax with this invoice."
        )
    if document.kind == Document.Kind.PAYMENT_RECEIPT:
        notes.append("A payment adds credit. What is used of it is invoiced, with any tax, at the end of each month.")
    else:
        notes.append(ROUNDING_RULE)
    return notes
