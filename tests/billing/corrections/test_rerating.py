"""Re-rating: differences by organization, posted once, back to where the money came from; usage records untouched."""

from datetime import UTC, date, datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import IntegrityError, transaction
from django.utils import timezone
from pytest_django import Settings

from accounts.models import AdmissionChange, Organization
from accounts.staff_roles import StaffRole
from billing.approvals.book import AlreadyDecidedError, SamePersonError, approve, ask, preview
from billing.approvals.rerating_work import post_decided_reratings
from billing.approvals.reratings import moved_nanos, rerating_terms
from billing.catalog.price_versions import PriceDraft, approve_price_version, draft_price
from billing.checks.books import Books
from billing.checks.reratings import RERATING_CHECKS
from billing.corrections.rerating import (
    Difference,
    ReratingError,
    ReratingPlan,
    apply_rerating,
    current_costs,
    plan_rerating,
)
from billing.credit.top_ups import grant_credit
from billing.ledger.book import Posting, post_transaction, system_account
from billing.models import (
    Approval,
    CreditLot,
    LanguageModel,
    LedgerAccount,
    LedgerEntry,
    LedgerTransaction,
    OrganizationBalance,
    PriceVersion,
    ReratedRequest,
    Rerating,
    UsageRecord,
)
from billing.shards import shard_of
from tests.billing.usage_factory import add_record
from tests.support.operators import make_operator

pytestmark = pytest.mark.django_db

DAY = datetime(2026, 11, 5, tzinfo=UTC)
WINDOW = {"begins": DAY, "ends": DAY + timedelta(days=1)}
OPERATOR = "olga@example.org"
PAID, PROMOTIONAL = CreditLot.Kind.PAID, CreditLot.Kind.PROMOTIONAL


@pytest.fixture
def language_model() -> LanguageModel:
    return LanguageModel.objects.create(model_id="acme/large", context_tokens=1000, max_output_tokens=100)


@pytest.fixture
def alice() -> Organization:
    return Organization.objects.create(name="Alice", slug="alice")


@pytest.fixture
def bob() -> Organization:
    return Organization.objects.create(name="Bob", slug="bob")


def price(language_model: LanguageModel, input_nanos: int) -> PriceVersion:
    tiers = {"input": ((0, input_nanos * 1000),), "output": ((0, 0),)}
    draft = draft_price(
        language_model,
        PriceDraft(DAY, "https://acme.example", date(2026, 11, 1), tiers),
        created_by="alice@example.org",
    )
    return approve_price_version(draft, approved_by=OPERATOR)


def credit(organization: Organization, kind: CreditLot.Kind, amount_nanos: int) -> CreditLot:
    grant_credit(
        organization, amount_nanos=amount_nanos, kind=kind, reason="test", actor=OPERATOR, idempotency_key=f"{kind}"
    )
    return CreditLot.objects.get(organization=organization, kind=kind)


def bill(organization: Organization, language_model: LanguageModel, tokens: int, **values: Any) -> UsageRecord:
    """One request at 10 nano-dollars a token, debited as settlement does."""
    revenue = system_account(LedgerAccount.Kind.REVENUE, shard_of(organization.pk))
    cost = values.setdefault("cost_nanos", 10 * tokens)

    def compose(posting: Posting) -> None:
        posting.charge(cost, as_of=timezone.now())
        posting.add(revenue, cost)

    posted = post_transaction(
        organization,
        kind=LedgerTransaction.Kind.USAGE,
        idempotency_key=f"usage:{UsageRecord.objects.count()}",
        inputs={},
        actor="settlement",
        system=[revenue],
        compose=compose,
    )
    return add_record(
        organization,
        **{"admitted_at": DAY + timedelta(hours=12), **values},
        language_model_id=language_model.pk,
        input_tokens=tokens,
        ledger_transaction_id=posted.transaction.pk,
    )


def balance(organization: Organization) -> int:
    return OrganizationBalance.objects.get(organization=organization).posted_nanos


