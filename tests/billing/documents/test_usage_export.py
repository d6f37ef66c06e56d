"""The export holds what was billed, request by request; with it and the price list every invoice is recomputed."""

import csv
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from pytest_django import Settings

from accounts.models import ApiKey
from billing.documents.closed_months import find_month
from billing.documents.usage_export import FOCUS_COLUMNS, OWN_COLUMNS, export_usage
from billing.models import Document
from billing.request_id import parse_request_id
from tests.billing.documents.months import LONG_PROMPT, OCTOBER, SEPTEMBER, Customer, at, sell
from tests.billing.ledger_factory import USD, make_event, settle
from tests.support.past import posted_at
from tests.support.recomputation import recompute

pytestmark = pytest.mark.django_db


def export(customer: Customer, month: Any = OCTOBER, **values: Any) -> list[dict[str, str]]:
    posted, _ = find_month(customer.organization, month)
    text = b"".join(export_usage(customer.organization, posted, **values)).decode()
    return list(csv.DictReader(StringIO(text)))


def make_bills() -> Customer:
    customer, large = Customer(), sell()
    small = sell("acme/small", minimum_charge_nanos=7_777, input=333_333)
    customer.give(USD, at(9, 1), "promotional")
    customer.give(50 * USD, at(9, 1))
    for day in range(1, 9):
        customer.use(large, at(9, day), input_tokens=31 * day, output_tokens=day, cache_read_tokens=5)
        customer.use(small, at(9, day), input_tokens=day, output_tokens=0, factor_ppm=900_001)
    customer.use(large, at(9, 9), input_tokens=LONG_PROMPT, output_tokens=2, factor_ppm=1_100_000)
    customer.refund(at(9, 11), event=customer.events[0], nanos=5)
    customer.use(small, at(9, 29), settled=at(10, 2), input_tokens=70_000, output_tokens=1)
    customer.use(large, at(10, 3), input_tokens=3, output_tokens=1, factor_ppm=0)
    customer.refund(at(10, 11), event=customer.events[2], nanos=5)
    return customer


def test_a_customer_recomputes_every_invoice(tmp_path: Path, settings: Settings) -> None:
    settings.TAX_RATES_PPM = {"*": 190_000}
    customer = make_bills()
    invoices = [document for document in customer.close() if document.kind == "invoice"]
    assert len(invoices) == 2
    for invoice in invoices:
        answer = recompute(tmp_path, invoice)
        assert answer.stderr == ""
        assert answer.stdout.startswith(f"{invoice.label} is right: ")


# The negative control of the script: a figure that is changed in any of the files is told.
@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('"quantity": 186', '"quantity": 187', "quantities differ"),
        ('"gross": "', '"gross": "9', "totals differ"),
        ('"picos_per_unit": 3000000}', '"picos_per_unit": 3000001}', "costs"),
        ("acme/small,", "acme/smaller,", "quantities differ"),
    ],
)
def test_a_wrong_figure_is_found(tmp_path: Path, old: str, new: str, told: str) -> None:
    customer, version = Customer(), sell()
    customer.use(version, at(10, 2), input_tokens=186, output_tokens=1_000_000)
    customer.use(sell("acme/small"), at(10, 2), input_tokens=1, output_tokens=1)
    [invoice] = customer.close()
    assert recompute(tmp_path, invoice).returncode == 0
    answer = recompute(tmp_path, invoice, **{old: new})
    assert answer.returncode == 1
    assert told in answer.stderr


def test_rows_are_what_was_billed_and_go_on_after_any_of_them() -> None:
    customer = make_bills()
    customer.close()
    rows = export(customer)
    assert list(rows[0]) == list(OWN_COLUMNS)
    assert [row["input_tokens"] for row in rows] == ["70000", "3"]  # The late one too; the free one too.
    assert [row["cost_nanos"] for row in rows] == [str(customer.events[-2].cost_nanos), "0"]
    assert rows[0]["admitted_at"] == "2026-09-29T12:00:00.000Z"
    assert export(customer, after=parse_request_id(rows[0]["request_id"])) == rows[1:]
    assert len(export(customer, SEPTEMBER)) == 17


def test_focus_columns_carry_the_same_cost() -> None:
    customer = make_bills()
    customer.close()
    rows = export(customer, SEPTEMBER, columns="focus", invoice="INV-000001", issuer="CrossModel")
    assert list(rows[0]) == list(FOCUS_COLUMNS)
    assert {row["InvoiceId"] for row in rows} == {"INV-000001"}
    assert {row["BillingPeriodEnd"] for row in rows} == {"2026-10-01T00:00:00.000Z"}
    total = sum(round(float(row["BilledCost"]) * 1e9) for row in rows)
    invoice = Document.objects.get(kind="invoice", number=1)
    assert total == invoice.charges_nanos + 5  # The refund of the month is on the invoice, not in its usage.
    dearer = next(row for row in rows if row["ConsumedQuantity"] == str(LONG_PROMPT + 2))
    assert float(dearer["ListCost"]) * 1.1 == pytest.approx(float(dearer["BilledCost"]))


def test_names_do_not_run_in_a_spreadsheet_and_strangers_keys_are_not_named() -> None:
    customer, version = Customer(), sell()
    ApiKey.objects.filter(pk=customer.key.pk).update(name="=cmd|' /C calc'!A0")
    customer.use(version, at(10, 2), input_tokens=1, output_tokens=0)
    assert export(customer)[0]["key_name"] == "'=cmd|' /C calc'!A0"
    other = Customer()
    with posted_at(at(10, 3)):
        values = {"price_version_id": version.pk, "language_model_id": version.language_model_id}
        moment = int(at(10, 3).timestamp() * 1000)
        settle(make_event(other.organization, 5, key_id=customer.key.pk, admitted_at_ms=moment, **values))
    assert export(other)[0]["key_name"] == ""


def test_an_export_that_is_left_early_frees_the_connection() -> None:
    customer, version = Customer(), sell()
    customer.use(version, at(10, 2), input_tokens=1, output_tokens=0)
    posted, _ = find_month(customer.organization, OCTOBER)
    rows = export_usage(customer.organization, posted)
    next(rows)
    rows.close()  # type: ignore[attr-defined]  # A generator.
    assert len(export(customer)) == 1
