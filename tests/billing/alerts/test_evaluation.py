"""The look over all organizations, from the tables: what it raises, what it clears, and how much it asks."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts.keys import change_key, create_key, revoke_key
from accounts.models import ApiKey, Organization
from accounts.organizations import change_organization
from billing.alerts.book import clear_alert, raise_alert
from billing.alerts.choices import change_choices
from billing.alerts.evaluation import evaluate_catalog, evaluate_spending
from billing.catalog.price_versions import PriceDraft, approve_price_version, draft_price
from billing.models import Alert, LanguageModel, PriceVersion
from tests.billing.ledger_factory import give, make_organization
from tests.support.people import People, make_people
from tests.support.settled_usage import billed_event, sell_model, settle
from tests.support.spending import USD, open_kinds, spend, usual_days
from tests.support.together import run_together

pytestmark = pytest.mark.django_db


@pytest.fixture
def people() -> People:
    return make_people()


def alert_of(organization: Organization, kind: str) -> Alert:
    return Alert.objects.get(organization=organization, kind=kind, cleared_at=None)


def test_a_low_balance_is_raised_once_and_cleared_by_credit() -> None:
    acme = make_organization()
    usual_days(acme, 10 * USD)
    give(acme, 29 * USD)
    assert evaluate_spending() == (1, 0)
    assert evaluate_spending() == (0, 0)
    assert alert_of(acme, "low_balance").details == {
        "available_nanos": 29 * USD,
        "low_balance_nanos": 30 * USD,
        "is_chosen": False,
        "usual_day_nanos": 10 * USD,
    }
    give(acme, 3 * USD)  # Above the mark, and still within the band.
    assert evaluate_spending() == (0, 0)
    give(acme, 2 * USD)
    assert evaluate_spending() == (0, 1)
    assert open_kinds(acme) == []


def test_an_organization_that_never_used_anything_is_told_nothing() -> None:
    make_organization()
    assert evaluate_spending() == (0, 0)


def test_the_choice_of_an_organization_counts_without_any_use() -> None:
    acme = make_organization()
    change_choices(acme, fields={"low_balance_nanos": 5 * USD})
    give(acme, 4 * USD)
    assert evaluate_spending() == (1, 0)
    change_choices(acme, fields={"low_balance_nanos": 0})
    assert evaluate_spending() == (0, 1)


def test_budgets_of_organization_and_key_and_their_end() -> None:
    acme, other = make_organization(), make_organization("Other")
    change_organization(acme, fields={"monthly_budget_nanos": 100 * USD})
    key, _ = create_key(acme, name="K", created_by=None, fields={"daily_budget_nanos": 10 * USD})
    idle, _ = create_key(acme, name="I", created_by=None, fields={"daily_budget_nanos": 10 * USD})
    for organization in (acme, other):
        give(organization, 1_000 * USD)
        spend(organization, 85 * USD)
    spend(acme, 10 * USD, key_id=key.pk)
    evaluate_spending()
    found = {alert.kind: alert for alert in Alert.objects.all()}
    assert sorted(found) == ["budget_reached", "budget_warning"]
    assert found["budget_reached"].key_id == key.pk
    assert found["budget_reached"].details["period"] == "day"
    assert (found["budget_warning"].organization_id, found["budget_warning"].key_id) == (acme.pk, None)
    assert idle.pk
    change_key(key, fields={"daily_budget_nanos": 100 * USD})
    assert evaluate_spending() == (0, 1)
    assert open_kinds(acme) == ["budget_warning"]
    assert open_kinds(other) == []


def test_the_next_period_clears_what_the_last_one_raised() -> None:
    acme = make_organization()
    change_organization(acme, fields={"daily_budget_nanos": 10 * USD})
    give(acme, 1_000 * USD)
    spend(acme, 10 * USD)
    now = datetime.now(UTC)
    evaluate_spending(now=now)
    assert open_kinds(acme) == ["budget_reached"]
    evaluate_spending(now=now + timedelta(days=1))
    assert open_kinds(acme) == []


def test_what_a_usual_request_holds_is_read_from_the_latest_records(people: People) -> None:
    """The rest of a budget that no request fits into counts as used up."""
    version = sell_model()
    give(people.organization, 1_000 * USD)
    settle([billed_event(people.key, version) for _ in range(3)])  # Each holds three times its cost of $0.0087.
    change_organization(people.organization, fields={"daily_budget_nanos": 30_000_000})
    evaluate_spending()
    assert alert_of(people.organization, "budget_reached").details["percent"] == 87
    change_organization(people.organization, fields={"daily_budget_nanos": 300_000_000})
    evaluate_spending()
    assert open_kinds(people.organization) == []


def test_a_key_is_told_of_a_week_before_it_expires(people: People) -> None:
    now = datetime.now(UTC)
    ApiKey.objects.update(created_at=now - timedelta(days=60))
    change_key(people.key, fields={"expires_at": now + timedelta(days=8)})
    evaluate_spending(now=now)
    assert open_kinds(people.organization) == []
    evaluate_spending(now=now + timedelta(days=1, seconds=1))
    assert alert_of(people.organization, "key_expiring").key_id == people.key.pk
    revoke_key(people.key, revoked_by=None)
    evaluate_spending(now=now + timedelta(days=1, seconds=2))
    assert open_kinds(people.organization) == []


def test_a_key_that_was_made_for_a_day_is_no_news(people: People) -> None:
    change_key(people.key, fields={"expires_at": datetime.now(UTC) + timedelta(days=1)})
    evaluate_spending()
    assert open_kinds(people.organization) == []


def price_from(version: PriceVersion, effective_from: datetime, output_picos: int) -> None:
    draft = PriceDraft(
        effective_from=effective_from,
        source="a test",
        source_date=today_date(),
        tiers={"input": ((0, 3_000_000),), "output": ((0, output_picos),)},
    )
    approve_price_version(draft_price(version.language_model, draft, created_by="alice"), approved_by="bob")


def today_date() -> Any:
    return datetime.now(UTC).date()


def test_who_uses_a_model_is_told_of_its_new_price_and_of_its_end(people: People) -> None:
    version = sell_model()
    unused = sell_model("acme/unused")
    settle([billed_event(people.key, version)])
    now = datetime.now(UTC)
    assert evaluate_catalog() == (0, 0)  # The first price of a model replaces none.
    price_from(version, now + timedelta(days=30), 20_000_000)
    price_from(unused, now + timedelta(days=30), 20_000_000)
    LanguageModel.objects.update(retires_at=now + timedelta(days=61))
    assert evaluate_catalog() == (1, 0)
    alert = alert_of(people.organization, "price_change")
    assert alert.details["model"] == "acme/large"
    assert alert.details["old_output_per_million_nanos"] == 15 * USD
    assert alert.details["new_output_per_million_nanos"] == 20 * USD
    assert evaluate_catalog(now=now + timedelta(days=2)) == (1, 0)
    assert open_kinds(people.organization) == ["model_retiring", "price_change"]
    assert open_kinds(people.charlies) == []
    # Nobody used it for thirty days: there is nobody left to tell.
    assert evaluate_catalog(now=now + timedelta(days=33)) == (0, 2)


def test_a_look_leaves_alone_what_others_raise() -> None:
    acme = make_organization()
    assert raise_alert(acme, Alert.Kind.PAYMENT_FAILED, subject="order:1", details={"reason": "declined"}) is True
    assert raise_alert(acme, Alert.Kind.PAYMENT_FAILED, subject="order:1") is False
    assert evaluate_spending() == (0, 0)
    assert evaluate_catalog() == (0, 0)
    assert open_kinds(acme) == ["payment_failed"]
    assert clear_alert(acme, Alert.Kind.PAYMENT_FAILED, subject="order:1") is True
    assert clear_alert(acme, Alert.Kind.PAYMENT_FAILED, subject="order:1") is False


@pytest.mark.django_db(transaction=True)
def test_however_many_look_and_raise_at_once_there_is_one_alert() -> None:
    acme = make_organization()
    give(acme, 20 * USD)
    usual_days(acme, 10 * USD)

    def raise_one() -> None:
        raise_alert(acme, Alert.Kind.PAYMENT_FAILED, subject="order:1")

    assert run_together(*[evaluate_spending] * 4, *[raise_one] * 4) == []
    assert open_kinds(acme) == ["low_balance", "payment_failed"]
    assert Alert.objects.count() == 2


@pytest.mark.django_db(transaction=True)
def test_without_its_unique_key_an_alert_is_raised_as_often_as_somebody_finds_it() -> None:
    """The negative control of the test above."""
    acme = make_organization()
    with connection.cursor() as cursor:
        cursor.execute("DROP INDEX alert_open_once")
    try:
        run_together(*[lambda: raise_alert(acme, Alert.Kind.PAYMENT_FAILED, subject="order:1")] * 4)
        assert Alert.objects.count() == 4
    finally:
        Alert.objects.all().delete()
        with connection.cursor() as cursor:
            cursor.execute(
                "CREATE UNIQUE INDEX alert_open_once ON billing_alert (organization_id, kind, subject)"
                " WHERE cleared_at IS NULL"
            )


def test_a_look_asks_as_much_for_many_organizations_as_for_one() -> None:
    def statements() -> int:
        Alert.objects.all().delete()
        with CaptureQueriesContext(
            connection,
        ) as queries:
            evaluate_spending()
        return len(queries)

    def make_another() -> None:
        acme = make_organization()
        change_organization(acme, fields={"daily_budget_nanos": USD})
        key, _ = create_key(acme, name="K", created_by=None, fields={"daily_budget_nanos": USD})
        spend(acme, 2 * USD)
        spend(acme, 2 * USD, key_id=key.pk)

    make_another()
    once = statements()
    assert Alert.objects.count() == 3
    make_another()
    make_another()
    assert statements() == once
    assert Alert.objects.count() == 9
