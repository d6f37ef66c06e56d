"""Numbers under races: gap-free with the counter row, and not so with the maximum plus one."""

import threading
from functools import partial

import pytest
from django.db import IntegrityError, transaction

from billing.checks.books import Books
from billing.checks.documents import numbers_run_without_gaps
from billing.documents import invoices
from billing.documents.numbers import take_number
from billing.documents.receipts import issue_receipt, payments_without_receipt
from billing.models import Document, DocumentSeries, LedgerTransaction
from tests.billing.documents.months import Customer, assert_books_hold, at, sell
from tests.billing.ledger_factory import USD, make_organization
from tests.support.together import run_together

CUSTOMERS = 6
SECONDS = 30


def make_customers(count: int = CUSTOMERS) -> list[Customer]:
    version = sell()
    customers = [Customer(make_organization(f"Customer{number}")) for number in range(count)]
    for customer in customers:
        customer.use(version, at(10, 2), input_tokens=10, output_tokens=0)
    return customers


@pytest.mark.django_db(transaction=True)
def test_closings_at_once_number_without_gaps_and_without_doubles() -> None:
    customers = make_customers()
    assert run_together(*(customer.close for customer in customers for _ in range(2))) == []
    assert sorted(Document.objects.values_list("number", flat=True)) == list(range(1, CUSTOMERS + 1))
    assert_books_hold()


@pytest.mark.django_db(transaction=True)
def test_one_organization_closed_by_many_at_once_has_one_invoice() -> None:
    [customer] = make_customers(1)
    assert run_together(*[customer.close] * 5) == []
    assert Document.objects.count() == 1
    assert_books_hold()


@pytest.mark.django_db(transaction=True)
def test_the_maximum_plus_one_is_given_to_two_closings_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: with numbers taken so, the race above ends in a number that was given twice."""
    customers = make_customers(2)
    both_have_looked = threading.Barrier(2)

    def take_the_maximum_plus_one(series: str) -> int:
        latest = Document.objects.filter(kind=series).order_by("-number").first()
        both_have_looked.wait(SECONDS)
        return latest.number + 1 if latest else 1

    monkeypatch.setattr(invoices, "take_number", take_the_maximum_plus_one)
    [error] = run_together(*(customer.close for customer in customers))
    assert isinstance(error, IntegrityError)
    assert "document_number_once" in str(error)
    assert Document.objects.count() == 1  # One customer has no invoice.


@pytest.mark.django_db(transaction=True)
def test_a_number_that_is_rolled_back_is_free_again() -> None:
    class NoError(Exception):
        pass

    def take_and_fail() -> None:
        with transaction.atomic():
            assert take_number("invoice") == 1
            raise NoError

    for _ in range(3):
        with pytest.raises(NoError):
            take_and_fail()
    assert not DocumentSeries.objects.exists()
    with pytest.raises(RuntimeError):
        take_number("invoice")


@pytest.mark.django_db(transaction=True)
def test_a_sequence_would_leave_a_gap_that_check_ledger_tells() -> None:
    """Another control: what a rolled-back sequence leaves behind is a break."""
    [customer] = make_customers(1)
    with transaction.atomic():
        take_number("invoice")
    customer.close()
    assert numbers_run_without_gaps(Books()).breaks == [
        "invoice 2 stands in place 1",
        "series invoice has come to 2, and has 1 documents",
    ]


@pytest.mark.django_db(transaction=True)
def test_a_payment_has_one_receipt_however_many_ask_for_it() -> None:
    customer = Customer()
    customer.give(25 * USD, at(10, 1))
    customer.give(5 * USD, at(10, 1), "promotional")
    payment = LedgerTransaction.objects.get(kind="top_up")
    assert run_together(*[partial(issue_receipt, payment)] * 4) == []
    receipt = Document.objects.get()
    assert (receipt.label, receipt.net_nanos, receipt.gross_cents) == ("RCT-000001", 25 * USD, 2500)
    assert "manual" in receipt.lines.get().description
    assert payments_without_receipt() == []
    with pytest.raises(ValueError, match="top-up"):
        issue_receipt(LedgerTransaction.objects.get(kind="promotion"))
    assert_books_hold()
