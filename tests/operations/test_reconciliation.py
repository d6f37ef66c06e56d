"""Reconciliation as operators meet it: commands, reports by file and over HTTP, the daily job, the page of breaks."""

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.core.management import CommandError, call_command
from django.db.models import Sum
from django.test import Client
from pytest_django import Settings

from billing.models import LedgerTransaction, ProviderReport, ReconciliationBreak, ReconciliationRun, Upstream
from billing.money import MINUS
from billing.reconciliation.breaks import Difference, note_differences
from operations import reconciliation
from operations.models import JobRun
from operations.provider_reports import ReportUnavailableError, fetch_reports
from operations.reconciliation import payment_providers, reconcile_due
from tests.billing.ledger_factory import give
from tests.support.people import People, client_of, make_people, make_person
from tests.support.provider_reports import cost_page, usage_page
from tests.support.webhook_server import WebhookServer

pytestmark = pytest.mark.django_db

YESTERDAY = datetime.now(UTC).date() - timedelta(days=1)
VARIABLE = "ACME_ADMIN_API_KEY"


@pytest.fixture
def upstream() -> Upstream:
    return Upstream.objects.create(name="acme", protocol="messages", base_url="https://api.acme.example")


@pytest.fixture
def server(upstream: Upstream, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[WebhookServer]:
    """The provider's Admin API, which answers as a test says."""
    with WebhookServer() as server:
        upstream.base_url = f"http://127.0.0.1:{server.port}"
        upstream.save()
        settings.PROVIDER_REPORTS = {"acme": VARIABLE}
        monkeypatch.setenv(VARIABLE, "sk-ant-admin-1")
        yield server


def answers(server: WebhookServer, *pages: Any) -> None:
    """Let the server answer one page after the other."""

    def answer(write: Any) -> None:
        body = json.dumps(pages[len(server.received) - 1]).encode()
        write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)

    server.answer = answer


def run(name: str, *arguments: str, capsys: pytest.CaptureFixture[str]) -> str:
    try:
        call_command(name, *arguments)
    except CommandError as error:
        return capsys.readouterr().out + f"CommandError: {error}"
    return capsys.readouterr().out


def fetch() -> dict[str, list[date]]:
    return fetch_reports("acme", first_day=YESTERDAY, last_day=YESTERDAY)


# --- Reports --------------------------------------------------------------------------------------------------------


def test_reports_are_fetched_page_by_page_with_the_admin_key(server: WebhookServer) -> None:
    first = {**usage_page(YESTERDAY, "m", output_tokens=1), "has_more": True, "next_page": "page_2"}
    before = YESTERDAY - timedelta(days=1)
    answers(server, first, usage_page(before, "m", output_tokens=2), cost_page(YESTERDAY, {"m": "1"}))
    assert fetch() == {"usage": [before, YESTERDAY], "cost": [YESTERDAY]}
    lines = [received.line for received in server.received]
    window = f"starting_at={YESTERDAY}T00%3A00%3A00Z&ending_at={YESTERDAY + timedelta(days=1)}T00%3A00%3A00Z"
    usage = f"GET /v1/organizations/usage_report/messages?{window}&bucket_width=1d&group_by%5B%5D=model"
    assert lines == [
        f"{usage} HTTP/1.1",
        f"{usage}&page=page_2 HTTP/1.1",
        f"GET /v1/organizations/cost_report?{window}&bucket_width=1d&group_by%5B%5D=description HTTP/1.1",
    ]
    assert {received.headers["x-api-key"] for received in server.received} == {"sk-ant-admin-1"}
    assert {received.headers["anthropic-version"] for received in server.received} == {"2023-06-01"}
    assert ProviderReport.objects.count() == 3


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n", "answered 401"),
        (b"HTTP/1.1 302 Found\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n", "answered 302"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nwhat", "no JSON"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", "no page of a report"),
        (b"", "The connection failed"),
    ],
)
def test_a_report_that_cannot_be_had_keeps_nothing(server: WebhookServer, answer: bytes, problem: str) -> None:
    server.answer = answer
    with pytest.raises(ReportUnavailableError, match=problem) as raised:
        fetch()
    assert "sk-ant-admin-1" not in str(raised.value)
    assert not ProviderReport.objects.exists()


