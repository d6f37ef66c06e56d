"""Reports of usage and cost in the shape of Anthropic's Admin API, read into rows. Pure: JSON in, rows out.

`/v1/organizations/usage_report/messages` and `/v1/organizations/cost_report`, as documented on platform.claude.com
(Admin API, read in November 2026): pages of time buckets with `results`, `has_more` and `next_page`. Buckets of minutes
and hours are added up to days. Amounts of the cost report are decimal texts in cents.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from typing import Any

USAGE, COST = "usage", "cost"
MAX_BUCKETS = 50_000
MAX_TOKENS = 2**53
NANOS_PER_CENT = 10_000_000
MAX_CENTS = Decimal(10) ** 12
COUNTS = (
    "input_tokens",
    "output_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "cache_read_tokens",
    "web_searches",
)


class InvalidReportError(ValueError):
    """This is no whole report; the text says what is wrong with it."""


@dataclass(slots=True)
class ReportDay:
    """What a provider told of one day, by its own name of the model; "" where it names none."""

    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    cost_nanos: dict[str, int] = field(default_factory=dict)


def read_report(kind: str, pages: Iterable[Any]) -> dict[date, ReportDay]:
    """Return what the pages say, by UTC day. Days of which they tell nothing, but which they cover, are there too.

    Raises InvalidReportError, also when pages are missing: half a report would look like a difference.
    """
    days: dict[date, ReportDay] = {}
    buckets = 0
    more = True
    for page in pages:
        if not isinstance(page, dict) or not isinstance(page.get("data"), list) or "has_more" not in page:
            raise InvalidReportError("This is no page of a report: data or has_more is missing.")
        more = bool(page["has_more"])
        for bucket in page["data"]:
            buckets += 1
            if buckets > MAX_BUCKETS:
                raise InvalidReportError(f"The report has more than {MAX_BUCKETS} buckets.")
            _read_bucket(kind, bucket, days)
    if more:
        raise InvalidReportError("The report is not whole: its last page says that there is more.")
    return days


def _read_bucket(kind: str, bucket: Any, days: dict[date, ReportDay]) -> None:
    begins, ends = _moment(bucket, "starting_at"), _moment(bucket, "ending_at")
    if not begins < ends <= begins + timedelta(days=1) or (ends - timedelta(microseconds=1)).date() != begins.date():
        raise InvalidReportError(f"The bucket of {begins:%Y-%m-%d %H:%M} is no part of one UTC day.")
    results = bucket.get("results")
    if not isinstance(results, list):
        raise InvalidReportError(f"The bucket of {begins:%Y-%m-%d %H:%M} has no results.")
    day = days.setdefault(begins.date(), ReportDay())
    for result in results:
        if not isinstance(result, dict):
            raise InvalidReportError("A result is no object.")
        (_add_usage if kind == USAGE else _add_cost)(day, result)


def _add_usage(day: ReportDay, result: Mapping[str, Any]) -> None:
    creation = result.get("cache_creation") or {}
    tools = result.get("server_tool_use") or {}
    if "uncached_input_tokens" not in result or not isinstance(creation, dict) or not isinstance(tools, dict):
        raise InvalidReportError("A result is none of a usage report: it counts no uncached_input_tokens.")
    counts = day.counts.setdefault(_model(result), dict.fromkeys(COUNTS, 0))
    for name, value in (
        ("input_tokens", result["uncached_input_tokens"]),
        ("output_tokens", result.get("output_tokens")),
        ("cache_write_5m_tokens", creation.get("ephemeral_5m_input_tokens")),
        ("cache_write_1h_tokens", creation.get("ephemeral_1h_input_tokens")),
        ("cache_read_tokens", result.get("cache_read_input_tokens")),
        ("web_searches", tools.get("web_search_requests")),
    ):
        counts[name] += _count(name, value)


def _add_cost(day: ReportDay, result: Mapping[str, Any]) -> None:
    if result.get("currency") != "USD":
        raise InvalidReportError(f"A cost is in {result.get('currency')!r}; only USD can be compared.")
    try:
        cents = Decimal(str(result["amount"]))
    except (KeyError, InvalidOperation):
        raise InvalidReportError("A cost has no amount.") from None
    if not cents.is_finite() or abs(cents) > MAX_CENTS:
        raise InvalidReportError(f"The amount {result['amount']!r} is out of bounds.")
    nanos = int((cents * NANOS_PER_CENT).to_integral_value(ROUND_HALF_EVEN))
    model = _model(result)
    day.cost_nanos[model] = day.cost_nanos.get(model, 0) + nanos


def _model(result: Mapping[str, Any]) -> str:
    model = result.get("model") or ""
    if not isinstance(model, str):
        raise InvalidReportError("A model is no text.")
    return model


def _count(name: str, value: Any) -> int:
    if value is None:
        return 0
    if type(value) is not int or not 0 <= value <= MAX_TOKENS:
        raise InvalidReportError(f"{name} is {value!r}, which is no count.")
    return value


def _moment(bucket: Any, name: str) -> datetime:
    try:
        moment = datetime.fromisoformat(bucket[name])
    except (KeyError, TypeError, ValueError):
        raise InvalidReportError(f"A bucket has no {name}.") from None
    if moment.tzinfo is None:
        raise InvalidReportError(f"{name} has no offset.")
    return moment.astimezone(UTC)
