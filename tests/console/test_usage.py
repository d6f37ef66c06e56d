import csv
import io
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from django import forms
from django.test import Client
from django.test.html import parse_html

from accounts.keys import create_key
from billing.models import AttributedDay, PriceVersion
from billing.money import format_usd
from billing.usage.sums import Sums, UsageFilter, sum_by_group, sum_period
from console.forms.usage import days_of
from console.usage_tables import change_of
from pages.fields import LongSelect
from tests.support.people import People, client_of
from tests.support.settled_usage import billed_event, failed_event, sell_model, settle

USAGE = "/console/alice/usage/"


@pytest.fixture
def alice(people: People) -> Client:
    return client_of(people.alice)


@pytest.fixture
def version(db: None) -> PriceVersion:
    return sell_model()


def rows_on(client: Client, **query: Any) -> list[tuple[str, int, int]]:
    rows = client.get(USAGE, query).context["rows"]
    return [(row.name, row.sums.requests, row.sums.cost_nanos) for row in rows]


def use_it_all(people: People, version: PriceVersion) -> dict[str, Any]:
    """Use it by two keys, two models, and for different people, now and in the thirty days before those."""
    now = datetime.now(UTC)
    bobs, _ = create_key(people.organization, name="Bob's", created_by=people.bob)
    small = sell_model("acme/small")
    events = [
        billed_event(people.key, version, at=now, end_user="user-1", tag="ci", input_tokens=900, cache_read_tokens=300),
        billed_event(people.key, version, at=now - timedelta(days=1), end_user="user-1"),
        billed_event(bobs, small, at=now - timedelta(days=2), tag="ci", session="s-1"),
        billed_event(bobs, version, at=now - timedelta(days=2)),
        billed_event(people.key, version, at=now - timedelta(days=40)),
    ]
    settle(events)
    return {"costs": [event.cost_nanos for event in events], "bobs": bobs, "events": events}


def test_sums_by_every_group_add_up(alice: Client, people: People, version: PriceVersion) -> None:
    used = use_it_all(people, version)
    a, b, c, d, old = used["costs"]
    context = alice.get(USAGE).context
    assert (context["now"].requests, context["now"].cost_nanos) == (4, a + b + c + d)
    assert context["figures"][0].change == f"{round((a + b + c + d - old) * 100 / old):+,} %"
    assert context["figures"][3].text == f"{300 / (900 + 300 + 3 * 1200) * 100:.1f} %"
    expected = {
        "model": {("acme/large", 3, a + b + d), ("acme/small", 1, c)},
        "key": {(f"Backend (…{people.key.last_four})", 2, a + b), (f"Bob's (…{used['bobs'].last_four})", 2, c + d)},
        "member": {("alice@example.org", 2, a + b), ("bob@example.org", 2, c + d)},
        "end_user": {("user-1", 2, a + b), ("None named", 2, c + d)},
        "tag": {("ci", 2, a + c), ("None named", 2, b + d)},
        "session": {("s-1", 1, c), ("None named", 3, a + b + d)},
    }
    for group, rows in expected.items():
        assert set(rows_on(alice, group=group)) == rows, group


def test_a_list_of_many_keys_is_what_django_would_write_without_a_template_for_each(alice: Client) -> None:
    choices = [("", "All"), ("1", "<b>'\"&"), ("2", "Two")]
    for value in ("", "2", None):
        ours = LongSelect(choices=choices).render("key", value, {"id": "id_key", "required": True})
        djangos = forms.Select(choices=choices).render("key", value, {"id": "id_key", "required": True})
        assert parse_html(ours) == parse_html(djangos)
    fields = alice.get(USAGE).context["form"].fields
    assert all(isinstance(fields[name].widget, LongSelect) for name in ("key", "model", "member"))


def test_without_usage_it_says_what_to_do_and_blames_no_filter(alice: Client, version: PriceVersion) -> None:
    page = alice.get(USAGE).content.decode()
    assert "How to send one" in page
    assert "Without filters" not in page
    assert "Without filters" in alice.get(USAGE, {"tag": "ci"}).content.decode()