def apply(plan: ReratingPlan) -> list[int]:
    return [row.difference_nanos for row in apply_rerating(plan, actor=OPERATOR, reason="The price was mistyped.")]


def test_dry_run_shows_the_difference_of_each_organization(
    language_model: LanguageModel, alice: Organization, bob: Organization
) -> None:
    other = LanguageModel.objects.create(model_id="acme/small", context_tokens=1, max_output_tokens=1)
    bill(alice, language_model, 100)
    bill(alice, language_model, 50, admitted_at=DAY)
    bill(bob, language_model, 7, factor_ppm=500_000, cost_nanos=35)
    bill(bob, other, 1000)
    bill(bob, language_model, 1000, admitted_at=WINDOW["ends"])
    entries = LedgerEntry.objects.count()
    plan = ReratingPlan(language_model, price(language_model, 8), **WINDOW)
    assert plan_rerating(plan) == [Difference(alice, 2, 1500, 1200), Difference(bob, 1, 35, 28)]
    assert LedgerEntry.objects.count() == entries
    same = ReratingPlan(language_model, price(language_model, 10), **WINDOW)
    assert plan_rerating(same) == []


def test_a_lower_price_goes_back_to_the_lots_it_came_from(language_model: LanguageModel, alice: Organization) -> None:
    paid, promotional = credit(alice, PAID, 1000), credit(alice, PROMOTIONAL, 600)
    record = bill(alice, language_model, 100)  # 600 promotional, then 400 paid.
    plan = ReratingPlan(language_model, price(language_model, 4), **WINDOW)
    before = AdmissionChange.objects.count()
    assert apply(plan) == [-600]
    paid.refresh_from_db()
    promotional.refresh_from_db()
    assert (paid.remaining_nanos, promotional.remaining_nanos, balance(alice)) == (1000, 200, 1200)
    assert AdmissionChange.objects.count() == before + 1
    assert current_costs([record.request_id]) == {record.request_id: 400}
    record.refresh_from_db()
    assert record.cost_nanos == 1000
    posted = LedgerTransaction.objects.get(kind=LedgerTransaction.Kind.RERATING)
    assert (posted.organization, posted.actor) == (alice, OPERATOR)
    assert posted.reason.endswith("acme/large: The price was mistyped.")
    assert ReratedRequest.objects.get().ledger_transaction_id == posted.pk


def test_a_higher_price_is_charged_like_usage(language_model: LanguageModel, alice: Organization) -> None:
    credit(alice, PAID, 1200)
    bill(alice, language_model, 100)
    assert apply(ReratingPlan(language_model, price(language_model, 15), **WINDOW)) == [500]
    assert balance(alice) == -300  # 200 was left, the rest is owed.


def test_what_is_owed_is_cleared_first(language_model: LanguageModel, alice: Organization) -> None:
    paid = credit(alice, PAID, 700)
    bill(alice, language_model, 100)
    assert balance(alice) == -300
    assert apply(ReratingPlan(language_model, price(language_model, 5), **WINDOW)) == [-500]
    paid.refresh_from_db()
    assert (paid.remaining_nanos, balance(alice)) == (200, 200)


def test_what_no_lot_can_take_is_promotional(language_model: LanguageModel, alice: Organization) -> None:
    """Owed at the time, cleared by a promotion since: it never turns into cash."""
    bill(alice, language_model, 100)
    promotional = credit(alice, PROMOTIONAL, 1000)
    assert (balance(alice), promotional.remaining_nanos) == (0, 0)
    apply(ReratingPlan(language_model, price(language_model, 9), **WINDOW))
    lots = CreditLot.objects.filter(organization=alice, remaining_nanos__gt=0)
    assert list(lots.values_list("kind", "remaining_nanos", "origin")) == [("promotional", 100, "re-rating")]


