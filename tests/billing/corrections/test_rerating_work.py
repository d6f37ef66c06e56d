"""The job that posts decided re-ratings: killed midway it goes on, two at once post once, too much is refused."""

import uuid
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pytest_django import Settings

from accounts.staff_roles import StaffRole
from billing.approvals import reratings
from billing.approvals.book import approve, ask
from billing.approvals.rerating_work import count_posted, decided_reratings, post_decided_reratings
from billing.approvals.reratings import moved_nanos, rerating_terms
from billing.catalog.price_versions import PriceDraft, approve_price_version, draft_price
from billing.corrections import rerating
from billing.corrections.rerating import ReratingPlan, current_costs, plan_rerating
from billing.models import Approval, LedgerTransaction, PriceVersion, UsageRecord
from billing.watching import watching
from tests.billing.ledger_factory import assert_ledger_holds
from tests.support.operators import make_operator
from tests.support.people import People, make_people
from tests.support.settled_usage import billed_event, sell_model, settle
from tests.support.together import run_together

REQUESTS = 5


class KilledError(Exception):
    """Stands for the end of the process."""


def decided(people: People, *, requests: int = REQUESTS) -> Approval:
    """Yesterday's requests at a price that was twice too high, decided by two and not posted."""
    wrong = sell_model()
    settle([billed_event(people.key, wrong, at=yesterday()) for _ in range(requests)])
    plan = ReratingPlan(wrong.language_model, half_of(wrong), midnight() - timedelta(days=1), midnight())
    differences = plan_rerating(plan)
    asked = ask(
        Approval.Kind.RERATING,
        organization=None,
        terms=rerating_terms(plan, differences),
        amount_nanos=moved_nanos(differences),
        reason="typo",
        asked_by=make_operator("olga", StaffRole.FINANCE),
        idempotency_key=f"rerating:{uuid.uuid4()}",
    )
    return approve(asked.approval, by=make_operator("finn", StaffRole.FINANCE))


def half_of(version: PriceVersion) -> PriceVersion:
    tiers = {row.component: ((0, row.picos_per_unit // 2),) for row in version.components.all()}
    draft = PriceDraft(version.effective_from, "list", version.source_date, tiers)
    return approve_price_version(draft_price(version.language_model, draft, created_by="alice"), approved_by="bob")


def midnight() -> datetime:
    return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def yesterday() -> datetime:
    return midnight() - timedelta(hours=12)


@pytest.fixture(autouse=True)
def two_decide_and_each_request_is_posted_by_itself(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.ALONE_USD = {**settings.ALONE_USD, "finance": "0"}
    monkeypatch.setattr(rerating, "REQUESTS_PER_POSTING", 1)


def postings() -> int:
    return LedgerTransaction.objects.filter(kind=LedgerTransaction.Kind.RERATING).count()


@pytest.mark.django_db
def test_killed_in_the_middle_it_goes_on_and_posts_nothing_twice(people: People) -> None:
    approval = decided(people)

    def kill_after_two(items: Iterable[Any], total: int | None) -> Iterator[Any]:
        for number, item in enumerate(items):
            if total == REQUESTS and number == 2:
                raise KilledError
            yield item

    with pytest.raises(KilledError), watching(kill_after_two):
        post_decided_reratings()
    assert (postings(), count_posted(approval), decided_reratings()) == (2, 2, [approval])
    assert post_decided_reratings() == 1
    assert (postings(), count_posted(approval), decided_reratings()) == (REQUESTS, REQUESTS, [])
    approval.refresh_from_db()
    assert approval.finished_at is not None
    records = list(UsageRecord.objects.all())
    costs = current_costs([record.request_id for record in records])
    assert all(costs[record.request_id] < record.cost_nanos for record in records)
    assert_ledger_holds()


@pytest.mark.django_db(transaction=True)
def test_two_workers_at_once_post_once() -> None:
    approval = decided(make_people())
    assert run_together(post_decided_reratings, post_decided_reratings) == []
    assert (postings(), count_posted(approval), decided_reratings()) == (REQUESTS, REQUESTS, [])
    assert_ledger_holds()


@pytest.mark.django_db
def test_a_long_window_is_looked_at_by_the_job_and_what_moves_too_much_is_refused(
    people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reratings, "MAX_REQUESTS_ON_A_PAGE", 1)
    approval = decided(people, requests=2)
    version = PriceVersion.objects.order_by("pk").first()
    assert version is not None
    settle([billed_event(people.key, version, at=yesterday()) for _ in range(2)])  # Late usage: more would move now.
    assert post_decided_reratings() == 0
    approval.refresh_from_db()
    assert (approval.state, postings(), decided_reratings()) == ("refused", 0, [])
    assert "more than the" in approval.decision
