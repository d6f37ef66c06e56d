"""Reports in the shape of Anthropic's Admin API: read as documented, and refused where they are half or nonsense."""

from copy import deepcopy
from datetime import date
from typing import Any

import pytest

from billing.reconciliation.provider_reports import COST, USAGE, InvalidReportError, ReportDay, read_report
from tests.support.provider_reports import cost_page, usage_page

DAY = date(2026, 11, 26)


def test_usage_is_read_by_day_and_model() -> None:
    days = read_report(USAGE, [usage_page(DAY, "claude-large-20260217", input_tokens=1500, output_tokens=500)])
    assert days == {
        DAY: ReportDay(
            counts={
                "claude-large-20260217": {
                    "input_tokens": 1500,
                    "output_tokens": 500,
                    "cache_write_5m_tokens": 0,
                    "cache_write_1h_tokens": 0,
                    "cache_read_tokens": 0,
                    "web_searches": 0,
                }
            }
        )
    }


def test_groups_and_hours_are_added_up() -> None:
    first, second = usage_page(DAY, "m", cache_read_tokens=5), usage_page(DAY, "m", cache_write_1h_tokens=7)
    [early], [late] = first["data"], second["data"]
    early["ending_at"] = f"{DAY}T01:00:00Z"
    late["starting_at"], late["ending_at"] = f"{DAY}T23:00:00+00:00", "2026-11-27T00:00:00Z"
    early["results"] *= 2
    days = read_report(USAGE, [{**first, "data": [early, late]}])
    counts = days[DAY].counts["m"]
    assert (counts["cache_read_tokens"], counts["cache_write_1h_tokens"]) == (10, 7)


def test_cost_is_cents_as_decimal_text() -> None:
    page = cost_page(DAY, {"m": "123.78912", "": "0.5"})
    page["data"][0]["results"].append(dict(page["data"][0]["results"][0]))
    assert read_report(COST, [page])[DAY].cost_nanos == {"m": 2 * 1_237_891_200, "": 5_000_000}


def test_a_day_without_results_is_a_day_of_nothing() -> None:
    page = {"data": [{**usage_page(DAY, "m")["data"][0], "results": []}], "has_more": False, "next_page": None}
    assert read_report(USAGE, [page]) == {DAY: ReportDay()}


def test_all_pages_are_needed() -> None:
    first = {**usage_page(DAY, "m", output_tokens=1), "has_more": True}
    last = usage_page(date(2026, 11, 27), "m", output_tokens=2)
    assert len(read_report(USAGE, [first, last])) == 2
    with pytest.raises(InvalidReportError, match="not whole"):
        read_report(USAGE, [first])
    with pytest.raises(InvalidReportError, match="not whole"):
        read_report(USAGE, [])


def broken(kind: str, **changes: Any) -> dict[str, Any]:
    """Return a page whose first result, or first bucket, has these values; a value of ... takes the field away."""
    page = deepcopy(usage_page(DAY, "m", output_tokens=1) if kind == USAGE else cost_page(DAY, {"m": "1"}))
    [bucket] = page["data"]
    for name, value in changes.items():
        target = bucket if name in bucket else bucket["results"][0]
        if value is ...:
            del target[name]
        else:
            target[name] = value
    return page


@pytest.mark.parametrize(
    ("kind", "page"),
    [
        (USAGE, []),
        (USAGE, {"data": []}),
        (USAGE, {"data": {}, "has_more": False}),
        (USAGE, {"data": [1], "has_more": False}),
        (USAGE, {"error": {"type": "authentication_error"}}),
        (USAGE, broken(USAGE, output_tokens=-1)),
        (USAGE, broken(USAGE, output_tokens=1.5)),
        (USAGE, broken(USAGE, output_tokens=True)),
        (USAGE, broken(USAGE, output_tokens=2**60)),
        (USAGE, broken(USAGE, uncached_input_tokens=...)),
        (USAGE, broken(USAGE, cache_creation=[1])),
        (USAGE, broken(USAGE, model=7)),
        (USAGE, broken(USAGE, results=None)),
        (USAGE, broken(USAGE, results=["x"])),
        (USAGE, broken(USAGE, starting_at="yesterday")),
        (USAGE, broken(USAGE, starting_at="2026-11-26T00:00:00")),
        (USAGE, broken(USAGE, starting_at="2026-11-26T12:00:00Z", ending_at="2026-11-27T12:00:00Z")),
        (USAGE, broken(USAGE, ending_at="2026-11-28T00:00:00Z")),
        (USAGE, broken(USAGE, ending_at="2026-11-26T00:00:00Z")),
        (USAGE, cost_page(DAY, {"m": "1"})),
        (COST, usage_page(DAY, "m")),
        (COST, broken(COST, currency="EUR")),
        (COST, broken(COST, currency=...)),
        (COST, broken(COST, amount="a lot")),
        (COST, broken(COST, amount="NaN")),
        (COST, broken(COST, amount="1e30")),
        (COST, broken(COST, amount=...)),
    ],
)
def test_what_is_no_report_is_refused(kind: str, page: Any) -> None:
    with pytest.raises(InvalidReportError):
        read_report(kind, [page])
