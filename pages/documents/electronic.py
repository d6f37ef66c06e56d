"""Electronic invoices: PDF/A-3 that carries the invoice as EN 16931 XML (Factur-X, ZUGFeRD), where the settings ask.

Source: EN 16931-1 in the syntax of UN/CEFACT's Cross Industry Invoice, profile urn:cen.eu:en16931:2017. Its lines are
whole cents, ours are nano-dollars: each group of lines is one line there, and the cents of the net are shared out so
that they add up.
"""

from collections.abc import Sequence
from xml.sax.saxutils import escape

from billing.documents.periods import parse_month
from billing.documents.tax import NANOS_PER_CENT, round_to_cents
from billing.models import Document, DocumentLine
from pages.documents.content import OTHER_GROUP

PROFILE = "urn:cen.eu:en16931:2017"
INVOICE_CODE, CREDIT_NOTE_CODE = "380", "381"
STANDARD, REVERSE_CHARGE, EXEMPT = "S", "AE", "E"
PPM_PER_PERCENT = 10_000


def can_be_electronic(document: Document) -> bool:
    """Say whether a document has what the norm asks for: a net, and the countries of both parties."""
    is_bill = document.kind != Document.Kind.PAYMENT_RECEIPT
    return is_bill and bool(document.seller.get("country")) and bool(document.customer.get("country"))


def invoice_xml(document: Document) -> bytes:
    """Return an invoice or a credit note as EN 16931 XML. Ask can_be_electronic() first."""
    lines = list(document.lines.all())
    allowance = round_to_cents(max(0, document.promotional_nanos))
    charge = round_to_cents(max(0, -document.promotional_nanos))
    line_total = document.net_cents + allowance - charge
    groups = _groups([line for line in lines if line.kind != DocumentLine.Kind.PROMOTIONAL])
    cents = share_cents([nanos for _, nanos in groups], line_total)
    items = "".join(
        _line(number, name, amount, document)
        for number, ((name, _), amount) in enumerate(zip(groups, cents, strict=True), 1)
    )
    month = parse_month(document.closed_month.month) if document.closed_month else None
    period = f"<ram:BillingSpecifiedPeriod>{_date('StartDateTime', f'{month.begins:%Y%m%d}')}" if month else ""
    if month:
        period += f"{_date('EndDateTime', f'{month.last_day:%Y%m%d}')}</ram:BillingSpecifiedPeriod>"
    code = CREDIT_NOTE_CODE if document.kind == Document.Kind.CREDIT_NOTE else INVOICE_CODE
    reference = (
        f"<ram:InvoiceReferencedDocument>{_text('IssuerAssignedID', document.corrects.label)}"
        "</ram:InvoiceReferencedDocument>"
        if document.corrects
        else ""
    )
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<rsm:CrossIndustryInvoice xmlns:rsm="urn:un:unece:uncefact:data:standard:CrossIndustryInvoice:100"
 xmlns:ram="urn:un:unece:uncefact:data:standard:ReusableAggregateBusinessInformationEntity:100"
 xmlns:udt="urn:un:unece:uncefact:data:standard:UnqualifiedDataType:100">
<rsm:ExchangedDocumentContext><ram:GuidelineSpecifiedDocumentContextParameter>{_text("ID", PROFILE)}
</ram:GuidelineSpecifiedDocumentContextParameter></rsm:ExchangedDocumentContext>
<rsm:ExchangedDocument>{_text("ID", document.label)}{_text("TypeCode", code)}
{_date("IssueDateTime", f"{document.issued_at:%Y%m%d}")}</rsm:ExchangedDocument>
<rsm:SupplyChainTradeTransaction>{items}
<ram:ApplicableHeaderTradeAgreement>{_party("SellerTradeParty", document.seller)}
{_party("BuyerTradeParty", document.customer)}</ram:ApplicableHeaderTradeAgreement>
<ram:ApplicableHeaderTradeDelivery/>
<ram:ApplicableHeaderTradeSettlement>{_text("InvoiceCurrencyCode", "USD")}
{_tax(document)}{period}{_allowance(document, allowance, is_charge=False)}{_allowance(document, charge, is_charge=True)}
<ram:SpecifiedTradePaymentTerms>{_text("Description", "Paid from the prepaid balance.")}
</ram:SpecifiedTradePaymentTerms>
<ram:SpecifiedTradeSettlementHeaderMonetarySummation>{_amount("LineTotalAmount", line_total)}
{_amount("ChargeTotalAmount", charge)}{_amount("AllowanceTotalAmount", allowance)}
{_amount("TaxBasisTotalAmount", document.net_cents)}
<ram:TaxTotalAmount currencyID="USD">{_cents(document.tax_cents)}</ram:TaxTotalAmount>
{_amount("GrandTotalAmount", document.gross_cents)}{_amount("TotalPrepaidAmount", document.gross_cents)}
{_amount("DuePayableAmount", 0)}</ram:SpecifiedTradeSettlementHeaderMonetarySummation>
{reference}</ram:ApplicableHeaderTradeSettlement>
</rsm:SupplyChainTradeTransaction></rsm:CrossIndustryInvoice>""".encode()


def attach_xml(pdf: bytes, xml: bytes) -> bytes:
    """Return the PDF/A-3 with the XML inside it, checked against the schema of its profile."""
    # Imported here: it is large, and only those who issue electronic invoices need it.
    from facturx import generate_from_binary

    return bytes(generate_from_binary(pdf, xml, flavor="factur-x", level="en16931", afrelationship="alternative"))


def share_cents(nanos: Sequence[int], total_cents: int) -> list[int]:
    """Return whole cents for each amount that add up to the total: rounded down, the largest rests rounded up."""
    cents = [amount // NANOS_PER_CENT for amount in nanos]
    missing = total_cents - sum(cents)
    by_rest = sorted(range(len(nanos)), key=lambda place: -(nanos[place] % NANOS_PER_CENT))
    for turn in range(abs(missing)):
        cents[by_rest[turn % len(by_rest)]] += 1 if missing > 0 else -1
    return cents


def _groups(lines: Sequence[DocumentLine]) -> list[tuple[str, int]]:
    sums: dict[str, int] = {}
    for line in lines:
        name = line.model_id or OTHER_GROUP
        sums[name] = sums.get(name, 0) + line.amount_nanos
    return list(sums.items()) or [(OTHER_GROUP, 0)]


def _line(number: int, name: str, cents: int, document: Document) -> str:
    """One piece at the price of the line; a line below zero has a quantity below zero, as prices may not be."""
    quantity = "-1" if cents < 0 else "1"
    return f"""<ram:IncludedSupplyChainTradeLineItem>
