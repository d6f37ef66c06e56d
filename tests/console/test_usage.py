import csv
import io
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.test import Client

from accounts.keys import create_key
from accounts.models import ApiKey
from billing import usage_report
from billing.models import PriceVersion, UsageRecord
from billing.money import format_usd
from tests.support.people import People, client_of
from tests.support.settled_usage import billed_event, failed_event, sell_model, settle

USAGE = "/console/alice/usage/"


@pytest.fixture
def alice(people: People) -> Client:
    return client_of(people.alice)


@pytest.fixture
def version(db: None) -> PriceVersion:
    return sell_model()


def ids_on(client: Client, **query: Any) -> list[str]:
    return [row.request_id.hex for row in client.get(USAGE, query).context["page"].requests]


def test_pages_follow_each_other_without_gap_or_double(alice: Client, people: People, version: PriceVersion) -> None:
    now = datetime.now(UTC)
    events = [
        (failed_event if n % 7 == 0 else billed_event)(people.key, version, at=now - timedelta(seconds=n))
        for n in range(120)
    ]
    settle(events)
    expected = [event.request_id for event in events]
    seen: list[str] = []
    query: dict[str, str] = {}
    while True:
        page = alice.get(USAGE, query).context["page"]
        seen += [row.request_id.hex for row in page.requests]
        if page.older_than is None:
            break
        query = {"before": page.older_than.hex}
    assert seen == expected


def test_filters(alice: Client, people: People, version: PriceVersion) -> None:
    now = datetime.now(UTC)
    other_key, _ = create_key(people.organization, name="Other", created_by=people.alice)
    other_version = sell_model("acme/small")
    plain = billed_event(people.key, version, at=now)
    failed = failed_event(people.key, version, at=now - timedelta(seconds=1))
    by_key = billed_event(other_key, version, at=now - timedelta(seconds=2))
    by_model = billed_event(people.key, other_version, at=now - timedelta(seconds=3))
    old = billed_event(people.key, version, at=now - timedelta(days=40))
    settle([plain, failed, by_key, by_model, old])
    recent = [plain, failed, by_key, by_model]
    assert ids_on(alice) == [event.request_id for event in recent]
    assert ids_on(alice, key=other_key.pk) == [by_key.request_id]
    assert ids_on(alice, model="acme/small") == [by_model.request_id]
    assert ids_on(alice, outcome="failed") == [failed.request_id]
    assert ids_on(alice, outcome="billed") == [plain.request_id, by_key.request_id, by_model.request_id]
    day = (now - timedelta(days=40)).date()
    assert ids_on(alice, first_day=day, last_day=day) == [old.request_id]
    totals = alice.get(USAGE, {"model": "acme/small"}).context["totals"]
    assert (totals.requests, totals.cost_nanos) == (1, by_model.cost_nanos)


@pytest.mark.parametrize(
    "query",
    [
        {"first_day": "2026-11-02", "last_day": "2026-11-01"},
        {"first_day": "2026-01-01", "last_day": "2026-11-01"},
        {"first_day": "soon"},
        {"first_day": "1899-01-01", "last_day": "1899-01-02"},
        {"first_day": "9999-12-31", "last_day": "9999-12-31"},
        {"key": "1 OR 1=1"},
        {"model": "no/such"},
        {"outcome": "odd"},
    ],
)
def test_filters_that_make_no_sense_are_told(alice: Client, query: dict[str, str]) -> None:
    response = alice.get(USAGE, query)
    assert response.status_code == 422
    assert response.context["form"].errors


def test_a_wrong_page_is_not_found(alice: Client) -> None:
    assert alice.get(USAGE, {"before": "x"}).status_code == 404


