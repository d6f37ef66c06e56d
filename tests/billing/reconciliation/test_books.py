"""Each comparison finds nothing where books agree, and what was changed by force, with its amount."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
import redis

from billing.admission.outbox import publish_pending_changes
from billing.admission.redis_keys import shard_keys_of
from billing.catalog.price_versions import PriceDraft, approve_price_version, draft_price
from billing.models import (
    BudgetDay,
    LanguageModel,
    PaymentBreak,
    PriceVersion,
    ProviderReport,
    ReconciliationBreak,
    ReconciliationRun,
    Route,
    TopUp,
    Upstream,
    UsageHour,
)
from billing.payments.provider import CheckoutPaid, PaymentProviderError
from billing.reconciliation import admission as redis_books
from billing.reconciliation.imports import store_report
from billing.reconciliation.payments import compare_payments
from billing.reconciliation.provider_books import compare_cost, compare_usage
from billing.reconciliation.provider_reports import COST, USAGE, read_report
from billing.reconciliation.roll_ups import compare_roll_ups
from billing.reconciliation.runs import due_days, reconcile
from tests.billing.ledger_factory import give, make_organization
from tests.support.people import People, make_people
from tests.support.provider_reports import cost_page, usage_page
from tests.support.settled_usage import billed_event, failed_event, sell_model, settle

pytestmark = pytest.mark.django_db

USD = 10**9
YESTERDAY = datetime.now(UTC).date() - timedelta(days=1)
NOON = datetime.combine(YESTERDAY, datetime.min.time(), UTC) + timedelta(hours=12)


@pytest.fixture
def people() -> People:
    return make_people()


@pytest.fixture
def version() -> PriceVersion:
    """A model that upstream acme serves under a dated name, for a dollar and five a million tokens."""
    version = sell_model()
    acme = Upstream.objects.create(name="acme", protocol="messages", base_url="https://api.acme.example")
    Route.objects.create(language_model=version.language_model, upstream=acme, upstream_model="large-20260217")
    draft = PriceDraft(
        effective_from=datetime(2026, 1, 1, tzinfo=UTC),
        source="a test",
        source_date=date(2026, 1, 1),
        upstream=acme,
        tiers={"input": ((0, 1_000_000),), "output": ((0, 5_000_000),)},
    )
    approve_price_version(draft_price(version.language_model, draft, created_by="alice"), approved_by="bob")
    return version


def use(people: People, version: PriceVersion, *, at: datetime = NOON, **values: Any) -> None:
    """Settle a request that acme served for 1,000,000 tokens in and 100,000 out: $1.50 by its prices."""
    counts = {"input_tokens": 1_000_000, "output_tokens": 100_000}
    attempt = {"upstream": "acme", "status": 200, "outcome": "served", "upstream_cost_nanos": 3 * USD // 2}
    settle(
        [
            billed_event(
                people.key,
                version,
                at=at,
                upstream="acme",
                attempts=[attempt],
                upstream_cost_nanos=3 * USD // 2,
                **{**counts, **values},
            )
        ]
    )


def report(kind: str, page: dict[str, Any]) -> ProviderReport:
    store_report(kind, "acme", read_report(kind, [page]), origin="a test")
    return ProviderReport.objects.get(kind=kind, upstream="acme", day=YESTERDAY)


# --- Roll-ups -------------------------------------------------------------------------------------------------------


def test_roll_ups_that_were_settled_agree(people: People, version: PriceVersion) -> None:
    use(people, version)
    use(people, version, at=NOON + timedelta(hours=3))
    settle([failed_event(people.key, version, at=NOON)])
    assert compare_roll_ups(YESTERDAY) == (3, [])
    assert compare_roll_ups(YESTERDAY - timedelta(days=1)) == (0, [])


def test_an_hour_and_a_budget_day_that_were_changed_are_found(people: People, version: PriceVersion) -> None:
    use(people, version)
    hour = UsageHour.objects.get()
    hour.cost_nanos += 7
    hour.save()
    BudgetDay.objects.filter(key_id=people.key.pk).update(cost_nanos=1)
    BudgetDay.objects.filter(key_id=0).delete()
    _, found = compare_roll_ups(YESTERDAY)
    cost = hour.cost_nanos - 7
    assert {(each.subject, each.amount_nanos, each.organization_id) for each in found} == {
        (f"hours:{YESTERDAY}:{people.organization.pk}", 7, people.organization.pk),
        (f"budget_day:{YESTERDAY}:{people.organization.pk}:{people.key.pk}", 1 - cost, people.organization.pk),
        (f"budget_day:{YESTERDAY}:{people.organization.pk}:0", -cost, people.organization.pk),
    }


def test_an_hour_of_records_that_are_not_there_is_found(people: People) -> None:
    UsageHour.objects.create(organization_id=people.organization.pk, key_id=1, model_id="x", hour=NOON, requests=1)
    [found] = compare_roll_ups(YESTERDAY)[1]
    assert "sum to 1 requests, 0 tokens and 0 nano-dollars; its records to 0 requests, 0 tokens" in found.detail


# --- The provider's usage -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["large-20260217", "large-20261111", "large"])
def test_usage_that_agrees_is_no_difference_under_any_name_of_the_model(
    people: People, version: PriceVersion, name: str
) -> None:
    use(people, version)
    page = usage_page(YESTERDAY, name, input_tokens=1_000_000, output_tokens=100_000)
    assert compare_usage(report(USAGE, page)) == (1, [])


def test_tokens_that_the_provider_does_not_have_cost_what_they_cost(people: People, version: PriceVersion) -> None:
    use(people, version)
    page = usage_page(YESTERDAY, "large-20260217", input_tokens=900_000, output_tokens=120_000)
    [found] = compare_usage(report(USAGE, page))[1]
    assert found.subject == f"acme:{YESTERDAY}:acme/large"
    assert found.amount_nanos == 100_000_000 - 100_000_000  # $0.10 too much in, $0.10 too little out: two differences.
    assert "input tokens 900,000 there, 1,000,000 here; output tokens 120,000 there, 100,000 here" in found.detail


def test_less_than_a_cent_is_rounding(people: People, version: PriceVersion) -> None:
    use(people, version)
    below = usage_page(YESTERDAY, "large", input_tokens=1_009_999, output_tokens=100_000)
    assert compare_usage(report(USAGE, below))[1] == []
    at = usage_page(YESTERDAY, "large", input_tokens=1_010_000, output_tokens=100_000)
    assert [each.amount_nanos for each in compare_usage(report(USAGE, at))[1]] == [-10_000_000]


def test_a_model_that_we_never_called_is_a_difference(people: People, version: PriceVersion) -> None:
    [found] = compare_usage(report(USAGE, usage_page(YESTERDAY, "stranger-1", output_tokens=5)))[1]
    assert found.subject == f"acme:{YESTERDAY}:stranger-1"
    assert "We know no price of it there." in found.detail


def test_a_model_that_the_provider_does_not_name_is_a_difference(people: People, version: PriceVersion) -> None:
    use(people, version)
    page = {**usage_page(YESTERDAY, None), "data": [{**usage_page(YESTERDAY, None)["data"][0], "results": []}]}
    [found] = compare_usage(report(USAGE, page))[1]
    assert found.amount_nanos == 3 * USD // 2


def test_a_request_over_midnight_may_count_for_either_day(people: People, version: PriceVersion) -> None:
    midnight = NOON + timedelta(hours=12)
    use(people, version, at=midnight - timedelta(seconds=30), total_ms=60_000)
    use(people, version, at=NOON - timedelta(hours=12, seconds=30), total_ms=60_000)
    for requests in (0, 1, 2):
        counts = {"input_tokens": requests * 1_000_000, "output_tokens": requests * 100_000}
        assert compare_usage(report(USAGE, usage_page(YESTERDAY, "large", **counts)))[1] == []
        assert compare_cost(report(COST, cost_page(YESTERDAY, {"large": str(150 * requests)})))[1] == []
    counts = {"input_tokens": 3_000_000, "output_tokens": 300_000}
    [found] = compare_usage(report(USAGE, usage_page(YESTERDAY, "large", **counts)))[1]
    assert found.amount_nanos == -3 * USD // 2


def test_estimated_requests_are_told_beside_the_difference(people: People, version: PriceVersion) -> None:
    use(people, version, usage_source="estimated")
    [found] = compare_usage(report(USAGE, usage_page(YESTERDAY, "large", input_tokens=1_000_000)))[1]
    assert found.detail.endswith("1 of our requests were estimated.")


# --- The provider's cost --------------------------------------------------------------------------------------------


def test_cost_counts_every_attempt_also_of_requests_that_failed(people: People, version: PriceVersion) -> None:
    use(people, version)
    elsewhere = {"upstream": "other", "status": 500, "upstream_cost_nanos": 9 * USD}
    failed = {"upstream": "acme", "status": 529, "upstream_cost_nanos": USD // 2}
    settle([failed_event(people.key, version, at=NOON, attempts=[elsewhere, failed])])
    assert compare_cost(report(COST, cost_page(YESTERDAY, {"large": "199.5", "": "0.5"}))) == (1, [])
    [found] = compare_cost(report(COST, cost_page(YESTERDAY, {"large": "250"})))[1]
    assert (found.subject, found.amount_nanos) == (f"acme:{YESTERDAY}", -USD // 2)
    assert "acme charges $2.50" in found.detail


def test_a_later_report_of_a_day_replaces_the_earlier_one(version: PriceVersion) -> None:
    report(COST, cost_page(YESTERDAY, {"large": "1", "small": "2"}))
    later = report(COST, cost_page(YESTERDAY, {"large": "3"}))
    assert list(later.lines.values_list("upstream_model", "cost_nanos")) == [("large", 30_000_000)]
    assert ProviderReport.objects.count() == 1


def test_a_day_that_goes_on_is_not_kept() -> None:
    today = datetime.now(UTC).date()
    assert store_report(COST, "acme", read_report(COST, [cost_page(today, {"m": "1"})]), origin="x") == []
    assert not ProviderReport.objects.exists()


# --- Redis ----------------------------------------------------------------------------------------------------------


def compare_redis() -> list[Any]:
    return redis_books.compare_with_redis(looks=1, seconds_between=0)[1]


def test_redis_that_was_changed_is_found_with_its_amount(people: People, redis_client: redis.Redis) -> None:
    give(people.organization, 5 * USD)
    publish_pending_changes()
    assert compare_redis() == []
    key = shard_keys_of(people.organization.pk).org(people.organization.pk)
    redis_client.hincrby(key, "credit", 2 * USD)
    [found] = compare_redis()
    assert (found.subject, found.amount_nanos) == (f"org {people.organization.pk}", 2 * USD)
    assert found.organization_id == people.organization.pk


# --- Payments -------------------------------------------------------------------------------------------------------


class Listing:
    """A payment provider as far as it is needed here: it lists what it is told to."""

    name = "bank"

    def __init__(self, *payments: CheckoutPaid) -> None:
        self.payments = payments

    def list_payments(self, start: datetime, end: datetime) -> Iterator[CheckoutPaid]:
        return iter(paid for paid in self.payments if start <= paid.occurred_at < end)


class Away:
    name = "bank"

    def list_payments(self, start: datetime, end: datetime) -> Iterator[CheckoutPaid]:
        raise PaymentProviderError("bank cannot be reached.")


def paid(order: TopUp, nanos: int, *, at: datetime = NOON) -> CheckoutPaid:
    return CheckoutPaid("bank", order.reference, nanos, at, payment_id=f"pay_{order.pk}")


def make_order(people: People, *, nanos: int = 25 * USD, is_credited: bool = True, at: datetime = NOON) -> TopUp:
    values: dict[str, Any] = {"state": "pending"}
    if is_credited:
        lot = give(people.organization, nanos)
        transaction = lot.entries.get().transaction
        values = {"state": "paid", "paid_nanos": nanos, "paid_at": at, "ledger_transaction": transaction}
    return TopUp.objects.create(
        organization=people.organization,
        amount_nanos=nanos,
        provider="bank",
        idempotency_key=uuid4().hex,
        created_by="alice",
        **values,
    )


def test_payments_that_agree(people: People) -> None:
    order = make_order(people)
    assert compare_payments(Listing(paid(order, 25 * USD)), YESTERDAY) == (1, [])
    # Listed a little after midnight, credited before it.
    late = make_order(people, at=NOON + timedelta(hours=11, minutes=59))
    listing = Listing(paid(order, 25 * USD), paid(late, 25 * USD, at=NOON + timedelta(hours=12, minutes=1)))
    assert compare_payments(listing, YESTERDAY)[1] == []
    assert compare_payments(listing, YESTERDAY + timedelta(days=1))[1] == []


def test_paid_and_not_credited_credited_and_not_paid_and_another_amount(people: People) -> None:
    waiting, missing, other = make_order(people, is_credited=False), make_order(people), make_order(people)
    stranger = CheckoutPaid("bank", uuid4(), USD, NOON, payment_id="pay_x")
    _, found = compare_payments(Listing(paid(waiting, 25 * USD), paid(other, 20 * USD), stranger), YESTERDAY)
    assert [(each.subject, each.amount_nanos, each.organization_id) for each in found] == [
        (f"bank:pay_{waiting.pk}", -25 * USD, people.organization.pk),
        (f"bank:pay_{other.pk}", 5 * USD, people.organization.pk),
        ("bank:pay_x", -USD, None),
        (f"bank:{missing.reference}", 25 * USD, people.organization.pk),
    ]


# --- Runs -----------------------------------------------------------------------------------------------------------


def test_a_run_compares_all_it_can_and_says_what_it_could_not(people: People, version: PriceVersion) -> None:
    use(people, version)
    report(COST, cost_page(YESTERDAY, {"large": "200"}))
    PaymentBreak.objects.create(kind="overpaid", provider="bank", reference="r", detail="Paid twice.", amount_nanos=5)
    runs = {(run.source, run.day): run for run in reconcile([YESTERDAY], providers=[Away()])}
    assert {key: run.found for key, run in runs.items()} == {
        ("admission", None): 0,
        ("payments", None): 1,
        ("roll_ups", YESTERDAY): 0,
        ("provider_usage", YESTERDAY): 0,
        ("provider_cost", YESTERDAY): 1,
        ("payments", YESTERDAY): 0,
    }
    assert runs["provider_usage", YESTERDAY].note == "Not compared: No provider's report of this day was imported."
    assert runs["payments", YESTERDAY].note == "Not compared: bank cannot be reached."
    assert sorted(ReconciliationBreak.objects.values_list("source", "amount_cents")) == [
        ("payments", 1),
        ("provider_cost", -50),
    ]
    reconcile([YESTERDAY])
    assert ReconciliationBreak.objects.count() == 2
    assert not ReconciliationRun.objects.filter(ended_at=None).exists()


def test_what_cannot_be_compared_closes_no_break(people: People, version: PriceVersion) -> None:
    order = make_order(people, is_credited=False)
    reconcile([YESTERDAY], providers=[Listing(paid(order, USD))])
    reconcile([YESTERDAY], providers=[Away()])
    assert ReconciliationBreak.objects.get().state == "open"


def test_it_is_due_once_a_day_and_not_right_after_midnight() -> None:
    now = datetime.now(UTC).replace(hour=4)
    today = now.date()
    assert due_days(now.replace(hour=2)) == []
    assert due_days(now) == [today - timedelta(days=number) for number in (1, 2, 3)]
    reconcile([YESTERDAY])
    assert due_days(now) == [today - timedelta(days=number) for number in (2, 3)], "It was killed after the first."
    reconcile(due_days(now))
    assert due_days(now) == []
    assert due_days(now + timedelta(days=1)) != []


def test_an_organization_alone_has_no_breaks() -> None:
    make_organization()
    LanguageModel.objects.all()
    assert sum(run.found for run in reconcile([YESTERDAY])) == 0
