from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from django.test import Client

from accounts.models import ApiKey, Organization
from billing.admission.outbox import publish_pending_changes
from billing.admission.redis_keys import shard_keys_of
from billing.budgets.amounts import Amounts, Holder
from billing.budgets.overrides import Scope, make_override
from billing.credit.top_ups import grant_credit
from billing.models import CreditLot
from billing.request_id import make_request_id
from billing.usage.refusals import Refusal, write_refusals
from console.chart import HEIGHT, WIDTH, Point, draw_bars
from tests.support.people import People, client_of
from tests.support.settled_usage import billed_event, failed_event, sell_model, settle

OVERVIEW = "/console/alice/"


@pytest.fixture
def alice(people: People) -> Client:
    return client_of(people.alice)


def give(organization: Organization, usd: int) -> None:
    grant_credit(
        organization,
        amount_nanos=usd * 10**9,
        kind=CreditLot.Kind.PAID,
        reason="test",
        actor="test",
        idempotency_key=f"test:{organization.pk}:{usd}",
    )


def test_what_is_available_is_what_admission_enforces(alice: Client, people: People, redis_client: redis.Redis) -> None:
    give(people.organization, 20)
    Organization.objects.filter(pk=people.organization.pk).update(credit_limit_nanos=5 * 10**9)
    publish_pending_changes()
    org = shard_keys_of(people.organization.pk).org(people.organization.pk)
    redis_client.hset(org, mapping={"held": 1_500_000_000, "unsettled": 250_000_000, "open": 2})

    response = alice.get(OVERVIEW)
    state = response.context["balance"].state
    assert (state.credit_nanos, state.limit_nanos) == (20 * 10**9, 5 * 10**9)
    page = " ".join(response.content.decode().split())
    assert 'title="$23.25"' in page  # 20 + 5 - 0.25 - 1.5
    assert "by 2 running requests" in page
    assert 'title="$1.50"' in page and 'title="$0.25"' in page


def test_an_organization_that_redis_does_not_know_is_loaded_first(alice: Client, people: People) -> None:
    give(people.organization, 7)
    assert alice.get(OVERVIEW).context["balance"].available_nanos == 7 * 10**9


@pytest.mark.usefixtures("redis_away")
def test_without_redis_it_shows_the_posted_balance_and_says_so(alice: Client, people: People) -> None:
    give(people.organization, 20)
    response = alice.get(OVERVIEW)
    assert response.status_code == 200
    assert response.context["balance"].available_nanos is None
    page = response.content.decode()
    assert "cannot say what is available" in page
    assert 'title="$20.00"' in page
    assert "Available" not in page


def test_spend_and_latest_requests(alice: Client, people: People) -> None:
    now = datetime.now(UTC)
    version = sell_model()
    events = [billed_event(people.key, version, at=now - timedelta(seconds=n), output_tokens=n + 1) for n in range(9)]
    settle([*events, failed_event(people.key, version, at=now + timedelta(milliseconds=1))])
    response = alice.get(OVERVIEW)
    listed = response.context["requests"]
    assert [row.request_id.hex for row in listed][1:] == [event.request_id for event in events[:7]]
    assert listed[0].error_code == "upstream_overloaded"
    spent = sum(event.cost_nanos for event in events)
    assert response.context["now"].sums.cost_nanos == response.context["month"].month_nanos == spent
    assert (response.context["now"].sums.requests, response.context["now"].failed) == (9, 1)
    assert "Backend" in response.content.decode()


def test_a_new_organization_is_led_to_its_first_key(alice: Client, people: People) -> None:
    ApiKey.objects.all().delete()
    page = alice.get(OVERVIEW).content.decode()
    assert "Send the first request" in page
    assert "Create an API key" in page


def test_a_suspended_organization_says_so(alice: Client, people: People) -> None:
    Organization.objects.filter(pk=people.organization.pk).update(status="suspended")
    assert "This organization is suspended" in alice.get(OVERVIEW).content.decode()


@pytest.mark.parametrize("rows", [1, 3])
def test_it_costs_the_same_queries(alice: Client, people: People, rows: int, django_assert_num_queries: Any) -> None:
    version = sell_model()
    settle([billed_event(people.key, version) for _ in range(rows)])
    alice.get(OVERVIEW)
    with django_assert_num_queries(21):
        assert len(alice.get(OVERVIEW).context["requests"]) == rows


def test_the_checklist_turns_over_by_itself(alice: Client, people: People) -> None:
    page = alice.get(OVERVIEW)
    assert [step["done"] for step in page.context["steps"]] == [False, True, False]
    asked = f"{OVERVIEW}first-steps/?until={page.context['until']}"
    assert "every 3s" in page.content.decode() and "every 3s" in alice.get(asked).content.decode()
    assert alice.get(f"{OVERVIEW}first-steps/?until=1")["HX-Trigger"] == "following-ended"
    event = billed_event(people.key, sell_model())
    settle([event])
    done = alice.get(asked).content.decode()
    assert "The first request has arrived" in done and event.request_id in done and "every 3s" not in done
    assert "First steps" not in alice.get(OVERVIEW).content.decode()


