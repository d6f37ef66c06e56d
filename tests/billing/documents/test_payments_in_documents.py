"""Payments of every ending in a month that is closed: discounted, free, taken back, disputed and reinstated."""

import pytest
from pytest_django import Settings

from billing.documents.closed_months import find_month
from billing.documents.closing import issue_receipts
from billing.documents.statement import write_statement
from billing.documents.tax import NANOS_PER_CENT
from billing.models import Document
from billing.payments.events import apply_event
from tests.billing.documents.months import OCTOBER, SEPTEMBER, Customer, assert_books_hold, at, sell
from tests.billing.ledger_factory import USD, account_balances
from tests.billing.payments.payment_factory import buy, order, paid, refunded, reinstated, withdrawn
from tests.support.past import posted_at

pytestmark = pytest.mark.django_db


def test_only_payments_that_brought_money_have_a_receipt() -> None:
    customer = Customer()
    with posted_at(at(10, 1)):
        buy(customer.organization)
        for cents in (0, 800):
            top_up = order(customer.organization)
            apply_event(paid(top_up, paid_nanos=cents * 10_000_000))
    assert issue_receipts() == 2
    assert issue_receipts() == 0
    assert list(Document.objects.order_by("number").values_list("gross_cents", flat=True)) == [1000, 800]
    assert_books_hold()


def test_a_payment_that_is_taken_back_is_on_the_statement_and_bills_nothing() -> None:
    customer, version = Customer(), sell()
    customer.give(USD, at(9, 1), "promotional")
    with posted_at(at(9, 1)):
        top_up = buy(customer.organization)
    customer.use(version, at(9, 2), input_tokens=100_000, output_tokens=0)
    with posted_at(at(9, 3)):
        apply_event(refunded(top_up, 4))
    [september] = customer.close(SEPTEMBER)
    posted, _ = find_month(customer.organization, SEPTEMBER)
    kinds = {row.kind: row.amount_nanos for row in write_statement(customer.organization, posted).rows}
    assert kinds["reversal"] == -4 * USD
    assert september.charges_nanos == 300_000_000
    with posted_at(at(10, 3)):
        apply_event(withdrawn(top_up, 6))
        apply_event(reinstated(top_up, 6))
    customer.use(version, at(10, 4), input_tokens=100_000, output_tokens=0)
    customer.close(OCTOBER)
    assert_books_hold()


def test_the_tax_of_two_credit_notes_pays_one_debt_once(settings: Settings) -> None:
    """Both are posted together, and what a dispute has left owed is less than the two give back."""
    settings.TAX_RATES_PPM = {"*": 190_000}
    customer, version = Customer(), sell()
    with posted_at(at(8, 1)):
        top_up = buy(customer.organization, 20)
    customer.use(version, at(8, 2), input_tokens=1_666_667, output_tokens=0)
    customer.use(version, at(9, 2), input_tokens=1_666_667, output_tokens=0)
    customer.close(SEPTEMBER)
    for event in customer.events:
        customer.refund(at(10, 2), event=event)
    with posted_at(at(10, 3)):
        apply_event(withdrawn(top_up, 19))
    customer.give(2 * USD, at(10, 4))
    before = account_balances(customer.organization)
    notes = customer.close(OCTOBER)
    taxes = [note.tax_cents * NANOS_PER_CENT for note in notes]
    assert [note.kind for note in notes] == ["credit_note", "credit_note"]
    assert 0 < -before["receivable"] < min(taxes)
    after = account_balances(customer.organization)
    assert after == {"prepaid": before["prepaid"] + sum(taxes) + before["receivable"]}
    assert_books_hold()
