import uuid
from datetime import timedelta
from typing import Any

import pytest
import redis
from django.test import Client
from django.utils import timezone

from accounts.models import AdmissionChange, ApiKey
from billing.admission.names import names_of
from billing.models import LanguageModel
from tests.support.people import People, client_of
from tests.support.settled_usage import billed_event, sell_model, settle

KEYS = "/console/alice/keys/"


@pytest.fixture
def alice(people: People) -> Client:
    return client_of(people.alice)


def form(**values: Any) -> dict[str, Any]:
    return {"name": "Laptop", "form_id": uuid.uuid4().hex, **values}


def test_a_new_key_is_shown_once_and_kept_nowhere(alice: Client, people: People) -> None:
    values = form()
    response = alice.post(f"{KEYS}new/", values)
    assert response.status_code == 200
    text = response.context["text"]
    assert text in response.content.decode()
    assert response["Cache-Control"] == "private, no-store"
    key = ApiKey.objects.get(name="Laptop")
    assert key.created_by == people.alice
    assert text not in str([vars(row) for row in ApiKey.objects.all()])
    assert text not in str(dict(alice.session))
    assert text not in alice.get(KEYS).content.decode()

    reloaded = alice.post(f"{KEYS}new/", values)
    assert reloaded.status_code == 302
    assert ApiKey.objects.filter(name="Laptop").count() == 1


def test_a_key_takes_limits_budgets_and_restrictions(alice: Client) -> None:
    LanguageModel.objects.create(model_id="acme/large", display_name="L", context_tokens=1, max_output_tokens=1)
    expires_at = (timezone.now() + timedelta(days=3)).replace(second=0, microsecond=0)
    alice.post(
        f"{KEYS}new/",
        form(
            daily_budget_nanos="$2.50",
            monthly_budget_nanos="1,000",
            requests_per_minute="60",
            expires_at=f"{expires_at:%Y-%m-%dT%H:%M}",
            allowed_models="acme/large\nacme/large",
            allowed_networks="203.0.113.0/24, 2001:db8::/32",
        ),
    )
    key = ApiKey.objects.get(name="Laptop")
    assert (key.daily_budget_nanos, key.weekly_budget_nanos, key.monthly_budget_nanos) == (2_500_000_000, None, 10**12)
    assert (key.requests_per_minute, key.concurrent_requests) == (60, None)
    assert key.expires_at == expires_at
    assert key.allowed_models == ["acme/large"]
    assert key.allowed_networks == ["203.0.113.0/24", "2001:db8::/32"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", "x" * 101),
        ("daily_budget_nanos", "-1"),
        ("daily_budget_nanos", "0.0000000001"),
        ("daily_budget_nanos", "NaN"),
        ("daily_budget_nanos", "9" * 30),
        ("requests_per_minute", "0"),
        ("requests_per_minute", "99999999999"),
        ("concurrent_requests", "many"),
        ("expires_at", "2020-01-01T00:00"),
        ("allowed_models", "no/such"),
        ("allowed_networks", "203.0.113.1/24"),
        ("allowed_networks", "10.0.0.0/8 " * 1 + " ".join(f"10.0.{n}.0/24" for n in range(60))),
    ],
)
def test_nonsense_is_told_and_makes_no_key(alice: Client, field: str, value: str) -> None:
    response = alice.post(f"{KEYS}new/", form(**{field: value}))
    assert response.status_code == 422
    assert response.context["form"].errors.get(field)
    assert ApiKey.objects.count() == 1


def test_revoking_asks_first_and_reports_success_once_redis_has_it(
    alice: Client, people: People, redis_client: redis.Redis
) -> None:
    url = f"{KEYS}{people.key.pk}/revoke/"
    assert "Revoke key" in alice.get(url).content.decode()
    people.key.refresh_from_db()
    assert not people.key.is_revoked

    response = alice.post(url, follow=True)
    assert "every gateway refuses it" in response.content.decode()
    names = names_of(people.organization.pk)
    assert redis_client.hget(names.key(people.key.pk), "status") == b"revoked"
    assert AdmissionChange.objects.count() == 0
    people.key.refresh_from_db()
    assert people.key.revoked_by == people.alice
    assert alice.get(url).status_code == 404


@pytest.mark.usefixtures("redis_away")
def test_revoking_without_redis_says_that_gateways_do_not_know_yet(alice: Client, people: People) -> None:
    response = alice.post(f"{KEYS}{people.key.pk}/revoke/", follow=True)
    page = response.content.decode()
    assert "as soon as the admission store (Redis) can be reached again" in page
    assert "every gateway refuses it" not in page
    people.key.refresh_from_db()
    assert people.key.is_revoked
    assert AdmissionChange.objects.filter(key=people.key).exists()


def test_editing_limits_reaches_redis(alice: Client, people: People, redis_client: redis.Redis) -> None:
    url = f"{KEYS}{people.key.pk}/"
    response = alice.post(url, {"name": "Backend 2", "weekly_budget_nanos": "3"}, follow=True)
    assert response.redirect_chain == [(KEYS, 302)]
    people.key.refresh_from_db()
    assert (people.key.name, people.key.weekly_budget_nanos, people.key.config_version) == ("Backend 2", 3 * 10**9, 2)
    assert redis_client.hget(names_of(people.organization.pk).key(people.key.pk), "weekly_budget") == b"3000000000"


def test_an_expired_key_can_still_be_renamed(alice: Client, people: People) -> None:
    ApiKey.objects.filter(pk=people.key.pk).update(expires_at=timezone.now() - timedelta(days=1))
    people.key.refresh_from_db()
    shown = f"{people.key.expires_at:%Y-%m-%dT%H:%M}"
    url = f"{KEYS}{people.key.pk}/"
    page = alice.get(url)
    assert f'value="{shown}"' in page.content.decode()


@pytest.mark.parametrize("rows", [1, 3])
def test_the_list_costs_the_same_queries(
    alice: Client, people: People, rows: int, django_assert_num_queries: Any
) -> None:
    for number in range(rows - 1):
        alice.post(f"{KEYS}new/", form(name=f"Key {number}"))
    settle([billed_event(key, version) for version in [sell_model()] for key in ApiKey.objects.all()])
    alice.get(KEYS)
    with django_assert_num_queries(6):
        assert alice.get(KEYS).content.decode().count("Revoke<") == rows