def test_again_and_overlapping_posts_nothing_twice(language_model: LanguageModel, alice: Organization) -> None:
    credit(alice, PAID, 5000)
    for hours in (1, 12, 23):
        bill(alice, language_model, 100, admitted_at=DAY + timedelta(hours=hours))
    lower = price(language_model, 9)
    first_half = ReratingPlan(language_model, lower, DAY, DAY + timedelta(hours=13))
    assert apply(first_half) == [-200]
    assert apply(first_half) == []
    assert apply(ReratingPlan(language_model, lower, **WINDOW)) == [-100]
    assert apply(ReratingPlan(language_model, lower, **WINDOW)) == []
    assert balance(alice) == 5000 - 2700
    back = ReratingPlan(language_model, price(language_model, 10), **WINDOW)
    assert apply(back) == [300]
    assert balance(alice) == 5000 - 3000


def test_what_cancels_out_is_posted_all_the_same(language_model: LanguageModel, alice: Organization) -> None:
    """Some cost more and others as much less: the balance stays, and each receipt has its new price."""
    version = price(language_model, 10)
    credit(alice, PAID, 1_000)
    cheap, dear = (bill(alice, language_model, 10, cost_nanos=cost) for cost in (90, 110))
    before = balance(alice)
    plan = ReratingPlan(language_model, version, **WINDOW)
    apply(plan)
    assert balance(alice) == before
    assert current_costs([cheap.request_id, dear.request_id]) == {cheap.request_id: 100, dear.request_id: 100}
    assert LedgerTransaction.objects.filter(kind="rerating").count() == 2
    assert plan_rerating(plan) == []
    for check in RERATING_CHECKS:
        assert list(check.run(Books()).breaks) == []


