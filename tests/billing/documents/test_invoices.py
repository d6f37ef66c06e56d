"""Invoices and credit notes: what they bill, what they give back, and that they say what the ledger says."""

from datetime import timedelta

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone
from pytest_django import Settings

from accounts.billing_details import change_billing_details, record_tax_id_check
from billing.corrections.refunds import adjust_balance
from billing.corrections.rerating import ReratingPlan, apply_rerating
from billing.documents import invoices
from billing.documents.drafts import DocumentError, Draft
from billing.documents.invoices import (
    MonthNotOverError,
    close_month,
    draft_month,
    find_unfinished_months,
    organizations_to_close,
)
from billing.documents.periods import month_of
from billing.models import ClosedMonth, CreditLot, Document, DocumentSeries, LanguageModel, LedgerTransaction
from tests.billing.documents.months import (
    LONG_PROMPT,
    OCTOBER,
    SEPTEMBER,
    Customer,
    assert_books_hold,
    at,
    lines_of,
    sell,
)
from tests.billing.ledger_factory import USD, entries_of
from tests.support.past import posted_at

pytestmark = pytest.mark.django_db
CENT = 10_000_000


def test_a_month_is_billed_by_model_and_component_less_promotional_credit() -> None:
    customer, large, small = Customer(), sell(), sell("acme/small", input=250_000, output=1_250_000)
    customer.give(USD, at(10, 1), "promotional")
    customer.give(50 * USD, at(10, 1))
    for day in (2, 3, 4):
        customer.use(large, at(10, day), input_tokens=100_000, output_tokens=40_000, cache_read_tokens=1_000)
    customer.use(small, at(10, 5), input_tokens=7, output_tokens=0)
    customer.use(large, at(10, 6), input_tokens=LONG_PROMPT, output_tokens=1)
    [invoice] = customer.close()
    assert (invoice.label, invoice.kind) == ("INV-000001", "invoice")
    assert lines_of(invoice) == [
        ("usage", "acme/large", "input", 300_000, 900_000_000),
        ("usage", "acme/large", "output", 120_000, 1_800_000_000),
        ("usage", "acme/large", "cache_read", 3_000, 900_000),
        ("usage", "acme/large", "input", LONG_PROMPT, 2 * 3_000 * LONG_PROMPT),
        ("usage", "acme/large", "output", 1, 30_000),
        ("usage", "acme/small", "input", 7, 1_750),
        ("promotional", "", "", None, -USD),
    ]
    assert [line.prompt_tokens_from for line in invoice.lines.all()] == [0, 0, 0, LONG_PROMPT, LONG_PROMPT, 0, 0]
    assert invoice.charges_nanos == sum(event.cost_nanos for event in customer.events)
    assert invoice.net_nanos == 51 * USD - customer.balance_nanos - USD
    assert (invoice.net_cents, invoice.tax_cents, invoice.gross_cents) == (290, 0, 290)
    assert not LedgerTransaction.objects.filter(kind="tax").exists()
    assert_books_hold()


def test_what_requests_cost_beyond_their_components_is_a_line_of_its_own() -> None:
    customer = Customer()
    version = sell(minimum_charge_nanos=1_000_000, input=1, output=1)
    for _ in range(3):
        customer.use(version, at(10, 2), input_tokens=1, output_tokens=1)
    [invoice] = customer.close()
    assert [line for line in lines_of(invoice) if line[4]] == [("rounding", "acme/large", "", None, 3_000_000)]
    assert_books_hold()


def test_a_discount_is_seen_in_its_lines() -> None:
    customer, version = Customer(), sell()
    customer.use(version, at(10, 2), input_tokens=1_000, output_tokens=0, factor_ppm=900_000)
    customer.use(version, at(10, 2), input_tokens=1_000, output_tokens=0)
    [invoice] = customer.close()
    assert [(line.factor_ppm, line.amount_nanos) for line in invoice.lines.all()] == [
        (900_000, 2_700_000),
        (1_000_000, 3_000_000),
    ]


def test_late_usage_is_billed_with_the_next_month_and_says_so() -> None:
    customer, version = Customer(), sell()
    customer.use(version, at(9, 30, 23), input_tokens=10, output_tokens=0)
    customer.use(version, at(9, 30, 23), settled=at(10, 1, 0), input_tokens=500, output_tokens=0)
    customer.use(version, at(10, 2), input_tokens=20, output_tokens=0)
    september, october = customer.close()
    assert [(line.quantity, line.is_late) for line in september.lines.all()] == [(10, False)]
    assert [(line.quantity, line.is_late) for line in october.lines.all()] == [(20, False), (500, True)]
    assert_books_hold()