def test_filters_go_together_and_each_row_leads_on(alice: Client, people: People, version: PriceVersion) -> None:
    used = use_it_all(people, version)
    a, b, c, d, _ = used["costs"]
    assert rows_on(alice, tag="ci", group="model") == sorted(
        [("acme/large", 1, a), ("acme/small", 1, c)], key=lambda row: -row[2]
    )
    assert rows_on(alice, tag="ci", end_user="user-1", group="key")[0][1:] == (1, a)
    assert rows_on(alice, member=people.bob.pk, model="acme/large")[0][1:] == (1, d)
    assert rows_on(alice, key=people.key.pk, member=people.bob.pk) == []
    assert rows_on(alice, session="none") == []
    row = next(row for row in alice.get(USAGE, {"group": "key"}).context["rows"] if "Bob" in row.name)
    context = alice.get(USAGE + row.query).context
    assert context["now"].cost_nanos == c + d
    [chip] = context["chips"]
    assert (chip.label, chip.value) == ("Key", row.name)
    assert alice.get(USAGE + chip.query).context["now"].cost_nanos == a + b + c + d
    listed = alice.get("/console/alice/requests/" + row.requests).context["page"].requests
    assert {found.request_id.hex for found in listed} == {event.request_id for event in used["events"][2:4]}


@pytest.mark.parametrize("interval", ["hour", "day", "month"])
def test_bars_and_the_table_beneath_them_agree(
    alice: Client, people: People, version: PriceVersion, interval: str
) -> None:
    costs = use_it_all(people, version)["costs"]
    today = datetime.now(UTC).date()
    query = {"interval": interval, "first_day": str(today - timedelta(days=6)), "last_day": str(today)}
    context = alice.get(USAGE, query).context
    assert sum(bar.point.total for bar in context["chart"].bars) == sum(costs[:4])
    assert sum(sums.cost_nanos for _, sums in context["times"]) == sum(costs[:4])
    tokens = alice.get(USAGE, {**query, "metric": "tokens"}).context
    assert sum(bar.point.total for bar in tokens["chart"].bars) == tokens["now"].tokens
    bar = next(bar for bar in context["chart"].bars if bar.point.total)
    assert alice.get(USAGE + bar.point.link).context["now"].cost_nanos >= bar.point.total


def test_hours_of_an_end_user_are_days(alice: Client, people: People, version: PriceVersion) -> None:
    """They are not kept by the hour: the page says what it shows."""
    use_it_all(people, version)
    context = alice.get(USAGE, {"period": "7d", "interval": "hour", "end_user": "user-1"}).context
    assert (context["interval"], len(context["times"])) == ("day", 2)


def test_the_csv_is_what_is_shown_with_exact_amounts(alice: Client, people: People, version: PriceVersion) -> None:
    costs = use_it_all(people, version)["costs"]
    for query in ({"group": "end_user"}, {"group": "time", "period": "7d"}):
        response = alice.get(f"{USAGE}sums.csv", query)
        rows = list(csv.DictReader(io.StringIO(response.content.decode())))
        assert sum(int(row["requests"]) for row in rows) == 4
        named = {next(iter(row.values())): row["cost_usd"] for row in rows}
        if query["group"] == "end_user":
            assert named["user-1"] == format_usd(costs[0] + costs[1])
        else:
            assert named[str(datetime.now(UTC).date())] == format_usd(costs[0])
            assert len(rows) == 7


def test_what_is_beyond_the_bound_is_told(alice: Client, people: People, version: PriceVersion) -> None:
    use_it_all(people, version)
    AttributedDay.objects.filter(end_user="user-1").update(end_user=AttributedDay.OTHER)
    [row] = [row for row in alice.get(USAGE, {"group": "end_user"}).context["rows"] if row.name != "None named"]
    assert (row.name, row.query) == ("Beyond the daily bound", "")


