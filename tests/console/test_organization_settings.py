"""What an organization decides for itself, and what only the operator decides."""

from typing import Any

import pytest
import redis
from django.test import Client

from accounts.models import AdmissionChange
from billing.admission.names import names_of
from tests.support.people import People, client_of

PAGE = "/console/alice/settings/"


@pytest.fixture
def alice(people: People) -> Client:
    return client_of(people.alice)


def enforced(people: People, redis_client: redis.Redis, *fields: str) -> list[Any]:
    return redis_client.hmget(names_of(people.organization.pk).org(people.organization.pk), *fields)


def test_budgets_and_the_cost_in_answers_reach_redis(alice: Client, people: People, redis_client: redis.Redis) -> None:
    values = {"name": "Alice Ltd", "daily_budget_nanos": "$2.50", "monthly_budget_nanos": "1,000"}
    assert alice.post(PAGE, {**values, "shows_cost_in_usage": "on"}).status_code == 302
    people.organization.refresh_from_db()
    assert people.organization.name == "Alice Ltd"
    assert (people.organization.daily_budget_nanos, people.organization.weekly_budget_nanos) == (2_500_000_000, None)
    fields = ("daily_budget", "monthly_budget", "shows_cost")
    assert enforced(people, redis_client, *fields) == [b"2500000000", b"1000000000000", b"1"]
    assert not AdmissionChange.objects.exists()

    assert alice.post(PAGE, {"name": "Alice Ltd"}).status_code == 302
    assert enforced(people, redis_client, *fields) == [None, None, None]


@pytest.mark.parametrize(
    ("field", "value"), [("name", ""), ("daily_budget_nanos", "-1"), ("weekly_budget_nanos", "much")]
)
def test_what_makes_no_sense_is_told_and_changes_nothing(alice: Client, people: People, field: str, value: str) -> None:
    response = alice.post(PAGE, {"name": "Other", field: value})
    assert response.status_code == 422
    assert response.context["form"].errors[field]
    people.organization.refresh_from_db()
    assert (people.organization.name, people.organization.config_version) == ("Alice & Co", 1)


def test_limits_of_the_operator_are_shown_and_cannot_be_changed(alice: Client, people: People) -> None:
    alice.post(PAGE, {"name": "Alice & Co", "requests_per_minute": "1", "credit_limit_nanos": "9", "status": "closed"})
    people.organization.refresh_from_db()
    assert (people.organization.requests_per_minute, people.organization.credit_limit_nanos) == (None, 0)
    assert people.organization.status == "active"
    assert "None: requests are prepaid" in alice.get(PAGE).content.decode()
