"""Alerts of members' and end users' budgets: whose they are, one for all end users, and who hears of them."""

from datetime import timedelta

import pytest
from django.utils import timezone

from accounts.models import Member, Organization, User
from accounts.organizations import change_organization
from billing.alerts.evaluation import evaluate_spending
from billing.alerts.notices import queue_notices
from billing.budgets.amounts import Amounts, Holder
from billing.budgets.choices import set_end_user_budget, set_member_budget
from billing.budgets.overrides import make_override
from billing.budgets.spenders import digest_of
from billing.models import Alert, OutgoingMail, SpenderDay
from pages.alert_text import describe_alert
from tests.billing.ledger_factory import give
from tests.support.people import People, make_people
from tests.support.spending import USD, spend, today

pytestmark = pytest.mark.django_db
ACTOR = "a test"


@pytest.fixture
def people() -> People:
    people = make_people()
    give(people.organization, 10_000 * USD)
    return people


def spent_by(organization: Organization, scope: str, spender: str, nanos: int, *, end_user: str = "") -> None:
    SpenderDay.objects.update_or_create(
        organization_id=organization.pk,
        scope=scope,
        spender=spender,
        admitted_day=today(),
        defaults={"cost_nanos": nanos, "end_user": end_user},
    )


def titles(organization: Organization) -> list[str]:
    alerts = Alert.objects.filter(organization=organization, cleared_at=None).order_by("kind", "subject")
    return [describe_alert(alert, role="owner").title for alert in alerts.select_related("key", "organization")]


def readers() -> set[User]:
    return {mail.user for mail in OutgoingMail.objects.select_related("user")}


def test_a_member_hears_of_their_own_budget_and_others_do_not(people: People) -> None:
    bob = Member.objects.get(user=people.bob)
    set_member_budget(people.organization, member=bob, amounts=Amounts(monthly_nanos=10 * USD), actor=ACTOR)
    for user in (people.alice, people.bob):
        spent_by(people.organization, "member", str(user.pk), 9 * USD)
    assert evaluate_spending() == (1, 0)
    assert titles(people.organization) == ["The monthly budget of bob@example.org is nearly used up"]
    queue_notices()
    assert readers() == {people.alice, people.bob}
    spent_by(people.organization, "member", str(people.bob.pk), 10 * USD)
    evaluate_spending()
    assert titles(people.organization)[0] == "The monthly budget of bob@example.org is used up"


def test_fifty_end_users_are_one_alert_for_each_period_and_one_mail(people: People) -> None:
    budgets = Amounts(daily_nanos=10 * USD, monthly_nanos=1_000 * USD)
    set_end_user_budget(people.organization, end_user="", amounts=budgets, actor=ACTOR)
    set_end_user_budget(people.organization, end_user="rich", amounts=Amounts(daily_nanos=99 * USD), actor=ACTOR)
    for number in range(50):
        name = f"user {number}"
        spent_by(people.organization, "end_user", digest_of(name), 10 * USD + number * USD // 10, end_user=name)
    spent_by(people.organization, "end_user", digest_of("rich"), 11 * USD, end_user="rich")
    spent_by(people.charlies, "end_user", digest_of("eve"), 99 * USD, end_user="eve")
    assert evaluate_spending() == (1, 0)
    [alert] = Alert.objects.all()
    assert (alert.kind, alert.subject) == ("budget_reached", f"end_users:day:{today()}")
    assert (alert.details["end_user"], alert.details["end_users"]) == ("user 49", 50)
    assert titles(people.organization) == ["The daily budget of the end user “user 49” and of 49 more is used up"]
    queue_notices()
    spent_by(people.organization, "end_user", digest_of("late"), 20 * USD, end_user="late")
    assert evaluate_spending() == (0, 0)
    queue_notices()
    assert readers() == {people.alice}
    assert OutgoingMail.objects.count() == 1
    SpenderDay.objects.all().delete()
    assert evaluate_spending() == (0, 1)


def test_an_override_counts_while_it_stands_and_a_budget_that_only_notifies_says_so(people: People) -> None:
    organization = people.organization
    change_organization(organization, fields={"daily_budget_nanos": 10 * USD, "budgets_only_notify": True})
    set_end_user_budget(
        organization, end_user="", amounts=Amounts(daily_nanos=10 * USD), only_notifies=True, actor=ACTOR
    )
    spend(organization, 9 * USD)
    spent_by(organization, "end_user", digest_of("eve"), 9 * USD, end_user="eve")
    evaluate_spending()
    for alert in Alert.objects.select_related("key", "organization"):
        assert "Requests go on: this budget only notifies." in describe_alert(alert, role="owner").text
    assert len(titles(organization)) == 2
    for holder in (Holder("organization"), Holder("end_user")):
        make_override(
            organization,
            holder=holder,
            amounts=Amounts(daily_nanos=20 * USD),
            until=timezone.now() + timedelta(hours=1),
            reason="a fair",
            actor=ACTOR,
        )
    assert evaluate_spending() == (0, 2)