def test_pages_without_an_end_are_given_up(server: WebhookServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("operations.provider_reports.MAX_PAGES", 3)
    answers(server, *[{**usage_page(YESTERDAY, "m"), "has_more": True, "next_page": "again"}] * 10)
    with pytest.raises(ReportUnavailableError, match="more than 3 pages"):
        fetch()
    assert len(server.received) == 3


def test_without_an_admin_key_nobody_is_asked(server: WebhookServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE)
    with pytest.raises(ReportUnavailableError, match=f"names {VARIABLE}"):
        fetch()
    with pytest.raises(ReportUnavailableError, match="no upstream other"):
        fetch_reports("other", first_day=YESTERDAY, last_day=YESTERDAY)
    assert server.received == []


def test_a_forbidden_address_is_not_asked(server: WebhookServer, settings: Settings) -> None:
    settings.UPSTREAM_NETWORKS = []
    with pytest.raises(ReportUnavailableError, match="not public"):
        fetch()
    assert server.received == []


def test_reports_come_from_files_too(upstream: Upstream, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    today = YESTERDAY + timedelta(days=1)
    first, second = tmp_path / "1.json", tmp_path / "2.json"
    first.write_text(json.dumps({**cost_page(YESTERDAY, {"m": "150"}), "has_more": True}))
    second.write_text(json.dumps(cost_page(today, {"m": "1"})))
    options = ["--upstream", "acme", "--kind", "cost"]
    said = run("import_provider_report", *options, str(first), str(second), capsys=capsys)
    assert said == f"{YESTERDAY}: kept\n{today}: not over yet, left out\n"
    assert ProviderReport.objects.get().origin == "1.json, 2.json"
    assert "not whole" in run("import_provider_report", *options, str(first), capsys=capsys)
    assert "cannot be read" in run("import_provider_report", *options, str(tmp_path / "3.json"), capsys=capsys)
    first.write_text("{")
    assert "holds no JSON" in run("import_provider_report", *options, str(first), capsys=capsys)
    options[1] = "other"
    assert "no upstream other" in run("import_provider_report", *options, str(second), capsys=capsys)


# --- The command and the daily job -----------------------------------------------------------------------------------


def test_the_command_tells_what_was_compared_and_what_is_open(
    server: WebhookServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("reconcile", capsys=capsys).endswith("No break is open.\n")
    answers(server, usage_page(YESTERDAY, "m"), cost_page(YESTERDAY, {"m": "1234.5"}))
    said = run("reconcile", "--from", str(YESTERDAY), "--fetch", capsys=capsys)
    assert f"BREAKS  Records against the provider's cost, {YESTERDAY}: 1 compared, 1 differ" in said
    assert f"ok      Records against the provider's usage, {YESTERDAY}: 1 compared, 0 differ" in said
    assert f": {MINUS}$12.35, nobody sees to it: acme charges $12.345 for {YESTERDAY}" in said
    assert said.endswith("CommandError: 1 break is open.")
    server.answer = b"HTTP/1.1 500 x\r\ncontent-length: 0\r\n\r\n"
    assert "-       No report: acme: " in run("reconcile", "--fetch", capsys=capsys)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--to", str(YESTERDAY + timedelta(days=1))], "is not over yet"),
        (["--from", "2026-01-01", "--to", "2026-06-01"], "At most 92 days"),
        (["--from", "2026-01-02", "--to", "2026-01-01"], "At most 92 days"),
    ],
)
def test_days_that_make_no_sense(arguments: list[str], problem: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert problem in run("reconcile", *arguments, capsys=capsys)
    assert not ReconciliationRun.objects.exists()


def test_the_daily_job_fetches_and_compares_once(server: WebhookServer, monkeypatch: pytest.MonkeyPatch) -> None:
    days = [YESTERDAY]
    monkeypatch.setattr(reconciliation, "due_days", lambda now: days)
    answers(server, usage_page(YESTERDAY, "m"), cost_page(YESTERDAY, {"m": "100"}))
    reconcile_due()
    assert ReconciliationBreak.objects.get().amount_cents == -100
    days.clear()
    reconcile_due()
    assert len(server.received) == 2
    # Looking and finding nothing due is a run too: else the registry of jobs would call it late for most of the day.
    assert JobRun.objects.filter(job="reconcile").aggregate(runs=Sum("runs"))["runs"] == 2


def test_a_report_that_cannot_be_had_holds_up_no_comparison(
    server: WebhookServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciliation, "due_days", lambda now: [YESTERDAY])
    server.answer = b""
    reconcile_due()
    assert ReconciliationRun.objects.filter(source="roll_ups", day=YESTERDAY).exists()


def test_a_payment_provider_that_is_gone_is_left_out() -> None:
    assert payment_providers() == []


# --- The page of breaks ----------------------------------------------------------------------------------------------


@pytest.fixture
def people() -> People:
    return make_people()


@pytest.fixture
def operator() -> Client:
    person = make_person("operator", is_staff=True)
    person.is_superuser = True
    person.save()
    return client_of(person)


@pytest.fixture
def broken(people: People) -> ReconciliationBreak:
    note_differences("provider_cost", [Difference("acme", "It is off.", -5, people.organization.pk)], day=YESTERDAY)
    return ReconciliationBreak.objects.get()


def url(row: ReconciliationBreak, page: str) -> str:
    return f"/admin/billing/reconciliationbreak/{row.pk}/{page}"


def test_an_operator_takes_a_break_over_and_resolves_it(
    operator: Client, people: People, broken: ReconciliationBreak
) -> None:
    assert "Breaks" in operator.get("/admin/").content.decode()
    assert "It is off." in operator.get(url(broken, "change/")).content.decode()
    operator.post(url(broken, "take-over/"))
    broken.refresh_from_db()
    assert broken.owner is not None
    assert broken.owner.email == "operator@example.org"
    give(people.charlies, 5)
    wrong = operator.post(
        url(broken, "resolve/"), {"note": "Posted.", "transaction_id": LedgerTransaction.objects.get().pk}
    )
    assert wrong.status_code == 422
    assert "is of another organization" in wrong.content.decode()
    assert operator.post(url(broken, "resolve/"), {"note": "It rounds."}).status_code == 302
    broken.refresh_from_db()
    assert (broken.state, broken.resolution, broken.resolved_by) == ("resolved", "note", "operator@example.org")
    again = operator.post(url(broken, "resolve/"), {"note": "Again."})
    assert "no longer open" in again.content.decode()


def test_who_may_only_look_resolves_nothing(broken: ReconciliationBreak) -> None:
    operator = make_person("operator", is_staff=True)
    operator.user_permissions.add(Permission.objects.get(codename="view_reconciliationbreak"))
    assert client_of(operator).get(url(broken, "change/")).status_code == 200
    assert client_of(operator).post(url(broken, "resolve/"), {"note": "x"}).status_code in {302, 403}
    broken.refresh_from_db()
    assert broken.state == "open"
