"""Billing -> Documents: pages and files say what is stored, to whoever may see billing, and to nobody else."""

import csv
import json
from collections.abc import Callable
from io import BytesIO, StringIO

import pytest
from django.test import Client
from pypdf import PdfReader
from pytest_django import Settings

from accounts.billing_details import change_billing_details
from accounts.models import BillingDetails, Role
from billing.documents.invoices import close_month
from billing.documents.periods import month_of
from billing.models import Document, LedgerTransaction
from tests.billing.documents.months import OCTOBER, SEPTEMBER, Customer, at, sell
from tests.billing.ledger_factory import USD
from tests.support.people import People, client_of

BILLING = "/console/alice/billing/"


@pytest.fixture
def alice(people: People) -> Client:
    return client_of(people.alice)


@pytest.fixture
def history(people: People) -> Customer:
    customer, version = Customer(people.organization), sell()
    customer.give(20 * USD, at(9, 1))
    customer.use(version, at(9, 2), input_tokens=100_000, output_tokens=0)
    customer.use(version, at(9, 2, 13), input_tokens=50_000, output_tokens=0)
    customer.use(version, at(10, 2), input_tokens=100, output_tokens=0)
    customer.refund(at(10, 3), event=customer.events[0], nanos=USD // 10)
    close_month(people.organization, OCTOBER)
    return customer


def test_the_list_shows_each_month_with_its_documents(alice: Client, history: Customer) -> None:
    page = alice.get(f"{BILLING}documents/")
    months = [(str(month), [document.label for document in found]) for month, found in page.context["months"]]
    assert months[-2:] == [("2026-10", ["INV-000002", "CN-000001"]), ("2026-09", ["INV-000001"])]
    assert [document.label for document in page.context["receipts"]] == ["RCT-000001"]
    assert "$0.45" in page.content.decode()


def test_a_document_is_shown_with_its_lines_and_what_corrects_it(alice: Client, history: Customer) -> None:
    page = alice.get(f"{BILLING}documents/INV-000001/").content.decode()
    for words in ("acme/", "150,000", "3.00 / 1M", "0.45", "CN-000001", "Input tokens", "half a cent up"):
        assert words in page
    assert "INV-000001 of" in alice.get(f"{BILLING}documents/CN-000001/").content.decode()


def test_files_say_the_same(alice: Client, history: Customer) -> None:
    invoice = Document.objects.get(kind="invoice", number=1)
    body = json.loads(alice.get(f"{BILLING}documents/INV-000001.json").content)
    assert (body["net_exact"], body["gross"], body["currency"]) == ("0.45", "0.45", "USD")
    assert body["period"] == {"begins": "2026-09-01T00:00:00+00:00", "ends": "2026-10-01T00:00:00+00:00"}
    assert [line["quantity"] for line in body["lines"]] == [150_000]
    answer = alice.get(f"{BILLING}documents/INV-000001.csv")
    [row] = csv.DictReader(StringIO(answer.content.decode()))
    assert (row["document"], row["amount_usd"]) == (invoice.label, "0.45")
    answer = alice.get(f"{BILLING}documents/INV-000001.pdf")
    assert answer["Content-Type"] == "application/pdf"
    assert answer["Content-Disposition"] == 'attachment; filename="INV-000001.pdf"'
    assert "INV-000001" in PdfReader(BytesIO(answer.content)).pages[0].extract_text()
    assert alice.get(f"{BILLING}documents/INV-000001.exe").status_code == 404


def test_a_statement_leads_from_a_sum_to_its_postings(alice: Client, history: Customer) -> None:
    page = alice.get(f"{BILLING}statements/2026-09/")
    assert page.context["is_closed"]
    assert page.context["statement"].closing_nanos == 20 * USD - 450_000_000
    assert f"{BILLING}statements/2026-09/2/" in page.content.decode()
    day = alice.get(f"{BILLING}statements/2026-09/2/")
    assert [line.amount_nanos for line in day.context["page"].lines] == [-150_000_000, -300_000_000]
    assert [line.balance_after_nanos for line in day.context["page"].lines] == [19_550_000_000, 19_700_000_000]
    body = json.loads(alice.get(f"{BILLING}statements/2026-09.json").content)
    assert (body["opening_balance"], body["closing_balance"]) == ("0.00", "19.55")
    assert body["totals"] == {"usage": "-0.45", "top_up": "20.00"}
    rows = list(csv.DictReader(StringIO(alice.get(f"{BILLING}statements/2026-09.csv").content.decode())))
    assert [row["amount_usd"] for row in rows] == ["20.00", "-0.45"]
    assert alice.get(f"{BILLING}statements/2026-09.pdf").content.startswith(b"%PDF-")
    this_month = month_of(LedgerTransaction.objects.latest("created_at").created_at)
    assert alice.get(f"{BILLING}statements/{this_month}/").status_code == 200


def test_a_statement_and_its_days_write_amounts_and_dates_in_one_form(alice: Client, history: Customer) -> None:
    day = alice.get(f"{BILLING}statements/2026-09/2/").content.decode()
    assert ">\N{MINUS SIGN}$0.30<" in day and ">$19.70<" in day
    statement = alice.get(f"{BILLING}statements/2026-09/").content.decode()
    assert "Sep 1, 2026 \N{EN DASH} Sep 30, 2026, UTC" in statement


def test_an_open_month_follows_the_closed_ones(alice: Client, history: Customer) -> None:
    page = alice.get(f"{BILLING}statements/2026-11/")
    assert not page.context["is_closed"]
    assert page.context["statement"].opening_nanos == history.balance_nanos


@pytest.mark.parametrize(
    "path",
    [
        "documents/INV-000009/",
        "documents/INV-1/",
        "documents/XXX-000001/",
        "documents/INV/",
        "documents/INV-000001.xml",
        "statements/2026-13/",
        "statements/2199-01/",
        "statements/2026-09/31/",
        "statements/2026-09.xml",
        "statements/2026-09/2/?before=x",
    ],
)
def test_what_is_not_there_is_not_found(alice: Client, history: Customer, path: str) -> None:
    assert alice.get(BILLING + path).status_code == 404


PATHS = [
    "documents/",
    "documents/INV-000001/",
    "documents/INV-000001.pdf",
    "statements/2026-09/",
    "statements/2026-09/2/",
]


@pytest.mark.parametrize("path", PATHS)
def test_strangers_and_members_without_billing_see_nothing(people: People, history: Customer, path: str) -> None:
    assert client_of(people.charlie).get(BILLING + path).status_code == 404
    for role, status in ((Role.VIEWER, 403), (Role.DEVELOPER, 403), (Role.BILLING, 200)):
        people.give_bob(role)
        assert client_of(people.bob).get(BILLING + path).status_code == status


def test_a_number_of_another_organization_is_not_found(people: People, history: Customer) -> None:
    charlie = client_of(people.charlie)
    assert charlie.get("/console/charlie/billing/documents/INV-000001/").status_code == 404
    assert charlie.get("/console/charlie/billing/documents/INV-000001.json").status_code == 404


def test_the_list_asks_the_same_of_postgres_for_one_month_and_for_many(
    alice: Client, people: People, history: Customer, django_assert_max_num_queries: Callable[..., object]
) -> None:
    alice.get(f"{BILLING}documents/")
    with django_assert_max_num_queries(14):  # type: ignore[attr-defined]
        alice.get(f"{BILLING}documents/")


def test_details_are_kept_and_issued_documents_stay(alice: Client, people: People, history: Customer) -> None:
    form = {
        "legal_name": "Alice GmbH",
        "address_line_1": "Allee 1",
        "city": "Bonn",
        "country": "DE",
        "tax_id": "de 12 3",
    }
    answer = alice.post("/console/alice/settings/billing/", form, follow=True)
    assert "Billing details saved" in answer.content.decode()
    details = BillingDetails.objects.get()
    assert (details.country, details.tax_id, details.tax_id_state) == ("DE", "DE123", "not_checked")
    assert "Alice GmbH" not in alice.get(f"{BILLING}documents/INV-000001/").content.decode()
    statement = alice.get(f"{BILLING}statements/2026-09/").content.decode()
    assert "Alice GmbH" in statement and "Germany" in statement
    page = alice.get("/console/alice/settings/billing/").content.decode()
    assert '<option value="DE" selected>Germany</option>' in page
    assert '<option value="FR">France</option>' in page
    wrong = alice.post("/console/alice/settings/billing/", {**form, "country": "Germany"})
    assert wrong.status_code == 422
    people.give_bob(Role.DEVELOPER)
    assert client_of(people.bob).post("/console/alice/settings/billing/", form).status_code == 403
    assert SEPTEMBER.begins < OCTOBER.begins


def test_a_code_that_is_no_country_any_more_stays_until_another_is_chosen(alice: Client, people: People) -> None:
    BillingDetails.objects.create(organization=people.organization, country="AN")
    page = alice.get("/console/alice/settings/billing/").content.decode()
    assert '<option value="AN" selected>AN</option>' in page
    alice.post("/console/alice/settings/billing/", {"city": "Willemstad", "country": "AN"})
    assert BillingDetails.objects.get().country == "AN"


def test_a_sum_in_the_head_says_what_it_is(alice: Client, people: People, history: Customer) -> None:
    for path, label in (
        ("statements/2026-09/", "Closing balance"),
        ("statements/2026-11/", "Balance so far"),
        ("documents/INV-000001/", "Paid from your prepaid balance"),
    ):
        head = alice.get(f"{BILLING}{path}").content.decode().partition('class="receipt-total"')[2].partition("</p>")[0]
        assert label in head and "USD" in head


def test_the_page_says_what_its_pdf_cannot_show(
    alice: Client, people: People, history: Customer, settings: Settings
) -> None:
    settings.FONT_FOLDERS = []
    assert "no font is installed" not in alice.get(f"{BILLING}statements/2026-09/").content.decode()
    change_billing_details(people.organization, fields={"legal_name": "\u682a\u5f0f\u4f1a\u793e Alice"})
    page = alice.get(f"{BILLING}statements/2026-09/").content.decode()
    assert "a square in place of \u682a\u5f0f\u4f1a\u793e: no font is installed" in page
    assert alice.get(f"{BILLING}statements/2026-09.pdf").content.startswith(b"%PDF")
