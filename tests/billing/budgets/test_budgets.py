"""What an organization decides about budgets: whose is found, what Redis is told, and what makes no sense."""

from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone

from accounts.keys import create_key
from accounts.models import AdmissionChange, Member
from accounts.organizations import change_organization
from billing.admission.outbox import read_key, read_organization, read_spender
from billing.budgets.amounts import Amounts, BudgetError, Holder
from billing.budgets.choices import remove_spender_budget, set_end_user_budget, set_member_budget
from billing.budgets.overrides import end_override, make_override, open_overrides
from billing.budgets.spenders import END_USER, MEMBER, Spender, digest_of, read_name
from billing.budgets.spent import DAYS_KEPT, forget_old_spender_days
from billing.checks.books import Books
from billing.checks.usage import spender_days_are_within_budget_days
from billing.models import BudgetDay, BudgetOverride, SpenderBudget, SpenderDay
from tests.support.people import People, make_people
from tests.support.settled_usage import billed_event, sell_model, settle
from tests.support.spending import spend, today

pytestmark = pytest.mark.django_db
ACTOR = "alice@example.org"
USD = 10**9


@pytest.fixture
def people() -> People:
    return make_people()


def told(people: People, scope: str, spender_id: str) -> dict[str, Any]:
    """Return what Redis is told of a spender of Alice's organization."""
    publication = read_spender(Spender(people.organization.pk, scope, spender_id))
    assert publication is not None
    return dict(publication.config)


def test_the_budget_of_its_own_wins_over_the_default_and_goes_with_it(people: People) -> None:
    version = people.organization.config_version
    set_end_user_budget(people.organization, end_user="", amounts=Amounts(daily_nanos=5), actor=ACTOR)
    own = set_end_user_budget(
        people.organization, end_user="eve", amounts=Amounts(monthly_nanos=7), only_notifies=True, actor=ACTOR
    )
    assert told(people, END_USER, digest_of("eve")) == {"monthly_budget": 7, "only_notifies": 1}
    assert told(people, END_USER, digest_of("mallory")) == {"daily_budget": 5}
    organization = read_organization(people.organization.pk)
    assert organization is not None
    assert (organization.config["counts"], organization.config_version) == ("u", version + 2)
    assert AdmissionChange.objects.filter(organization=people.organization, key=None).exists()
    remove_spender_budget(own, actor=ACTOR)
    assert told(people, END_USER, digest_of("eve")) == {"daily_budget": 5}
    remove_spender_budget(SpenderBudget.objects.get(), actor=ACTOR)
    organization = read_organization(people.organization.pk)
    assert organization is not None
    assert "counts" not in organization.config


def test_settlement_counts_for_whom_there_are_budgets_and_what_was_before(people: People) -> None:
    version = sell_model()
    settle([billed_event(people.key, version, end_user="eve", tag=tag) for tag in ("a", "b")])
    assert not SpenderDay.objects.exists()
    before = BudgetDay.objects.get(key_id=people.key.pk).cost_nanos
    set_member_budget(people.organization, member=None, amounts=Amounts(daily_nanos=USD), actor=ACTOR)
    set_end_user_budget(people.organization, end_user="", amounts=Amounts(daily_nanos=USD), actor=ACTOR)
    event = billed_event(people.key, version, end_user="eve")
    settle([event])
    settle([event, billed_event(people.key, version)])
    days = SpenderDay.objects.filter(admitted_day=today()).order_by("scope")
    assert list(days.values_list("scope", "spender", "cost_nanos", "end_user")) == [
        ("end_user", digest_of("eve"), before + event.cost_nanos, "eve"),
        ("member", str(people.alice.pk), before + 2 * event.cost_nanos, ""),
    ]
    publication = read_spender(Spender(people.organization.pk, MEMBER, str(people.alice.pk)))
    assert publication is not None
    assert publication.posted_nanos_by_day == {today(): before + 2 * event.cost_nanos}
    key = read_key(people.key.pk)
    assert key is not None
    assert key.config["member"] == people.alice.pk
    assert AdmissionChange.objects.filter(key=people.key).exists()
    assert not spender_days_are_within_budget_days(Books()).breaks
    SpenderDay.objects.filter(scope="end_user").update(cost_nanos=10 * USD)
    assert len(spender_days_are_within_budget_days(Books()).breaks) == 1


