import csv
import io
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from django.test import Client

from accounts.keys import create_key
from accounts.models import ApiKey
from billing.models import PriceVersion, UsageRecord
from billing.money import format_usd
from billing.request_id import make_request_id
from billing.usage import requests as listing
from billing.usage.refusals import Refusal, write_refusals
from tests.support.people import People, client_of
from tests.support.settled_usage import billed_event, failed_event, sell_model, settle
from tests.support.streamed import read_streamed

USAGE = "/console/alice/usage/"
REQUESTS = "/console/alice/requests/"


def words_of(page: bytes) -> str:
    """Return a page as a browser joins its lines: a sentence may go on in the next one."""
    return " ".join(page.decode().split())


@pytest.fixture
def alice(people: People) -> Client:
    return client_of(people.alice)


@pytest.fixture
def version(db: None) -> PriceVersion:
    return sell_model()


def ids_on(client: Client, **query: Any) -> list[str]:
    return [row.request_id.hex for row in client.get(REQUESTS, query).context["page"].requests]


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
        page = alice.get(REQUESTS, query).context["page"]
        seen += [row.request_id.hex for row in page.requests]
        if page.older_than is None:
            break
        query = {"before": page.older_than.hex}
    assert seen == expected


def test_pages_lead_back_as_they_lead_on(alice: Client, people: People, version: PriceVersion) -> None:
    now = datetime.now(UTC)
    events = [billed_event(people.key, version, at=now - timedelta(seconds=n)) for n in range(120)]
    settle(events)
    ids = [event.request_id for event in events]
    oldest = alice.get(REQUESTS, {"before": ids[99]}).context
    assert [row.request_id.hex for row in oldest["page"].requests] == ids[100:]
    assert oldest["older_query"] == ""
    middle = alice.get(REQUESTS + oldest["newer_query"]).context
    assert [row.request_id.hex for row in middle["page"].requests] == ids[50:100]
    newest = alice.get(REQUESTS + middle["newer_query"]).context
    assert [row.request_id.hex for row in newest["page"].requests] == ids[:50]
    assert (newest["newer_query"], newest["newest_query"]) == ("", "")
    assert newest["live_query"] and not middle["live_query"]