def test_usage_that_settles_after_the_close_is_never_lost_between_months() -> None:
    """By ids, not by clocks: a clock that was put back posts into a month that is closed, and the next one has it."""
    customer, version = Customer(), sell()
    customer.use(version, at(9, 3), input_tokens=10, output_tokens=0)
    customer.close(SEPTEMBER)
    customer.use(version, at(9, 4), input_tokens=300, output_tokens=0)
    [october] = customer.close()
    assert [(line.quantity, line.is_late) for line in october.lines.all()] == [(300, True)]
    assert_books_hold()


def test_a_refund_in_its_month_lessens_the_invoice_and_later_makes_a_credit_note() -> None:
    customer, version = Customer(), sell()
    customer.give(10 * USD, at(9, 1))
    first = customer.use(version, at(9, 2), input_tokens=100_000, output_tokens=0)
    customer.refund(at(9, 3), nanos=first // 3)
    customer.use(version, at(9, 4), input_tokens=200_000, output_tokens=0)
    [september] = customer.close(SEPTEMBER)
    assert [line[0] for line in lines_of(september)] == ["usage", "refund"]
    assert september.net_nanos == 900_000_000 - first // 3
    customer.refund(at(10, 5), nanos=50_000_000)
    customer.use(version, at(10, 6), input_tokens=1, output_tokens=0)
    october, credit_note = customer.close()
    assert (october.kind, october.net_nanos) == ("invoice", 3_000)
    assert (credit_note.kind, credit_note.label, credit_note.corrects) == ("credit_note", "CN-000001", september)
    assert lines_of(credit_note) == [("refund", "", "", None, 50_000_000)]
    assert credit_note.gross_cents == 5
    assert_books_hold()


def test_promotional_credit_that_is_given_back_is_no_discount_any_more() -> None:
    customer, version = Customer(), sell()
    customer.give(USD, at(9, 1), "promotional")
    cost = customer.use(version, at(9, 2), input_tokens=100_000, output_tokens=0)
    [september] = customer.close(SEPTEMBER)
    assert (september.charges_nanos, september.promotional_nanos, september.net_nanos) == (cost, cost, 0)
    customer.refund(at(10, 2))
    [credit_note] = customer.close()
    assert (credit_note.charges_nanos, credit_note.net_nanos, credit_note.gross_cents) == (cost, 0, 0)
    assert [line[0] for line in lines_of(credit_note)] == ["refund", "promotional"]
    assert_books_hold()


def test_a_re_rating_over_two_months_is_divided_between_them() -> None:
    customer, wrong = Customer(), sell()
    customer.give(10 * USD, at(9, 1))
    customer.use(wrong, at(9, 20), input_tokens=100_000, output_tokens=0)
    customer.close(SEPTEMBER)
    customer.use(wrong, at(10, 2), input_tokens=200_000, output_tokens=0)
    model = LanguageModel.objects.get()
    right = sell(input=1_000_000)
    with posted_at(at(10, 20)):
        apply_rerating(
            ReratingPlan(model, right, SEPTEMBER.begins, at(10, 3)), actor="bob", reason="The price was wrong"
        )
    october, credit_note = customer.close()
    assert [(line[0], line[4]) for line in lines_of(october)] == [("usage", 600_000_000), ("rerating", -400_000_000)]
    assert (credit_note.corrects_id, credit_note.net_nanos) == (
        Document.objects.get(number=1, kind="invoice").pk,
        200_000_000,
    )
    assert_books_hold()


def test_a_re_rating_that_makes_an_earlier_month_dearer_is_billed_now_and_says_so() -> None:
    customer, wrong = Customer(), sell()
    customer.use(wrong, at(9, 20), input_tokens=100_000, output_tokens=0)
    customer.close(SEPTEMBER)
    right = sell(input=4_000_000)
    with posted_at(at(10, 20)):
        apply_rerating(
            ReratingPlan(LanguageModel.objects.get(), right, SEPTEMBER.begins, SEPTEMBER.ends),
            actor="bob",
            reason="Dearer",
        )
    [october] = customer.close()
    assert [(line.kind, line.is_late, line.amount_nanos) for line in october.lines.all()] == [
        ("rerating", True, 100_000_000)
    ]


def test_adjustments_are_lines_and_a_month_below_zero_is_a_credit_note() -> None:
    customer, version = Customer(), sell()
    customer.use(version, at(9, 3), input_tokens=10, output_tokens=0)
    with posted_at(at(10, 3)):
        for number, nanos in enumerate((-2 * CENT, 5 * CENT)):
            adjust_balance(
                customer.organization,
                amount_nanos=nanos,
                reason=f"Reason {number}",
                actor="bob",
                idempotency_key=f"{number}",
                lot_kind=CreditLot.Kind.PAID,
            )
    _, october = customer.close()
    assert (october.kind, october.corrects, october.net_nanos) == ("credit_note", None, 3 * CENT)
    assert [(line.description, line.amount_nanos) for line in october.lines.all()] == [
        ("Reason 0", -2 * CENT),
        ("Reason 1", 5 * CENT),
    ]
    assert_books_hold()


def test_a_month_without_charges_has_no_invoice_and_no_number_is_lost() -> None:
    customer, version = Customer(), sell()
    customer.give(USD, at(8, 1))
    customer.use(version, at(10, 2), input_tokens=10, output_tokens=0)
    [invoice] = customer.close()
    assert invoice.number == 1
    assert list(ClosedMonth.objects.order_by("month").values_list("month", flat=True)) == [
        "2026-08",
        "2026-09",
        "2026-10",
    ]
    assert find_unfinished_months(customer.organization, OCTOBER) == []
    assert_books_hold()


def test_tax_is_taken_from_paid_credit_once_and_given_back_with_a_credit_note(settings: Settings) -> None:
    settings.TAX_RATES_PPM = {"DE": 190_000, "*": 0}
    customer, version = Customer(), sell()
    change_billing_details(customer.organization, fields={"country": "DE", "legal_name": "Acme GmbH"})
    customer.give(USD, at(9, 1), "promotional")
    customer.give(10 * USD, at(9, 1))
    customer.use(version, at(9, 2), input_tokens=1_000_000 - 33, output_tokens=0)
    [invoice] = customer.close(SEPTEMBER)
    assert invoice.customer["name"] == "Acme GmbH"
    assert (invoice.net_cents, invoice.tax_cents, invoice.gross_cents) == (500, 95, 595)
    assert invoice.tax_transaction is not None
    assert entries_of(invoice.tax_transaction.pk) == {"prepaid": -95 * CENT, "tax_owed": 95 * CENT}
    settings.TAX_RATES_PPM = {"*": 250_000}  # What applies by now is nothing to a correction of what was.
    customer.refund(at(10, 2), nanos=USD)
    [credit_note] = customer.close()
    assert (credit_note.net_cents, credit_note.tax_rate_ppm, credit_note.tax_cents) == (100, 190_000, 19)
    assert credit_note.tax_transaction is not None
    assert entries_of(credit_note.tax_transaction.pk) == {"prepaid": 19 * CENT, "tax_owed": -19 * CENT}
    assert_books_hold()


def test_tax_that_paid_credit_does_not_cover_is_owed(settings: Settings) -> None:
    settings.TAX_RATES_PPM = {"*": 100_000}
    customer, version = Customer(), sell()
    customer.give(31 * CENT, at(10, 1))
    customer.use(version, at(10, 2), input_tokens=100_000, output_tokens=0)
    customer.give(USD, at(10, 20), "promotional")
    [invoice] = customer.close()
    assert invoice.tax_transaction is not None
    assert entries_of(invoice.tax_transaction.pk) == {
        "prepaid": -1 * CENT,
        "receivable": -2 * CENT,
        "tax_owed": 3 * CENT,
    }
    assert customer.balance_nanos == USD - 2 * CENT
    assert_books_hold()


def test_a_valid_tax_id_shifts_the_tax_and_one_that_nobody_checked_does_not(settings: Settings) -> None:
    settings.TAX_RATES_PPM = {"FR": 200_000}
    settings.REVERSE_CHARGE_COUNTRIES = ["FR"]
    customer, version = Customer(), sell()
    change_billing_details(customer.organization, fields={"country": "FR", "tax_id": "FR40303265045"})
    customer.use(version, at(9, 2), input_tokens=100_000, output_tokens=0)
    [september] = customer.close(SEPTEMBER)
    assert (september.tax_cents, september.tax_note, september.customer["tax_id_state"]) == (6, "", "not_checked")
    record_tax_id_check(customer.organization, tax_id="FR40303265045", is_valid=True, evidence="VIES, 2026-10-01")
    customer.use(version, at(10, 2), input_tokens=1_000_000, output_tokens=0)
    [october] = customer.close()
    assert october.tax_cents == 0
    assert october.tax_note.startswith("Reverse charge")
    change_billing_details(customer.organization, fields={"tax_id": "FR83404833048"})
    customer.organization.refresh_from_db()
    assert customer.organization.billing_details.tax_id_state == "not_checked"


def test_who_is_to_be_closed_is_told_by_the_first_transaction_of_each() -> None:
    """Of organizations that were new this month all transactions were looked through, at each look."""
    earlier, later = Customer(), Customer()
    for customer, moment in ((earlier, at(10, 31)), (later, at(11, 1)), (earlier, at(11, 2))):
        customer.give(USD, moment)
    assert list(organizations_to_close(OCTOBER)) == [earlier.organization]
    assert "Limit" in organizations_to_close(OCTOBER).explain()


def test_closing_again_changes_nothing() -> None:
    customer, version = Customer(), sell()
    customer.use(version, at(10, 2), input_tokens=10, output_tokens=0)
    assert len(customer.close()) == 1
    assert customer.close() == []
    assert Document.objects.count() == 1


def test_a_month_that_is_not_over_is_not_closed() -> None:
    customer, version = Customer(), sell()
    customer.use(version, at(10, 2), input_tokens=10, output_tokens=0)
    this_month = month_of(timezone.now())
    with pytest.raises(MonthNotOverError):
        close_month(customer.organization, this_month)
    assert Document.objects.count() == 1  # October's, which is over.


def test_a_closing_that_was_killed_midway_is_finished_by_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    customer, version = Customer(), sell()
    customer.use(version, at(10, 2), input_tokens=10, output_tokens=0)
    with monkeypatch.context() as broken:
        broken.setattr(invoices, "take_number", lambda series: (_ for _ in ()).throw(OSError("killed")))
        with pytest.raises(OSError, match="killed"):
            customer.close()
    assert ClosedMonth.objects.get().finished_at is None
    customer.use(version, at(10, 3), input_tokens=500, output_tokens=0)  # A clock put back: it comes too late.
    [invoice] = customer.close()
    assert [line[3] for line in lines_of(invoice)] == [10]
    assert invoice.number == 1
    assert_books_hold()


def test_a_document_that_would_not_be_the_ledger_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    customer, version = Customer(), sell()
    customer.use(version, at(10, 2), input_tokens=10, output_tokens=0)
    monkeypatch.setattr("billing.documents.drafts._usage_lines", lambda posted: [])
    with pytest.raises(DocumentError, match="the ledger says"):
        customer.close()
    assert not Document.objects.exists()


def test_a_draft_shows_what_closing_would_bill_and_writes_nothing() -> None:
    customer, version = Customer(), sell()
    cost = customer.use(version, at(10, 2), input_tokens=10, output_tokens=0)
    [draft] = draft_month(customer.organization, OCTOBER)
    assert draft.net_nanos == cost
    assert not draft.is_empty
    assert Draft().is_empty
    assert not ClosedMonth.objects.exists()
    assert not DocumentSeries.objects.exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda: Document.objects.update(gross_cents=1),
        lambda: Document.objects.get().lines.update(amount_nanos=1),
        lambda: Document.objects.get().lines.all().delete(),
        lambda: Document.objects.all().delete(),
        lambda: ClosedMonth.objects.update(closing_nanos=1),
        lambda: ClosedMonth.objects.update(finished_at=None),
        lambda: DocumentSeries.objects.update(last_number=7),
        lambda: DocumentSeries.objects.all().delete(),
    ],
)
def test_what_is_closed_cannot_be_changed(change: object) -> None:
    customer, version = Customer(), sell()
    customer.use(version, at(10, 2), input_tokens=10, output_tokens=0)
    customer.close()
    with pytest.raises(Exception) as refused, transaction.atomic():  # noqa: PT011  Django's own, for protected rows.
        change()  # type: ignore[operator]
    assert isinstance(refused.value, IntegrityError) or "Protected" in type(refused.value).__name__
    assert_books_hold()


def test_every_microsecond_belongs_to_one_invoice() -> None:
    customer, version = Customer(), sell()
    moments = [OCTOBER.begins - timedelta(microseconds=1), OCTOBER.begins, OCTOBER.ends - timedelta(microseconds=1)]
    for tokens, moment in enumerate(moments, 1):
        customer.use(version, moment, input_tokens=tokens, output_tokens=0)
    september, october = customer.close()
    assert [line[3] for line in lines_of(september)] == [1]
    assert [line[3] for line in lines_of(october)] == [5]
