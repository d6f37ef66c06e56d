"""manage.py close_month and its task: what they write, twice, at once, and when one organization cannot be closed."""

import os
import subprocess
import sys
from io import StringIO
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone

from billing.documents import invoices
from billing.documents.drafts import DocumentError, Draft, draft_documents
from billing.documents.periods import month_of
from billing.documents.posted import PostedRange
from billing.models import ClosedMonth, Document
from operations.tasks import write_documents
from tests.billing.documents.months import Customer, assert_books_hold, at, sell
from tests.billing.ledger_factory import USD, make_organization
from tests.support.together import run_together

ROOT = Path(__file__).resolve().parents[2]
KILLED_AMONG = 60


def run(*arguments: str) -> list[str]:
    output = StringIO()
    call_command("close_month", *arguments, stdout=output)
    return output.getvalue().splitlines()


def make_customers() -> list[Customer]:
    version = sell()
    customers = [Customer(make_organization(name)) for name in ("Ann", "Ben", "Cem")]
    for customer in customers:
        customer.give(USD, at(10, 1))
        customer.use(version, at(10, 2), input_tokens=100_000, output_tokens=0)
    return customers


@pytest.mark.django_db
def test_a_dry_run_says_what_would_be_billed_and_writes_nothing() -> None:
    customer, *_ = make_customers()
    lines = run("2026-10", "--dry-run")
    assert lines[0] == f"{customer.organization.slug:<30} 1 lines, net 0.30 USD"
    assert lines[-1] == "2026-10: 3 organizations would be closed"
    assert not ClosedMonth.objects.exists()


@pytest.mark.django_db
def test_closing_again_finds_nothing_to_do() -> None:
    customer, *_ = make_customers()
    lines = run("2026-10")
    assert lines[0].split() == [customer.organization.slug, "2026-10", "INV-000001", "0.30", "USD"]
    assert lines[-1] == "2026-10: 3 documents for 3 organizations"
    assert run("2026-10") == ["2026-10: 0 documents for 0 organizations"]
    assert_books_hold()


@pytest.mark.django_db
def test_the_month_must_be_over() -> None:
    with pytest.raises(CommandError, match="ends at"):
        run(str(month_of(timezone.now())))
    with pytest.raises(CommandError, match="is not a month"):
        run("October")


@pytest.mark.django_db
def test_one_organization_that_cannot_be_closed_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    _, broken, _ = make_customers()

    def refuse_one(posted: PostedRange) -> list[Draft]:
        if posted.organization_id == broken.organization.pk:
            raise DocumentError("It does not add up.")
        return draft_documents(posted)

    monkeypatch.setattr(invoices, "draft_documents", refuse_one)
    with pytest.raises(CommandError, match="2 documents for 2 organizations; 1 could not be closed"):
        run("2026-10")
    monkeypatch.undo()
    assert run("2026-10")[-1] == "2026-10: 1 documents for 1 organizations"
    assert_books_hold()


@pytest.mark.django_db(transaction=True)
def test_commands_at_once_write_each_document_once() -> None:
    make_customers()
    assert run_together(*[lambda: run("2026-10")] * 3) == []
    assert sorted(Document.objects.values_list("number", flat=True)) == [1, 2, 3]
    assert_books_hold()


@pytest.mark.django_db
def test_the_task_writes_receipts_and_closes_what_is_over() -> None:
    make_customers()
    write_documents()
    write_documents()
    assert Document.objects.filter(kind="payment_receipt").count() == 3
    assert Document.objects.filter(kind="invoice").count() == 3
    assert_books_hold()


@pytest.mark.django_db(transaction=True)
def test_a_process_that_is_killed_leaves_no_half_of_a_document() -> None:
    """Killed with -9 once its first document is told, in the middle of the others; the next run does the rest."""
    version = sell()
    customers = [Customer(make_organization(f"Killed{number}")) for number in range(KILLED_AMONG)]
    for customer in customers:
        customer.use(version, at(10, 2), input_tokens=100_000, output_tokens=1)
    address = urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{connection.settings_dict['NAME']}")
    with subprocess.Popen(
        [sys.executable, "-u", "manage.py", "close_month", "2026-10"],
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": address.geturl()},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert "INV-000001" in process.stdout.readline()
        process.kill()
    written = Document.objects.count()
    assert 1 <= written < KILLED_AMONG
    assert_books_hold()
    assert (
        run("2026-10")[-1] == f"2026-10: {KILLED_AMONG - written} documents for {KILLED_AMONG - written} organizations"
    )
    assert sorted(Document.objects.values_list("number", flat=True)) == list(range(1, KILLED_AMONG + 1))
    assert_books_hold()