def test_an_override_stands_in_until_its_time_with_who_and_why(people: People) -> None:
    set_end_user_budget(people.organization, end_user="", amounts=Amounts(daily_nanos=5), actor=ACTOR)
    until = timezone.now() + timedelta(hours=1)
    ends = int(until.timestamp())
    eve = Holder(END_USER, digest_of("eve"))
    for holder, nanos in ((Holder(END_USER), 50), (eve, 90)):
        make_override(
            people.organization,
            holder=holder,
            amounts=Amounts(daily_nanos=nanos),
            until=until,
            reason="a fair",
            actor=ACTOR,
        )
    assert told(people, END_USER, eve.id)["override"] == f"{ends}:90::"
    assert told(people, END_USER, digest_of("mallory"))["override"] == f"{ends}:50::"
    assert end_override(people.organization, holder=eve, actor="bob@example.org")
    assert told(people, END_USER, eve.id)["override"] == f"{ends}:50::"
    ended = BudgetOverride.objects.get(holder=eve.id)
    assert (ended.made_by, ended.reason, ended.ended_by) == (ACTOR, "a fair", "bob@example.org")
    BudgetOverride.objects.update(until=timezone.now())
    assert "override" not in told(people, END_USER, digest_of("mallory"))
    assert not open_overrides(people.organization).exists()


def test_overrides_of_the_organization_and_of_keys_reach_redis(people: People) -> None:
    until = timezone.now() + timedelta(days=1)
    change_organization(people.organization, fields={"monthly_budget_nanos": 5, "budgets_only_notify": True})
    key, _ = create_key(people.organization, name="Laptop", created_by=people.bob, fields={"daily_budget_nanos": 5})
    values: dict[str, Any] = {"amounts": Amounts(None, 7, 8), "until": until, "reason": "why", "actor": ACTOR}
    make_override(people.organization, holder=Holder("organization"), **values)
    make_override(people.organization, holder=Holder("key", str(key.pk)), **values)
    text = f"{int(until.timestamp())}::7:8"
    organization, published = read_organization(people.organization.pk), read_key(key.pk)
    assert organization is not None
    assert published is not None
    assert (organization.config["override"], organization.config["only_notifies"]) == (text, 1)
    assert (published.config["override"], published.config_version) == (text, 2)


def test_what_makes_no_sense_is_refused_in_words(people: People) -> None:
    organization, later = people.organization, timezone.now() + timedelta(days=1)
    charlies = Member.objects.get(user=people.charlie)
    for amounts in (Amounts(), Amounts(daily_nanos=-1), Amounts(weekly_nanos=10**18)):
        with pytest.raises(BudgetError):
            set_end_user_budget(organization, end_user="eve", amounts=amounts, actor=ACTOR)
    with pytest.raises(BudgetError, match="no member"):
        set_member_budget(organization, member=charlies, amounts=Amounts(1), actor=ACTOR)
    for end_user in ("e" * 257, "e\x00"):
        with pytest.raises(BudgetError, match="256 characters"):
            set_end_user_budget(organization, end_user=end_user, amounts=Amounts(1), actor=ACTOR)
    values: dict[str, Any] = {"amounts": Amounts(1), "until": later, "reason": "why", "actor": ACTOR}
    for holder, change in (
        (Holder(END_USER), {}),  # There is no budget.
        (Holder("key", str(people.key.pk)), {}),
        (Holder("organization"), {"until": timezone.now()}),
        (Holder("organization"), {"until": later + timedelta(days=100)}),
        (Holder("organization"), {"reason": " "}),
    ):
        with pytest.raises(BudgetError):
            make_override(organization, holder=holder, **{**values, **change})
    assert not SpenderBudget.objects.exists()
    assert not BudgetOverride.objects.exists()
    with pytest.raises(IntegrityError), transaction.atomic():
        SpenderBudget.objects.create(organization=organization, scope="member", spender="7", end_user="eve")


def test_days_are_forgotten_once_no_budget_reaches_them(people: People) -> None:
    for day in (today() - DAYS_KEPT - 1, today() - DAYS_KEPT):
        spend(people.organization, 5, day=day)
        SpenderDay.objects.create(organization_id=people.organization.pk, scope="member", spender="1", admitted_day=day)
    assert forget_old_spender_days(today=today()) == 1
    assert SpenderDay.objects.get().admitted_day == today() - DAYS_KEPT


def test_names_of_spenders() -> None:
    eve = Spender(7, END_USER, digest_of("eve"))
    assert (eve.name.startswith("user:7-"), len(eve.id), read_name(eve.name)) == (True, 32, eve)
    assert digest_of("") == ""
    for name in ("org:7", "user:7", "user:7-", ""):
        with pytest.raises(ValueError, match="names no spender"):
            read_name(name)
