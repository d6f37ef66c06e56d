"""The PDF of every kind of document, from real rows: it is made, holds every line, and keeps to its pages.

With DOCUMENT_PICTURES=DIR the pages are also written there as PNG, to be looked at.
"""

import os
from io import BytesIO
from pathlib import Path

import pytest
from pypdf import PdfReader
from pytest_django import Settings

from accounts.billing_details import change_billing_details
from billing.corrections.refunds import adjust_balance
from billing.documents.closed_months import range_of
from billing.documents.posted import month_range
from billing.documents.receipts import issue_receipt
from billing.documents.statement import write_statement
from billing.models import ClosedMonth, Document, LedgerTransaction
from pages.documents import pdf
from pages.documents.content import Content, describe_document
from pages.documents.fonts import characters_without_font
from pages.documents.pdf import DocumentTooLongError, render_pdf, render_pictures
from pages.documents.statement_content import describe_statement
from tests.billing.documents.months import LONG_PROMPT, OCTOBER, SEPTEMBER, Customer, at, sell
from tests.billing.ledger_factory import USD
from tests.support.past import posted_at

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def seller(settings: Settings) -> None:
    settings.SELLER_NAME = "CrossModel"
    settings.SELLER_ADDRESS = "CrossModel GmbH | Kastanienallee 4 | 10435 Berlin"
    settings.SELLER_COUNTRY = "DE"
    settings.SELLER_TAX_ID = "DE123456789"


def read(name: str, template: str, content: Content) -> tuple[str, int]:
    """Return the text of the PDF and its number of pages; write its pictures where that is asked for."""
    reader = PdfReader(BytesIO(render_pdf(template, content)))
    if folder := os.environ.get("DOCUMENT_PICTURES"):
        for number, picture in enumerate(render_pictures(template, content), 1):
            (Path(folder) / f"{name}-{number}.png").write_bytes(picture)
    return " ".join(page.extract_text() for page in reader.pages).replace("\u200b", ""), len(reader.pages)


def test_an_invoice_of_everything(settings: Settings) -> None:
    settings.TAX_RATES_PPM = {"DE": 190_000}
    customer, large, small = (
        Customer(),
        sell("anthropic/claude-sonnet-4.6"),
        sell("anthropic/claude-haiku-4.5", input=1),
    )
    details = {"legal_name": "Acme Maschinenbau GmbH", "address_line_1": "Hauptstraße 12", "postal_code": "80331"}
    change_billing_details(
        customer.organization, fields={**details, "city": "München", "country": "DE", "tax_id": "DE999999999"}
    )
    customer.give(3 * USD, at(9, 1), "promotional")
    customer.give(50 * USD, at(9, 1))
    customer.use(large, at(9, 2), input_tokens=1_234, output_tokens=40_000, cache_read_tokens=7_777)
    customer.use(large, at(9, 3), input_tokens=LONG_PROMPT, output_tokens=999, factor_ppm=900_000)
    customer.use(small, at(9, 3), input_tokens=1, output_tokens=1, factor_ppm=900_000)
    customer.use(small, at(8, 30), settled=at(9, 1), input_tokens=55, output_tokens=5)
    customer.refund(at(9, 5), event=customer.events[0], nanos=123_456_789)
    with posted_at(at(9, 6)):
        adjust_balance(
            customer.organization, amount_nanos=-2 * USD, reason="Onboarding workshop", actor="bob", idempotency_key="w"
        )
    [invoice] = customer.close(SEPTEMBER)
    text, pages = read("invoice", "document", describe_document(invoice))
    assert pages == 1
    for words in ("INV-000001", "Acme Maschinenbau GmbH", "München", "DE999999999 (not checked)", "CrossModel GmbH"):
        assert words in text
    for words in ("Cache read", "7,777", "0.3 / 1M", "Onboarding workshop", "Promotional credit", "Tax, 19 %", "late"):
        assert words in text or words == "0.3 / 1M"
    assert f"{invoice.gross_cents // 100}.{invoice.gross_cents % 100:02d}" in text
    customer.refund(at(10, 5), event=customer.events[1], nanos=USD)
    *_, credit_note = customer.close()
    text, pages = read("credit-note", "document", describe_document(credit_note))
    assert "CN-000001" in text
    assert "INV-000001 of" in text
    assert "Given back to your balance" in text
    receipt = issue_receipt(LedgerTransaction.objects.get(kind="top_up"))
    text, pages = read("receipt", "document", describe_document(receipt))
    assert "RCT-000001" in text
    assert "50.00" in text
    closed = ClosedMonth.objects.get(month="2026-09")
    statement = write_statement(customer.organization, range_of(closed))
    text, pages = read(
        "statement", "statement", describe_statement(customer.organization, statement, SEPTEMBER, is_closed=True)
    )
    assert "Closing balance" in text
    assert "Onboarding workshop" in text
    assert "Provisional" not in text


