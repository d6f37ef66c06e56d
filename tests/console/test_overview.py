from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from django.test import Client

from accounts.models import ApiKey, Organization
from billing.admission.feed import publish_pending_changes
from billing.admission.names import names_of
from billing.models import CreditLot
from billing.top_ups import grant_credit
from billing.usage_report import DayCost
from billing.views.chart import HEIGHT, WIDTH, draw_days
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
    org = names_of(people.organization.pk).org(people.organization.pk)
    redis_client.hset(org, mapping={"held": 1_500_000_000, "unsettled": 250_000_000, "open": 2})

    response = alice.get(OVERVIEW)
    figures = response.context["balance"].figures
    assert (figures.credit_nanos, figures.limit_nanos) == (20 * 10**9, 5 * 10**9)
    page = response.content.decode()
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
    assert "cannot be read right now" in page
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
    assert response.context["period_nanos"] == sum(event.cost_nanos for event in events)
    assert response.context["period_requests"] == 9
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
    with django_assert_num_queries(10):
        assert len(alice.get(OVERVIEW).context["requests"]) == rows


def test_the_chart_stays_in_its_box_and_keeps_proportions() -> None:
    first = datetime(2026, 11, 1, tzinfo=UTC).date()
    nanos = [0, 1, 500_000_000, 1_000_000_000, 2_900_000_000]
    days = [DayCost(first + timedelta(days=n), n, cost) for n, cost in enumerate(nanos)]
    chart = draw_days(days)
    assert [bar.height for bar in chart.bars][:2] == [0, 2]
    assert chart.bars[3].height == pytest.approx(2 * chart.bars[2].height, abs=0.2)
    assert all(bar.x >= 0 and bar.x + bar.width <= WIDTH and 0 <= bar.y <= HEIGHT for bar in chart.bars)
    assert [line.nanos for line in chart.gridlines] == [3_000_000_000, 1_500_000_000]
    assert draw_days([DayCost(first, 0, 0)]).gridlines == ()