def test_requests_of_an_end_user_a_tag_or_a_session(
    alice: Client, people: People, version: PriceVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime.now(UTC)
    events = [
        (failed_event if n % 5 == 0 else billed_event)(
            people.key, version, at=now - timedelta(seconds=n), tag="ci" if n % 2 else "", end_user=f"user-{n % 3}"
        )
        for n in range(40)
    ]
    settle(events)
    refused = Refusal(
        make_request_id().hex, people.organization.pk, people.key.pk, "messages", "acme/large", 402, "x", "No.", now,
        tag="ci",
    )  # fmt: skip
    write_refusals([refused])
    # Few at once, so that one page takes several looks, and then has to go on behind a link.
    monkeypatch.setattr(listing, "SCANNED_AT_ONCE", 3)
    of_ci = [refused.request_id, *(event.request_id for event in events if event.tag)]
    assert ids_on(alice, tag="ci") == of_ci
    both = [event.request_id for event in events if event.tag and event.end_user == "user-2"]
    assert ids_on(alice, tag="ci", end_user="user-2") == both
    monkeypatch.setattr(listing, "MAX_SCANS", 1)
    seen: list[str] = []
    query = "?tag=ci&outcome=failed"
    while query:
        context = alice.get(REQUESTS + query).context
        seen += [row.request_id.hex for row in context["page"].requests]
        query = context["older_query"]
    assert seen == [event.request_id for event in events if event.tag and event.outcome == "failed"]
    assert ids_on(alice, tag="none") == []


def test_the_list_follows_what_happens(alice: Client, people: People, version: PriceVersion) -> None:
    settle([billed_event(people.key, version)])
    live = f"{REQUESTS}live/" + alice.get(REQUESTS).context["live_query"]
    assert alice.get(live).status_code == 204
    newer = billed_event(people.key, version)
    settle([newer])
    response = alice.get(live)
    assert f"r-{newer.request_id}" in response.content.decode()
    assert alice.get(f"{REQUESTS}live/" + response.context["live_query"]).status_code == 204
    ended = alice.get(f"{REQUESTS}live/")
    assert (ended.status_code, ended["HX-Reswap"], ended["HX-Trigger"]) == (286, "none", "following-ended")


def test_search_takes_an_id_in_every_form_and_tells_what_it_does_not_find(
    alice: Client, people: People, version: PriceVersion
) -> None:
    event = billed_event(people.key, version)
    settle([event])
    dashed = str(UUID(event.request_id))
    for form in (f"msg_{event.request_id}", f" req_{event.request_id} ", event.request_id, dashed):
        assert alice.get(REQUESTS, {"q": form})["Location"] == f"{USAGE}{event.request_id}/"
    assert "no request with the id" in words_of(alice.get(REQUESTS, {"q": "req_" + "0" * 32}).content)
    assert "is no id of a request" in words_of(alice.get(REQUESTS, {"q": "<b>"}).content)
    assert client_of(people.charlie).get("/console/charlie/requests/", {"q": dashed}).status_code == 200


def test_a_list_gets_a_receipt_without_the_page_around_it(alice: Client, people: People, version: PriceVersion) -> None:
    event = billed_event(people.key, version)
    settle([event])
    panel = alice.get(f"{USAGE}{event.request_id}/", headers={"HX-Request": "true"}).content.decode()
    assert "Arithmetic" in panel and "<html" not in panel


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


@pytest.mark.parametrize(
    "query",
    [
        {"first_day": "2026-11-02", "last_day": "2026-11-01"},
        {"first_day": "2025-01-01", "last_day": "2026-11-01"},
        {"first_day": "soon"},
        {"first_day": "1899-01-01", "last_day": "1899-01-02"},
        {"first_day": "9999-12-31", "last_day": "9999-12-31"},
        {"key": "1 OR 1=1"},
        {"model": "no/such"},
        {"outcome": "odd"},
        {"member": "0"},
        {"tag": "x" * 65},
        {"period": "ever"},
        {"period": "7d", "first_day": "2026-11-01"},
        {"last_day": "0001-01-05"},
        {"first_day": "9999-12-31"},
        {"interval": "hour", "period": "30d"},
        {"group": "colour"},
        {"metric": "mood"},
    ],
)
def test_a_wrong_filter_says_so_and_shows_nothing_else(alice: Client, query: dict[str, str]) -> None:
    for path in (REQUESTS, USAGE, f"{USAGE}export.csv", f"{USAGE}sums.csv"):
        response = alice.get(path, query)
        assert response.status_code == 422
        assert response.context["form"].errors
        page = words_of(response.content)
        assert "This filter cannot be shown" in page and "<table" not in page
        assert "errorlist" in page or "notice-error" in page


def test_a_wrong_page_is_not_found(alice: Client) -> None:
    assert alice.get(REQUESTS, {"before": "x"}).status_code == 404
    assert alice.get(REQUESTS, {"after": "x"}).status_code == 404


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
    page = words_of(response.content)
    assert "\N{MULTIPLICATION SIGN} 0.9" in page
    assert f"${format_usd(event.cost_nanos)}" in page
    assert "Please report this request" not in page
    assert all(text in page for text in ("user-1", "curl/8", "end_turn", f"msg_{event.request_id}"))
    assert "upstream_cost" not in page and "0.00 cost" not in page


def test_a_receipt_whose_arithmetic_differs_says_so(alice: Client, people: People, version: PriceVersion) -> None:
    event = billed_event(people.key, version)
    event.cost_nanos += 1
    settle([event])
    assert "Please report this request" in words_of(alice.get(f"{USAGE}{event.request_id}/").content)


def test_a_failed_request_has_a_receipt_of_nothing(alice: Client, people: People, version: PriceVersion) -> None:
    event = failed_event(people.key, version)
    settle([event])
    page = alice.get(f"{USAGE}{event.request_id}/").content.decode()
    assert "nothing was billed" in page
    assert "upstream_<wbr>overloaded" in page
    assert "529" in page


def test_what_was_not_billed_shows_no_amount(alice: Client, people: People, version: PriceVersion) -> None:
    settle([failed_event(people.key, version)])
    rows = words_of(alice.get(REQUESTS).content).partition('id="request-rows"')[2].partition("</tbody>")[0]
    assert "upstream_overloaded" in rows and ": nothing was billed" in rows
    assert "$" not in rows


def test_without_requests_it_says_what_to_do_and_blames_no_filter(alice: Client, version: PriceVersion) -> None:
    page = words_of(alice.get(REQUESTS).content)
    assert "No requests yet" in page and "How to send one" in page
    assert "Without filters" not in page
    filtered = words_of(alice.get(REQUESTS, {"tag": "ci"}).content)
    assert "Without filters" in filtered and "No requests yet" not in filtered


def test_receipts_take_the_id_in_every_form(alice: Client, people: People, version: PriceVersion) -> None:
    event = billed_event(people.key, version)
    settle([event])
    record = UsageRecord.objects.get()
    for form in (f"msg_{event.request_id}", f"req_{event.request_id}", str(record.request_id)):
        assert alice.get(f"{USAGE}{form}/").status_code == 200
    assert alice.get(f"{USAGE}msg_{'0' * 32}/").status_code == 404
    assert alice.get(f"{USAGE}nonsense/").status_code == 404


def read_csv(response: Any) -> list[dict[str, str]]:
    text = read_streamed(response).decode()
    return list(csv.DictReader(io.StringIO(text)))


def test_the_export_holds_exact_amounts_and_no_formulas(alice: Client, people: People, version: PriceVersion) -> None:
    ApiKey.objects.filter(pk=people.key.pk).update(name='=HYPERLINK("http://evil.example")')
    billed = billed_event(people.key, version, end_user="=user", tag="ci")
    failed = failed_event(people.key, version, at=datetime.now(UTC) - timedelta(seconds=5))
    settle([billed, failed])
    response = alice.get(f"{USAGE}export.csv")
    assert response["Content-Disposition"].startswith('attachment; filename="usage-alice-')
    rows = read_csv(response)
    assert [row["request_id"] for row in rows] == [f"msg_{billed.request_id}", f"msg_{failed.request_id}"]
    assert rows[0]["cost_usd"] == format_usd(billed.cost_nanos)
    assert rows[0]["key_name"] == '\'=HYPERLINK("http://evil.example")'
    assert (rows[1]["outcome"], rows[1]["error_code"], rows[1]["cost_usd"]) == ("failed", "upstream_overloaded", "0.00")
    assert [rows[0][name] for name in ("end_user", "tag", "session")] == ["'=user", "ci", ""]
    assert set(rows[0]) == set(rows[1])


def test_the_export_is_bounded(
    alice: Client, people: People, version: PriceVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "MAX_EXPORT_ROWS", 5)
    monkeypatch.setattr(listing, "EXPORT_CHUNK_ROWS", 2)
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
    alice.get(REQUESTS)
    with django_assert_num_queries(10):
        assert len(alice.get(REQUESTS).context["page"].requests) == rows