def test_budgets_projection_and_rates_beside_those_before(alice: Client, people: People) -> None:
    version, now = sell_model(), datetime.now(UTC)
    Organization.objects.filter(pk=people.organization.pk).update(monthly_budget_nanos=1_000_000)
    events = [billed_event(people.key, version, at=now - timedelta(days=n)) for n in (0, 1, 2, 3, 40)]
    settle([*events, failed_event(people.key, version, at=now)])
    refusal = Refusal(
        make_request_id().hex, people.organization.pk, people.key.pk, "messages", "x", 402, "x", "No.", now, repeats=4
    )
    write_refusals([refusal])
    context = alice.get(OVERVIEW).context
    month = context["month"]
    assert month.today_nanos == events[0].cost_nanos
    assert month.projected_nanos >= month.month_nanos and month.is_projected_over_budget
    assert month.monthly_percent == month.month_nanos * 100 // 1_000_000
    Organization.objects.filter(pk=people.organization.pk).update(budgets_only_notify=True)
    make_override(
        people.organization,
        holder=Holder(Scope.ORGANIZATION),
        amounts=Amounts(monthly_nanos=10**12),
        until=now + timedelta(days=2),
        reason="Launch week",
        actor="alice@example.org",
    )
    page = alice.get(OVERVIEW)
    month = page.context["month"]
    assert (month.monthly_budget_nanos, month.is_projected_over_budget) == (10**12, False)
    assert month.daily_budget_nanos is None and month.daily_override is None
    assert page.content.decode().count("Launch week") == 1 and "which only notifies" in page.content.decode()
    assert [figure["text"] for figure in context["figures"]][1:4] == ["10", "20.0 %", "50.0 %"]
    assert [figure["before"] for figure in context["figures"]][1:4] == ["1", "0.0 %", "0.0 %"]


def test_every_budget_that_is_overridden_shows_itself(alice: Client, people: People) -> None:
    event = billed_event(people.key, sell_model())
    settle([event])
    assert "This week" not in alice.get(OVERVIEW).content.decode()
    Organization.objects.filter(pk=people.organization.pk).update(weekly_budget_nanos=10**9)
    ApiKey.objects.filter(pk=people.key.pk).update(daily_budget_nanos=1)
    for holder in (Holder(Scope.ORGANIZATION), Holder(Scope.KEY, str(people.key.pk))):
        make_override(
            people.organization,
            holder=holder,
            amounts=Amounts(daily_nanos=8, weekly_nanos=2 * 10**9) if holder.id else Amounts(weekly_nanos=2 * 10**9),
            until=datetime.now(UTC) + timedelta(days=2),
            reason="Launch week",
            actor="alice@example.org",
        )
    page = alice.get(OVERVIEW)
    month = page.context["month"]
    assert (month.week_nanos, month.weekly_budget_nanos) == (event.cost_nanos, 2 * 10**9)
    text = " ".join(page.content.decode().split())
    assert "This week" in text and "weekly budget of" in text and text.count("Launch week") == 1
    assert "1 budget of keys, members or end users is overridden" in text
    assert "is overridden" not in client_of(people.bob).get(OVERVIEW).content.decode()


def test_the_chart_stays_in_its_box_and_keeps_proportions() -> None:
    points = [Point(str(n), (value, value), before=value) for n, value in enumerate([0, 1, 500, 1_000, 1_450])]
    chart = draw_bars(points)
    assert chart.top == 3_000
    heights = [sum(part.height for part in bar.parts) for bar in chart.bars]
    assert heights[0] == 0 and heights[1] > 0
    assert heights[3] == pytest.approx(2 * heights[2], abs=0.2)
    assert all(bar.x >= 0 and bar.x + bar.width <= WIDTH for bar in chart.bars)
    assert all(part.y >= 0 and part.y + part.height <= HEIGHT + 0.01 for bar in chart.bars for part in bar.parts)
    assert chart.labels == ("0", "2", "4")
    assert draw_bars([Point("x", (0,))]).top == 0


def test_who_has_nothing_left_is_led_to_the_top_up(alice: Client, people: People) -> None:
    settle([billed_event(people.key, sell_model())])
    page = alice.get(OVERVIEW).content.decode()
    assert "balance-figure negative" in page
    assert f'href="{OVERVIEW}billing/top-ups/"' in page
    assert "top-ups/" not in client_of(people.bob).get(OVERVIEW).content.decode()


def test_a_new_organization_is_not_told_in_red_that_it_has_nothing(alice: Client) -> None:
    page = alice.get(OVERVIEW).content.decode()
    assert "balance-figure" in page and "balance-figure negative" not in page