def test_what_is_beyond_the_longest_table_is_summed(
    people: People, version: PriceVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_it_all(people, version)
    today = datetime.now(UTC).date()
    wanted = UsageFilter(today - timedelta(days=2), today)
    for grouping in ("model_id", "key_id"):
        groups = sum_by_group(people.organization, wanted, grouping, limit=1)
        assert groups.rest is not None and groups.unnamed is None
        assert groups.shown[0].sums + groups.rest == sum_period(people.organization, wanted)
    settle([billed_event(people.key, version, end_user="user-2")])
    groups = sum_by_group(people.organization, wanted, "end_user", limit=1)
    assert groups.rest is not None and groups.unnamed is not None
    assert groups.shown[0].sums + groups.rest + groups.unnamed == sum_period(people.organization, wanted)
    assert [groups.shown[0].name, groups.rest.requests, groups.unnamed.requests] == ["user-1", 1, 2]


@pytest.mark.parametrize(
    ("period", "today", "days"),
    [
        ("month", date(2026, 3, 1), (date(2026, 3, 1), date(2026, 3, 1))),
        ("last_month", date(2026, 3, 31), (date(2026, 2, 1), date(2026, 2, 28))),
        ("last_month", date(2026, 1, 1), (date(2025, 12, 1), date(2025, 12, 31))),
        ("12mo", date(2026, 11, 28), (date(2025, 12, 1), date(2026, 11, 28))),
        ("12mo", date(2026, 12, 31), (date(2026, 1, 1), date(2026, 12, 31))),
        ("12mo", date(2028, 2, 29), (date(2027, 3, 1), date(2028, 2, 29))),
        ("yesterday", date(2026, 1, 1), (date(2025, 12, 31), date(2025, 12, 31))),
        ("7d", date(2026, 1, 3), (date(2025, 12, 28), date(2026, 1, 3))),
    ],
)
def test_periods_are_whole_utc_days(period: str, today: date, days: tuple[date, date]) -> None:
    assert days_of(period, today) == days


@pytest.mark.parametrize("rows", [1, 3])
def test_it_costs_the_same_queries(
    alice: Client, people: People, version: PriceVersion, rows: int, django_assert_num_queries: Any
) -> None:
    settle([billed_event(people.key, version, end_user=f"user-{number}") for number in range(rows)])
    alice.get(USAGE)
    with django_assert_num_queries(11):
        assert len(alice.get(USAGE, {"group": "end_user"}).context["rows"]) == rows


@pytest.mark.parametrize(
    ("now", "before", "told"),
    [
        (1_000, 1_000, "unchanged"),
        (999, 1_000, "nearly unchanged"),
        (994, 1_000, "\N{MINUS SIGN}1 %"),
        (1_019, 1_000, "+2 %"),
        (0, 1_000, "\N{MINUS SIGN}100 %"),
        (5, 0, ""),
    ],
)
def test_a_change_is_rounded_to_the_nearest_percent(now: int, before: int, told: str) -> None:
    assert change_of("spend", Sums(cost_nanos=now), Sums(cost_nanos=before)) == told


def test_whoever_filters_on_keeps_the_days_that_they_see(alice: Client, people: People, version: PriceVersion) -> None:
    """The form of the filter is sent as a browser sends it: every field with what it shows."""
    use_it_all(people, version)
    seen = alice.get(USAGE, {"period": "7d", "metric": "tokens"})
    form = seen.context["form"]
    shown = {field.name: field.value() for field in form if field.name in ("first_day", "last_day") and field.value()}
    assert shown["last_day"] == datetime.now(UTC).date() and len(shown) == 2
    again = alice.get(USAGE, {**shown, **dict(seen.context["kept"]), "model": "acme/small"})
    assert again.context["wanted"].days == 7
    assert [period["label"] for period in again.context["periods"] if period["is_chosen"]] == ["Last 7 days"]
    assert alice.get(USAGE).context["form"]["first_day"].value() is None


def test_the_number_of_a_row_leads_to_as_many_requests(alice: Client, people: People, version: PriceVersion) -> None:
    settle([billed_event(people.key, version), failed_event(people.key, version)])
    [row] = alice.get(USAGE).context["rows"]
    listed = alice.get(f"/console/alice/requests/{row.requests}").context["page"].requests
    assert len(listed) == row.sums.requests == 1