def test_the_receipt_shows_an_arithmetic_that_gives_the_cost(
    alice: Client, people: People, version: PriceVersion
) -> None:
    event = billed_event(
        people.key,
        version,
        input_tokens=1003,
        output_tokens=257,
        cache_read_tokens=9001,
        cache_write_5m_tokens=11,
        factor_ppm=900_000,
        end_user="user-1",
        client="curl/8",
        stop_reason="end_turn",
    )
    settle([event])
    response = alice.get(f"{USAGE}{event.request_id}/")
    receipt = response.context["receipt"]
    assert [(line.component, line.count, line.picos_per_unit) for line in receipt.lines] == [
        ("input", 1003, 3_000_000),
        ("output", 257, 15_000_000),
        ("cache_write_5m", 11, 3_750_000),
        ("cache_read", 9001, 300_000),
    ]
    picos = 1003 * 3_000_000 + 257 * 15_000_000 + 11 * 3_750_000 + 9001 * 300_000
    assert receipt.subtotal_picos == picos
    assert receipt.record.cost_nanos == -(-picos * 9 // 10_000) == receipt.recomputed_nanos
    page = response.content.decode()
    assert "\N{MULTIPLICATION SIGN} 0.9" in page
    assert f"${format_usd(event.cost_nanos)}" in page
    assert "Please report this request" not in page
    assert all(text in page for text in ("user-1", "curl/8", "end_turn", f"msg_{event.request_id}"))
    assert "upstream_cost" not in page and "0.00 cost" not in page


def test_a_receipt_whose_arithmetic_differs_says_so(alice: Client, people: People, version: PriceVersion) -> None:
    event = billed_event(people.key, version)
    event.cost_nanos += 1
    settle([event])
    assert "Please report this request" in alice.get(f"{USAGE}{event.request_id}/").content.decode()


def test_a_failed_request_has_a_receipt_of_nothing(alice: Client, people: People, version: PriceVersion) -> None:
    event = failed_event(people.key, version)
    settle([event])
    page = alice.get(f"{USAGE}{event.request_id}/").content.decode()
    assert "nothing was billed" in page
    assert "upstream_overloaded" in page
    assert "529" in page


def test_receipts_take_the_id_in_every_form(alice: Client, people: People, version: PriceVersion) -> None:
    event = billed_event(people.key, version)
    settle([event])
    record = UsageRecord.objects.get()
    for form in (f"msg_{event.request_id}", f"req_{event.request_id}", str(record.request_id)):
        assert alice.get(f"{USAGE}{form}/").status_code == 200
    assert alice.get(f"{USAGE}msg_{'0' * 32}/").status_code == 404
    assert alice.get(f"{USAGE}nonsense/").status_code == 404


def read_csv(response: Any) -> list[dict[str, str]]:
    text = response.getvalue().decode()
    return list(csv.DictReader(io.StringIO(text)))


def test_the_export_holds_exact_amounts_and_no_formulas(alice: Client, people: People, version: PriceVersion) -> None:
    ApiKey.objects.filter(pk=people.key.pk).update(name='=HYPERLINK("http://evil.example")')
    billed = billed_event(people.key, version)
    failed = failed_event(people.key, version, at=datetime.now(UTC) - timedelta(seconds=5))
    settle([billed, failed])
    response = alice.get(f"{USAGE}export.csv")
    assert response["Content-Disposition"].startswith('attachment; filename="usage-alice-')
    rows = read_csv(response)
    assert [row["request_id"] for row in rows] == [f"msg_{billed.request_id}", f"msg_{failed.request_id}"]
    assert rows[0]["cost_usd"] == format_usd(billed.cost_nanos)
    assert rows[0]["key_name"] == '\'=HYPERLINK("http://evil.example")'
    assert (rows[1]["outcome"], rows[1]["error_code"], rows[1]["cost_usd"]) == ("failed", "upstream_overloaded", "0.00")
    assert set(rows[0]) == set(rows[1])


def test_the_export_is_bounded(
    alice: Client, people: People, version: PriceVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage_report, "MAX_EXPORT_ROWS", 5)
    monkeypatch.setattr(usage_report, "EXPORT_CHUNK_ROWS", 2)
    now = datetime.now(UTC)
    events = [billed_event(people.key, version, at=now - timedelta(seconds=n)) for n in range(8)]
    settle(events)
    rows = read_csv(alice.get(f"{USAGE}export.csv"))
    assert [row["request_id"] for row in rows] == [f"msg_{event.request_id}" for event in events[:5]]


@pytest.mark.parametrize("rows", [1, 3])
def test_it_costs_the_same_queries(
    alice: Client, people: People, version: PriceVersion, rows: int, django_assert_num_queries: Any
) -> None:
    settle([billed_event(people.key, version) for _ in range(rows)])
    alice.get(USAGE)
    with django_assert_num_queries(9):
        assert len(alice.get(USAGE).context["page"].requests) == rows
