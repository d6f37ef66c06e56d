"""What stands on a statement, ready to be set."""

from accounts.models import Organization
from billing.documents.parties import describe_customer, describe_seller
from billing.documents.periods import Month
from billing.documents.statement import Statement, StatementRow
from pages.documents import figures
from pages.documents.content import Content, describe_party

DETAIL_CHARACTERS = 160


def describe_statement(organization: Organization, statement: Statement, month: Month, *, is_closed: bool) -> Content:
    """Return what a statement says. Amounts are US dollars, exact."""
    rows = statement.rows
    balances = [statement.opening_nanos, statement.closing_nanos, *(day.balance_nanos for day in statement.days)]
    decimals = figures.decimals_for([*balances, *(row.amount_nanos for row in rows)])
    customer, _ = describe_customer(organization)
    closing = "Closing balance" if is_closed else "Balance so far"
    totals = [
        {"label": "Opening balance", "amount": figures.exact(statement.opening_nanos, decimals), "is_strong": False},
        *(
            {"label": total.label, "amount": figures.exact(total.amount_nanos, decimals), "is_strong": False}
            for total in statement.totals
        ),
        {"label": closing, "amount": figures.exact(statement.closing_nanos, decimals), "is_strong": True},
    ]
    notes = [
        "Every figure is the sum of postings in the ledger. Usage is summed by the day on which it was settled, UTC."
    ]
    if not is_closed:
        notes.insert(0, "This month is not closed: what is posted from now on is not on this statement yet.")
    return {
        "kind": "Statement",
        "label": month.name,
        "facts": [
            ["Period", figures.month(month)],
            ["State", "Closed" if is_closed else "Provisional"],
        ],
        "seller": describe_party(describe_seller()),
        "customer": describe_party(customer),
        "days": [
            {
                "day": figures.day(day.day),
                "balance": figures.exact(day.balance_nanos, decimals),
                "rows": [_row(row, decimals) for row in day.rows],
            }
            for day in statement.days
        ],
        "totals": totals,
        "headline": {"label": closing, "amount": figures.exact(statement.closing_nanos, decimals)},
        "notes": notes,
        "currency": "USD",
    }


def _row(row: StatementRow, decimals: int) -> Content:
    detail = row.reason[:DETAIL_CHARACTERS]
    if row.model_id:
        detail = f"{figures.count(row.count)} request{'s' if row.count != 1 else ''}"
    elif row.transaction_id is None:
        detail = f"{figures.count(row.count)} postings"
    return {"text": row.model_id or row.label, "detail": detail, "amount": figures.exact(row.amount_nanos, decimals)}
