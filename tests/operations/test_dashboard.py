"""The dashboard: what happened comes from counts that agree with records, at the same cost for any number of them."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from accounts.keys import create_key
from accounts.models import ApiKey
from billing.models import PriceVersion, UsageRecord
from billing.request_id import first_id_at
from billing.usage.refusals import Refusal, write_refusals
from operations.chart import draw_bars
from operations.dashboard import PERIODS, read_period
from operations.models import TrafficHour, TrafficMinute
from operations.traffic import COUNT, count_traffic, recount_day, traffic_between
from tests.support.people import People, client_of, make_person
from tests.support.settled_usage import billed_event, failed_event, request_id_at, sell_model, settle

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 11, 20, 14, 30, 30, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


@pytest.fixture
def key(people: People) -> ApiKey:
    return create_key(people.organization, name="test", created_by=None)[0]


@pytest.fixture
def version() -> PriceVersion:
    return sell_model()


@pytest.fixture
def operator(people: People) -> Client:
    return client_of(make_person("operator", is_staff=True, is_superuser=True))


def refuse(key: ApiKey, *, at: datetime, repeats: int = 0) -> None:
    fields: dict[str, Any] = {"endpoint": "messages", "model_id": "m", "status": 402, "error_code": "x", "message": "x"}
    write_refusals(
        [
            Refusal(
                request_id=request_id_at(at).hex, organization_id=key.organization_id, key_id=key.pk, refused_at=at,
                repeats=repeats, **fields,
            )
        ]
    )  # fmt: skip


def test_minutes_and_hours_agree_with_the_records(key: ApiKey, version: PriceVersion) -> None:
    settle(
        [
            billed_event(key, version, at=NOW - 90 * MINUTE, upstream_cost_nanos=500),
            billed_event(key, version, at=NOW - 2 * MINUTE, upstream_cost_nanos=700),
            failed_event(key, version, at=NOW - 2 * MINUTE, upstream_cost_nanos=11),
        ]
    )
    refuse(key, at=NOW - 3 * MINUTE, repeats=4)
    count_traffic(now=NOW)
    costs = list(UsageRecord.objects.order_by("request_id").values_list("cost_nanos", flat=True))
    last_hour = traffic_between(NOW - HOUR, NOW)
    assert (last_hour.requests, last_hour.failed, last_hour.refused) == (1, 1, 5)
    assert (last_hour.cost_nanos, last_hour.upstream_cost_nanos) == (costs[1], 711)
    assert last_hour.margin_nanos == costs[1] - 711
    hours = {row.hour.hour: row.requests for row in TrafficHour.objects.all() if row.requests}
    assert hours == {13: 1, 14: 1}
    day = read_period(PERIODS[1], now=NOW)
    assert [card.value for card in day.usage_cards] == [2, 1, 5]
    assert [card.value for card in day.money_cards] == [sum(costs), 1211, sum(costs) - 1211]
    assert sum(row.sums.requests for row in day.rows) == 2


def test_what_comes_late_is_counted_and_nothing_twice(key: ApiKey, version: PriceVersion) -> None:
    first = billed_event(key, version, at=NOW - MINUTE)
    settle([first])
    count_traffic(now=NOW)
    settle([first, billed_event(key, version, at=NOW - 4 * MINUTE)])
    count_traffic(now=NOW)
    count_traffic(now=NOW)
    assert traffic_between(NOW - HOUR, NOW).requests == 2
    settle([billed_event(key, version, at=NOW - 3 * HOUR)])
    count_traffic(now=NOW)
    assert read_period(PERIODS[1], now=NOW).usage_cards[0].value == 2, "So late comes no usage but by a fault."
    [changed] = recount_day(NOW.date())
    assert changed == "2026-11-20 11h: 0 requests were counted, and there are 1."
    assert recount_day(NOW.date()) == []
    assert read_period(PERIODS[1], now=NOW).usage_cards[0].value == 3


def test_a_worker_that_was_away_counts_what_it_missed(key: ApiKey, version: PriceVersion) -> None:
    settle([billed_event(key, version, at=NOW - 40 * DAY), billed_event(key, version, at=NOW - 5 * DAY)])
    count_traffic(now=NOW)
    month = read_period(PERIODS[2], now=NOW)
    assert (month.usage_cards[0].value, month.usage_cards[0].before) == (1, 1)
    assert (month.usage_cards[0].change_text, month.usage_cards[1].change_text) == ("+0 %", "")
    assert not TrafficMinute.objects.filter(minute__lt=NOW - 3 * DAY).exists()
    assert count_traffic(now=NOW) <= 2, "The next run does not begin again."


def test_counting_reads_the_records_of_its_window_only(key: ApiKey, version: PriceVersion) -> None:
    """By plan: the partitions of two months at most, and each by its primary key."""
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
        ids = {"first": first_id_at(NOW - HOUR), "last": first_id_at(NOW)}
        cursor.execute("EXPLAIN " + COUNT, {"begins": NOW - HOUR, "ends": NOW, **ids})
        plan = "\n".join(row[0] for row in cursor.fetchall())
    assert plan.count("billing_usagerecord_") <= 4
    assert "refused_by_time" in plan
    assert "Seq Scan" not in plan


def test_the_page_costs_the_same_with_many_records(operator: Client, key: ApiKey, version: PriceVersion) -> None:
    now = datetime.now(UTC)
    settle([billed_event(key, version, at=now - MINUTE)])
    count_traffic(now=now)
    operator.get("/admin/")  # What is asked once in a process is known now.
    with CaptureQueriesContext(connection) as few:
        operator.get("/admin/?period=month")
    settle([billed_event(key, version, at=now - number * HOUR) for number in range(60)])
    recount_day(now.date())
    with CaptureQueriesContext(connection) as many:
        page = operator.get("/admin/?period=month").content.decode()
    assert len(many) == len(few)
    asked = " ".join(query["sql"] for query in many.captured_queries)
    assert "operations_traffichour" in asked
    for table in ("billing_usagerecord", "billing_usagehour", "billing_failedrequest"):
        assert f'FROM "{table}"' not in asked
    assert "Last 30 days" in page
    assert page.count("<rect") >= 2


def test_each_period_is_a_page_and_a_wrong_one_is_the_day(operator: Client) -> None:
    titles = {"hour": "Last hour", "month": "Last 30 days", "x": "Last 24 hours", "": "Last 24 hours"}
    for wanted, title in titles.items():
        page = operator.get(f"/admin/?period={wanted}")
        assert page.context["happened"].period.title == title
        assert page.status_code == 200


def test_bars_stay_within_their_box_and_nothing_is_divided_by_nothing() -> None:
    empty = draw_bars(["a", "b"], [0, 0], [0, 0], [0, 0])
    assert (empty.top, [bar.whole_height for bar in empty.bars]) == (0, [0.0, 0.0])
    chart = draw_bars(["a", "b", "c"], [1, 0, 10**13], [0, 0, -5], [7, 0, 10**12])
    assert chart.top == 10**13
    assert all(0 <= bar.whole_y <= chart.baseline and bar.right <= chart.width for bar in chart.bars)
    assert [bar.part_height for bar in chart.bars] == [0.0, 0.0, 0.0], "A negative margin draws no bar."
    assert chart.bars[0].whole_height == 2, "What is anything at all is seen."