<ram:AssociatedDocumentLineDocument>{_text("LineID", str(number))}</ram:AssociatedDocumentLineDocument>
<ram:SpecifiedTradeProduct>{_text("Name", name)}</ram:SpecifiedTradeProduct>
<ram:SpecifiedLineTradeAgreement><ram:NetPriceProductTradePrice>{_amount("ChargeAmount", abs(cents))}
</ram:NetPriceProductTradePrice></ram:SpecifiedLineTradeAgreement>
<ram:SpecifiedLineTradeDelivery><ram:BilledQuantity unitCode="C62">{quantity}</ram:BilledQuantity>
</ram:SpecifiedLineTradeDelivery>
<ram:SpecifiedLineTradeSettlement><ram:ApplicableTradeTax>{_text("TypeCode", "VAT")}
{_text("CategoryCode", _category(document))}{_text("RateApplicablePercent", _percent(document))}
</ram:ApplicableTradeTax><ram:SpecifiedTradeSettlementLineMonetarySummation>{_amount("LineTotalAmount", cents)}
</ram:SpecifiedTradeSettlementLineMonetarySummation></ram:SpecifiedLineTradeSettlement>
</ram:IncludedSupplyChainTradeLineItem>"""


def _party(tag: str, party: dict[str, str]) -> str:
    lines = [line for line in party.get("address", "").splitlines() if line]
    address = _text("PostcodeCode", party["postal_code"]) if party.get("postal_code") else ""
    address += _text("LineOne", party.get("street") or (lines[0] if lines else ""))
    address += _text("CityName", party["city"]) if party.get("city") else ""
    tax_id = party.get("tax_id")
    registration = (
        f'<ram:SpecifiedTaxRegistration><ram:ID schemeID="VA">{escape(tax_id)}</ram:ID></ram:SpecifiedTaxRegistration>'
        if tax_id
        else ""
    )
    return f"""<ram:{tag}>{_text("Name", party["name"])}<ram:PostalTradeAddress>{address}
{_text("CountryID", party["country"])}</ram:PostalTradeAddress>{registration}</ram:{tag}>"""


def _tax(document: Document) -> str:
    reason = ""
    if _category(document) != STANDARD:
        reason = _text("ExemptionReason", document.tax_note or "No tax applies.")
    return f"""<ram:ApplicableTradeTax>{_amount("CalculatedAmount", document.tax_cents)}
{_text("TypeCode", "VAT")}{reason}
{_amount("BasisAmount", document.net_cents)}{_text("CategoryCode", _category(document))}
{_text("RateApplicablePercent", _percent(document))}</ram:ApplicableTradeTax>"""


def _allowance(document: Document, cents: int, *, is_charge: bool) -> str:
    if not cents:
        return ""
    indicator = "true" if is_charge else "false"
    return f"""<ram:SpecifiedTradeAllowanceCharge><ram:ChargeIndicator><udt:Indicator>{indicator}</udt:Indicator>
</ram:ChargeIndicator>{_amount("ActualAmount", cents)}{_text("Reason", "Promotional credit")}
<ram:CategoryTradeTax>{_text("TypeCode", "VAT")}{_text("CategoryCode", _category(document))}
{_text("RateApplicablePercent", _percent(document))}</ram:CategoryTradeTax></ram:SpecifiedTradeAllowanceCharge>"""


def _category(document: Document) -> str:
    if document.tax_rate_ppm:
        return STANDARD
    return REVERSE_CHARGE if document.tax_note else EXEMPT


def _percent(document: Document) -> str:
    whole, rest = divmod(document.tax_rate_ppm, PPM_PER_PERCENT)
    return f"{whole}.{rest:04d}".rstrip("0").rstrip(".")


def _date(tag: str, day: str) -> str:
    return f'<ram:{tag}><udt:DateTimeString format="102">{day}</udt:DateTimeString></ram:{tag}>'


def _text(tag: str, text: str) -> str:
    return f"<ram:{tag}>{escape(text)}</ram:{tag}>"


def _amount(tag: str, cents: int) -> str:
    return f"<ram:{tag}>{_cents(cents)}</ram:{tag}>"


def _cents(cents: int) -> str:
    return f"{'-' if cents < 0 else ''}{abs(cents) // 100}.{abs(cents) % 100:02d}"