def test_many_requests_are_corrected_in_several_transactions(
    language_model: LanguageModel, alice: Organization, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("billing.corrections.rerating.REQUESTS_PER_POSTING", 2)
    credit(alice, PAID, 5000)
    for _ in range(5):
        bill(alice, language_model, 10)
    assert apply(ReratingPlan(language_model, price(language_model, 9), **WINDOW)) == [-50]
    assert LedgerTransaction.objects.filter(kind=LedgerTransaction.Kind.RERATING).count() == 3
    assert balance(alice) == 5000 - 450
    assert sum(LedgerEntry.objects.values_list("amount_nanos", flat=True)) == 0


def test_what_cannot_be_priced_is_refused_before_anything_is_posted(
    language_model: LanguageModel, alice: Organization
) -> None:
    other = LanguageModel.objects.create(model_id="acme/small", context_tokens=1, max_output_tokens=1)
    right = price(language_model, 9)
    tiers = {"input": ((0, 1),), "output": ((0, 1),)}
    draft = draft_price(
        language_model, PriceDraft(DAY, "https://acme.example", date(2026, 11, 1), tiers), created_by=OPERATOR
    )
    tomorrow = timezone.now() + timedelta(days=1)
    for plan, message in (
        (ReratingPlan(language_model, draft, **WINDOW), "is a draft"),
        (ReratingPlan(other, right, **WINDOW), "is not a sale price of acme/small"),
        (ReratingPlan(language_model, right, DAY, DAY), "A window lasts up to"),
        (ReratingPlan(language_model, right, DAY, DAY + timedelta(days=93)), "A window lasts up to"),
        (ReratingPlan(language_model, right, tomorrow - timedelta(days=2), tomorrow), "has not ended"),
    ):
        with pytest.raises(ReratingError, match=message):
            apply(plan)
    bill(alice, language_model, 100)
    bill(alice, language_model, 100, web_searches=1)
    with pytest.raises(ReratingError, match="has no price for web_search"):
        apply(ReratingPlan(language_model, right, **WINDOW))
    with pytest.raises(ReratingError, match="names a person and a reason"):
        apply_rerating(ReratingPlan(language_model, right, **WINDOW), actor=OPERATOR, reason=" ")
    assert not ReratedRequest.objects.exists()


def test_what_was_corrected_is_immutable(language_model: LanguageModel, alice: Organization) -> None:
    bill(alice, language_model, 100)
    apply(ReratingPlan(language_model, price(language_model, 9), **WINDOW))
    for edit in (
        lambda: ReratedRequest.objects.update(cost_after_nanos=0),
        lambda: ReratedRequest.objects.all().delete(),
    ):
        with pytest.raises(IntegrityError, match="immutable"), transaction.atomic():
            edit()


def test_command(language_model: LanguageModel, alice: Organization) -> None:
    credit(alice, PAID, 5000)
    bill(alice, language_model, 100)
    version = price(language_model, 9)
    days = ["--model", "acme/large", "--from", "2026-11-05", "--to", "2026-11-06", "--price-version", str(version.pk)]

    make_operator("olga", StaffRole.FINANCE)

    def run(*arguments: str) -> list[str]:
        output = StringIO()
        call_command("rerate", *days, *arguments, stdout=output)
        return output.getvalue().splitlines()[1:]

    line = "alice: 1 requests, 0.000001 -> 0.0000009, difference -0.0000001"
    assert run() == [line, "Nothing was posted. --apply posts it."]
    with pytest.raises(CommandError, match="--actor EMAIL is missing"):
        run("--apply")
    with pytest.raises(CommandError, match="nobody can be asked here"):
        run("--apply", "--actor", OPERATOR, "--reason", "mistyped")
    assert run("--apply", "--actor", OPERATOR, "--reason", "mistyped", "--yes") == [line]
    assert run() == ["No difference."]
    assert balance(alice) == 4100


def test_above_the_bound_of_one_it_waits_for_a_second(
    language_model: LanguageModel, alice: Organization, settings: Settings
) -> None:
    settings.ALONE_USD = {**settings.ALONE_USD, "finance": "0.00000005"}
    credit(alice, PAID, 5000)
    bill(alice, language_model, 100)
    version = price(language_model, 9)
    olga, finn = make_operator("olga", StaffRole.FINANCE), make_operator("finn", StaffRole.FINANCE)
    days = ["--model", "acme/large", "--from", "2026-11-05", "--to", "2026-11-06", "--price-version", str(version.pk)]
    output = StringIO()
    for _ in range(2):
        call_command("rerate", *days, "--apply", "--reason", "typo", "--actor", olga.email, "--yes", stdout=output)
    assert "It waits for a second person" in output.getvalue()
    assert balance(alice) == 4000
    later, approval = Approval.objects.order_by("-pk")
    assert preview(approval) == ["alice: 1 requests, 0.000001 -> 0.0000009, difference -0.0000001"]
    with pytest.raises(SamePersonError):
        approve(approval, by=olga)
    bill(alice, language_model, 100)
    with pytest.raises(ReratingError, match=r"more than the 0\.0000001 USD asked for"):
        approve(approval, by=finn)
    settings.ALONE_USD = {**settings.ALONE_USD, "finance": "1"}
    call_command("rerate", *days, "--apply", "--reason", "typo", "--actor", finn.email, "--yes", stdout=StringIO())
    assert balance(alice) == 3200
    with pytest.raises(ReratingError, match="Nothing differs any more"):
        approve(later, by=finn)


def test_what_waited_is_posted_once_in_the_name_of_both(
    language_model: LanguageModel, alice: Organization, settings: Settings
) -> None:
    settings.ALONE_USD = {**settings.ALONE_USD, "finance": "0"}
    credit(alice, PAID, 5000)
    bill(alice, language_model, 100)
    plan = ReratingPlan(language_model, price(language_model, 9), **WINDOW)
    differences = plan_rerating(plan)
    asked = ask(
        Approval.Kind.RERATING,
        organization=None,
        terms=rerating_terms(plan, differences),
        amount_nanos=moved_nanos(differences),
        reason="typo",
        asked_by=make_operator("olga", StaffRole.FINANCE),
        idempotency_key="rerating:1",
    )
    finn = make_operator("finn", StaffRole.FINANCE)
    approve(asked.approval, by=finn)
    with pytest.raises(AlreadyDecidedError):
        approve(asked.approval, by=finn)
    assert balance(alice) == 4000, "A job posts it."
    assert post_decided_reratings() == 1
    assert post_decided_reratings() == 0
    assert balance(alice) == 4100
    assert Rerating.objects.get().actor == "olga@example.org, approved by finn@example.org"
