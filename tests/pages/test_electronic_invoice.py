"""Factur-X: the XML is valid by the library's schema, says what the invoice says, and is found again in the PDF."""

import pytest
from facturx import get_xml_from_pdf, xml_check_xsd
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree
from pytest_django import Settings

from accounts.billing_details import change_billing_details
from billing.documents.tax import round_to_cents
from billing.models import Document
from pages.documents.content import describe_document
from pages.documents.electronic import attach_xml, can_be_electronic, invoice_xml, share_cents
from pages.documents.pdf import render_pdf
from tests.billing.documents.months import SEPTEMBER, Customer, at, sell
from tests.billing.ledger_factory import USD

RAM = "{urn:un:unece:uncefact:data:standard:ReusableAggregateBusinessInformationEntity:100}"


@pytest.fixture
def documents(settings: Settings, db: None) -> list[Document]:
    settings.SELLER_ADDRESS, settings.SELLER_COUNTRY, settings.SELLER_TAX_ID = "Allee 4 | Berlin", "DE", "DE123456789"
    settings.TAX_RATES_PPM = {"DE": 190_000}
    customer, version = Customer(), sell("acme/large & <small>")
    details = {"legal_name": "Müller & Söhne <GmbH>", "city": "Bonn", "country": "DE", "tax_id": "DE999999999"}
    change_billing_details(customer.organization, fields=details)
    customer.give(USD, at(9, 1), "promotional")
    customer.give(90 * USD, at(9, 1))
    customer.use(version, at(9, 2), input_tokens=150_007, output_tokens=150_001)
    customer.use(sell("acme/small"), at(9, 3), input_tokens=1, output_tokens=2_001)
    customer.refund(at(9, 4), event=customer.events[1], nanos=7)
    [invoice] = customer.close(SEPTEMBER)
    customer.refund(at(10, 4), event=customer.events[0], nanos=USD)
    return [invoice, *customer.close()]


def figure(root: etree._Element, tag: str) -> str:
    return str(root.findall(f".//{RAM}{tag}")[-1].text)


def test_xml_is_valid_and_says_what_the_document_says(documents: list[Document]) -> None:
    assert [document.kind for document in documents] == ["invoice", "credit_note"]
    for document in documents:
        assert can_be_electronic(document)
        xml = invoice_xml(document)
        assert xml_check_xsd(xml, flavor="factur-x", level="en16931")
        root = etree.fromstring(xml)
        assert figure(root, "GrandTotalAmount") == f"{document.gross_cents / 100:.2f}"
        assert figure(root, "TaxTotalAmount") == f"{document.tax_cents / 100:.2f}"
        lines = [element.text for element in root.findall(f".//{RAM}SpecifiedTradeSettlementLineMonetarySummation/*")]
        total = sum(round(float(str(text)) * 100) for text in lines)
        assert f"{total / 100:.2f}" == figure(root, "LineTotalAmount")
        basis = total - round(float(figure(root, "AllowanceTotalAmount")) * 100)
        assert basis + round(float(figure(root, "ChargeTotalAmount")) * 100) == document.net_cents
    assert b"INV-000001" in invoice_xml(documents[1])


def test_the_pdf_carries_the_xml(documents: list[Document]) -> None:
    invoice = documents[0]
    pdf = render_pdf("document", describe_document(invoice), is_archival=True)
    name, xml = get_xml_from_pdf(attach_xml(pdf, invoice_xml(invoice)))
    assert name == "factur-x.xml"
    assert "Müller &amp; Söhne &lt;GmbH&gt;".encode() in xml


@given(st.lists(st.integers(-(10**12), 10**12), min_size=1, max_size=20))
def test_shared_cents_add_up_and_stay_close(nanos: list[int]) -> None:
    total = round_to_cents(abs(sum(nanos)))
    total = total if sum(nanos) >= 0 else -total
    cents = share_cents(nanos, total)
    assert sum(cents) == total
    assert all(abs(cent * 10_000_000 - amount) <= 10_000_000 for cent, amount in zip(cents, nanos, strict=True))


def test_without_countries_there_is_no_electronic_invoice(documents: list[Document]) -> None:
    invoice = documents[0]
    invoice.customer = {**invoice.customer, "country": ""}
    assert not can_be_electronic(invoice)
