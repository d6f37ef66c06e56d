"""I12: each way in which documents can be wrong, forced past the triggers, is told by check_ledger."""

import pytest
from django.db import connection
from pytest_django import Settings

from billing.checks.documents import DOCUMENT_CHECKS
from billing.checks.invariant import run_checks
from billing.documents.receipts import issue_receipt
from billing.models import LedgerTransaction
from tests.billing.documents.months import Customer, assert_books_hold, at, sell
from tests.billing.ledger_factory import USD

pytestmark = pytest.mark.django_db

CORRUPTIONS = [
    ("UPDATE billing_document SET number = 9 WHERE kind = 'invoice' AND number = 2", "stands in place"),
    ("DELETE FROM billing_document WHERE kind = 'payment_receipt'", "has come to 1, and has 0"),
    ("UPDATE billing_documentseries SET last_number = last_number + 1 WHERE name = 'invoice'", "has come to"),
    ("UPDATE billing_document SET issued_at = now() - interval '1 year' WHERE number = 2", "before the number below"),
    ("UPDATE billing_documentline SET amount_nanos = amount_nanos + 1 WHERE kind = 'usage'", "lines"),
    ("DELETE FROM billing_documentline WHERE kind = 'promotional'", "lines"),
    ("UPDATE billing_document SET net_cents = net_cents + 1, gross_cents = gross_cents + 1", "are not"),
    ("UPDATE billing_document SET tax_cents = tax_cents + 1, gross_cents = gross_cents + 1", "of tax make"),
    ("UPDATE billing_document SET tax_rate_ppm = 200000 WHERE kind = 'invoice'", "of tax make"),
    (
        """WITH lines AS (UPDATE billing_documentline SET amount_nanos = amount_nanos + 1 WHERE kind = 'usage'
                RETURNING document_id)
            UPDATE billing_document SET net_nanos = net_nanos + 1, charges_nanos = charges_nanos + 1
            WHERE id IN (SELECT document_id FROM lines)""",
        "documents come to",
    ),
    ("UPDATE billing_closedmonth SET last_transaction_id = last_transaction_id - 1 WHERE month = '2026-09'", "I12"),
    ("UPDATE billing_closedmonth SET opening_nanos = opening_nanos + 1 WHERE month = '2026-10'", "the month before"),
    ("UPDATE billing_closedmonth SET closing_nanos = closing_nanos + 1 WHERE month = '2026-10'", "its entries say"),
    ("UPDATE billing_document SET tax_transaction_id = NULL WHERE kind = 'invoice'", "its transaction posts 0"),
    ("UPDATE billing_document SET charges_nanos = 1, net_nanos = 1 WHERE kind = 'payment_receipt'", "its payment"),
]


@pytest.fixture
def books(settings: Settings) -> None:
    settings.TAX_RATES_PPM = {"*": 190_000}
    customer, version = Customer(), sell()
    customer.give(USD, at(9, 1), "promotional")
    customer.give(90 * USD, at(9, 1))
    customer.use(version, at(9, 2), input_tokens=150_000, output_tokens=50_000)
    customer.use(version, at(10, 2), input_tokens=150_000, output_tokens=50_000)
    customer.refund(at(10, 3), event=customer.events[0], nanos=USD // 10)
    customer.close()
    issue_receipt(LedgerTransaction.objects.get(kind="top_up"))
    assert_books_hold()


@pytest.mark.parametrize(("sql", "told"), CORRUPTIONS)
@pytest.mark.usefixtures("books")
def test_i12_a_wrong_document_is_told(sql: str, told: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("SET LOCAL session_replication_role = replica")
        cursor.execute(sql)
        assert cursor.rowcount
        cursor.execute("SET LOCAL session_replication_role = origin")
    breaks = run_checks(DOCUMENT_CHECKS).breaks
    assert any(told in line for line in breaks), breaks