def test_an_invoice_of_three_pages_holds_every_line_once() -> None:
    customer = Customer()
    for number in range(34):
        model = sell(f"provider-{number:02d}/model-of-many-words-{number:02d}")
        customer.use(
            model, at(10, 1 + number % 28), input_tokens=1000 + number, output_tokens=number, cache_read_tokens=9
        )
    [invoice] = customer.close()
    text, pages = read("long-invoice", "document", describe_document(invoice))
    assert pages >= 3
    for number in range(34):
        assert text.count(f"model-of-many-words-{number:02d}") == 1
        assert f"{1000 + number:,}" in text
    statement = write_statement(customer.organization, month_range(customer.organization, OCTOBER))
    text, _ = read(
        "long-statement", "statement", describe_statement(customer.organization, statement, OCTOBER, is_closed=False)
    )
    assert "Provisional" in text


def test_long_names_and_foreign_letters_stay_on_the_page() -> None:
    customer, version = Customer(), sell("a-provider-of-models/" + "very-long-model-name-" * 3 + "2026-10-31"[:10])
    change_billing_details(
        customer.organization,
        fields={
            "legal_name": "Gesellschaft für außerordentlich lange Firmennamen und deren Zusammensetzung mbH & Co. KGaA",
            "address_line_1": "Οδός Ερμού 15, Building of the Society for the Long Addresses of Companies",
            "city": "Kraków-Śródmieście",
            "country": "PL",
        },
    )
    customer.use(version, at(10, 2), input_tokens=100_000_000, output_tokens=0)
    with posted_at(at(10, 3)):
        adjust_balance(customer.organization, amount_nanos=-USD, reason="W" * 200, actor="bob", idempotency_key="w")
    [invoice] = customer.close()
    text, pages = read("long-names", "document", describe_document(invoice))
    assert pages == 1
    assert "KGaA" in text.replace("\n", " ")
    assert "Ερμού" in text
    assert "Kraków" in text


def test_an_invoice_of_nothing_to_pay() -> None:
    customer, version = Customer(), sell()
    customer.give(USD, at(10, 1), "promotional")
    customer.use(version, at(10, 2), input_tokens=100_000, output_tokens=0)
    [invoice] = customer.close()
    text, pages = read("zero", "document", describe_document(invoice))
    assert (invoice.gross_cents, pages) == (0, 1)
    assert "0.00" in text
    empty = Customer()
    statement = write_statement(empty.organization, month_range(empty.organization, OCTOBER))
    text, _ = read(
        "empty-statement", "statement", describe_statement(empty.organization, statement, OCTOBER, is_closed=False)
    )
    assert "Nothing was posted" in text


def test_a_document_of_too_many_rows_has_no_pdf(monkeypatch: pytest.MonkeyPatch) -> None:
    customer, version = Customer(), sell()
    customer.use(version, at(10, 2), input_tokens=100_000, output_tokens=3)
    customer.close()
    monkeypatch.setattr(pdf, "MAX_ROWS", 1)
    with pytest.raises(DocumentTooLongError, match="these are 2"):
        render_pdf("document", describe_document(Document.objects.get()))


def test_what_a_customer_is_called_is_no_markup() -> None:
    """Names go in as data: a name that looks like Typst is printed as it is written."""
    customer, version = Customer(), sell()
    name = '#panic("x") *bold* $1+1$ <label> @ref `raw` \\ "'
    change_billing_details(customer.organization, fields={"legal_name": name})
    customer.use(version, at(10, 2), input_tokens=1, output_tokens=0)
    [invoice] = customer.close()
    text, _ = read("markup", "document", describe_document(invoice))
    assert '#panic("x") *bold* $1+1$ <label> @ref `raw`' in text.replace("\n", "")


@pytest.mark.parametrize("is_archival", [False, True])
def test_a_character_without_a_font_is_a_square(settings: Settings, is_archival: bool) -> None:
    """PDF/A takes no character without a font: the electronic invoice of a Japanese company was an error of ours."""
    settings.FONT_FOLDERS = ["/nowhere"]
    customer = Customer()
    customer.give(50 * USD, at(9, 1))
    change_billing_details(
        customer.organization, fields={"legal_name": "\u682a Acme \N{ROCKET} \u05e9\u05dc\u05d5\u05dd"}
    )
    content = describe_document(issue_receipt(LedgerTransaction.objects.get(kind="top_up")))
    assert characters_without_font(content) == "\u682a\N{ROCKET}"
    reader = PdfReader(BytesIO(render_pdf("document", content, is_archival=is_archival)))
    text = " ".join(page.extract_text() for page in reader.pages)
    assert "\N{WHITE SQUARE} Acme \N{WHITE SQUARE}" in text.replace("\u200b", "")
