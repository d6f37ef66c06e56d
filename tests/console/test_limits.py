"""Limits and budgets: what is shown to whom, what a form does, and what makes no sense."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from accounts.keys import create_key
from accounts.models import Role
from accounts.organizations import change_organization
from billing.admission.outbox import publish_pending_changes
from billing.admission.redis_keys import shard_keys_of
from billing.budgets.amounts import Amounts
from billing.budgets.choices import set_end_user_budget, set_member_budget
from billing.budgets.spenders import END_USER, Spender, digest_of
from billing.budgets.standing import MAX_LISTED, StandingReader
from billing.models import BudgetOverride, SpenderBudget, SpenderDay
from billing.request_id import make_request_id
from billing.usage.refusals import Refusal, write_refusals
from tests.support.people import People, client_of
from tests.support.spending import USD, spend, today

PAGE = "/console/alice/limits/"
ENFORCE = {"effect": "refuse"}


@pytest.fixture
def alice(people: People) -> Client:
    return client_of(people.alice)


def spent_by_eve(people: People, nanos: int, *, name: str = "eve") -> None:
    SpenderDay.objects.create(
        organization_id=people.organization.pk,
        scope="end_user",
        spender=digest_of(name),
        admitted_day=today(),
        cost_nanos=nanos,
        end_user=name,
    )


def soon(**delta: int) -> str:
    return (datetime.now(UTC) + timedelta(**delta)).strftime("%Y-%m-%dT%H:%M")


def test_an_empty_page_says_what_there_is_not(alice: Client, people: People) -> None:
    page = alice.get(PAGE).content.decode()
    for text in ("No key has limits", "No member has a budget", "End users have no budgets", "has refused anything"):
        assert text in page


def test_what_is_spent_is_what_budgets_compare(alice: Client, people: People, redis_client: redis.Redis) -> None:
    """Posted in Postgres, and beside it what Redis has held and unsettled; rates as far as they are taken."""
    organization = people.organization
    change_organization(organization, fields={"daily_budget_nanos": 10 * USD, "requests_per_minute": 60})
    set_end_user_budget(organization, end_user="", amounts=Amounts(daily_nanos=4 * USD), actor="a test")
    publish_pending_changes()
    organization.refresh_from_db()
    names = shard_keys_of(organization.pk)
    spend(organization, 2 * USD)
    spent_by_eve(people, USD)
    eve = Spender(organization.pk, END_USER, digest_of("eve")).name
    for name in (names.org(organization.pk), names.prefix + eve):
        redis_client.hset(name, mapping={f"held:{today()}": 2 * USD, f"unsettled:{today()}": USD})
    redis_client.set(names.rate("org", organization.pk, "requests"), "1", px=31_000)
    reader = StandingReader(organization)
    standing, [user] = reader.read_organization(), reader.read_end_users()
    assert (standing.budgets[0].spent_nanos, standing.budgets[0].percent) == (5 * USD, 50)
    assert {use.kind: use.used for use in standing.rates} == {"requests_per_minute": 30, "concurrent_requests": 0}
    assert (user.label, user.budgets[0].spent_nanos, user.budgets[0].percent) == ("eve", 4 * USD, 100)
    assert "100 percent of the budget of this day used" in alice.get(PAGE).content.decode()


def test_each_role_sees_what_it_may(people: People) -> None:
    organization = people.organization
    create_key(organization, name="Bob's", created_by=people.bob, fields={"daily_budget_nanos": 1})
    create_key(organization, name="Alice's", created_by=people.alice, fields={"daily_budget_nanos": 1})
    set_member_budget(organization, member=None, amounts=Amounts(daily_nanos=USD), actor="a test")
    set_end_user_budget(organization, end_user="eve", amounts=Amounts(daily_nanos=USD), actor="a test")
    seen = {}
    for role in (Role.ADMIN, Role.DEVELOPER, Role.VIEWER):
        people.give_bob(role)
        page = client_of(people.bob).get(PAGE).content.decode()
        texts = ("Bob&#x27;s</strong>", "Alice&#x27;s</strong>", "alice@example.org", ">eve<", ">Edit<")
        seen[role] = [text in page for text in texts]
    assert seen == {
        Role.ADMIN: [True, True, True, True, True],
        Role.DEVELOPER: [True, False, False, True, False],
        Role.VIEWER: [False, False, False, True, False],
    }


def test_budgets_are_set_changed_and_removed(alice: Client, people: People, redis_client: redis.Redis) -> None:
    organization, key = people.organization, people.key
    bob = f"{PAGE}member/{people.bob.pk}/"
    notify = {"effect": "notify"}
    for url, values in (
        (f"{PAGE}organization/all/", {"weekly_budget_nanos": "70", **notify}),
        (f"{PAGE}key/{key.pk}/", {"daily_budget_nanos": "$1.50", **ENFORCE}),
        (bob, {"monthly_budget_nanos": "1,000", **ENFORCE}),
        (f"{PAGE}end-user/all/", {"daily_budget_nanos": "0.25", **ENFORCE}),
        (f"{PAGE}end-user/new/", {"end_user": " eve ", "daily_budget_nanos": "5", **notify}),
    ):
        assert alice.post(url, values).status_code == 302, url
    organization.refresh_from_db()
    key.refresh_from_db()
    assert (organization.weekly_budget_nanos, organization.budgets_only_notify) == (70 * USD, True)
    assert (key.daily_budget_nanos, key.budgets_only_notify) == (1_500_000_000, False)
    budgets = SpenderBudget.objects.order_by("scope", "end_user").values_list(
        "scope", "spender", "end_user", "daily_budget_nanos", "budgets_only_notify", "changed_by"
    )
    assert list(budgets) == [
        ("end_user", "", "", USD // 4, False, "alice@example.org"),
        ("end_user", digest_of("eve"), "eve", 5 * USD, True, "alice@example.org"),
        ("member", str(people.bob.pk), "", None, False, "alice@example.org"),
    ]
    names = shard_keys_of(organization.pk)
    assert redis_client.hmget(names.org(organization.pk), "counts", "only_notifies") == [b"mu", b"1"]
    assert redis_client.hget(names.key(key.pk), "member") == str(people.alice.pk).encode()
    eve = f"{PAGE}end-user/{digest_of('eve')}/"
    assert alice.get(eve).context["form"].initial["daily_budget_nanos"] == 5 * USD
    for url in (bob, eve, eve, f"{PAGE}end-user/all/"):
        assert alice.post(f"{url}remove/").status_code in (302, 404)
    assert not SpenderBudget.objects.exists()
    assert alice.get(eve).status_code == 404


def test_an_override_is_made_shown_and_ended(alice: Client, people: People) -> None:
    url = f"{PAGE}organization/all/"
    override = {"daily_budget_nanos": "9", "until": soon(hours=2), "reason": "The fair"}
    assert "There is no budget" in alice.post(f"{url}override/", override).content.decode()
    alice.post(url, {"daily_budget_nanos": "5", **ENFORCE})
    wrong: list[dict[str, Any]] = [{"until": soon(hours=-2)}, {"until": soon(days=200)}, {"reason": ""}]
    for values in (*wrong, {"daily_budget_nanos": ""}, {"daily_budget_nanos": "-1"}, {"until": "tomorrow"}):
        assert alice.post(f"{url}override/", {**override, **values}).status_code == 422
    assert alice.post(f"{url}override/", override).status_code == 302
    assert alice.post(f"{url}override/", {**override, "daily_budget_nanos": "8"}).status_code == 302
    [made, _] = BudgetOverride.objects.order_by("-id")
    assert (made.daily_budget_nanos, made.made_by, made.reason) == (8 * USD, "alice@example.org", "The fair")
    [day, *_] = alice.get(PAGE).context["organization_standing"].budgets
    assert (day.budget_nanos, day.is_overridden) == (8 * USD, True)
    assert "The fair" in alice.get(url).content.decode()
    for _ in range(2):
        assert alice.post(f"{url}override/end/").status_code == 302
    assert not BudgetOverride.objects.filter(ended_at=None).exists()
    assert "ended by alice@example.org" in alice.get(url).content.decode()


def test_what_makes_no_sense_is_told_and_changes_nothing(alice: Client, people: People) -> None:
    for url, values in (
        (f"{PAGE}member/{people.bob.pk}/", ENFORCE),
        (f"{PAGE}end-user/all/", {"daily_budget_nanos": "-1", **ENFORCE}),
        (f"{PAGE}end-user/all/", {"daily_budget_nanos": "1"}),
        (f"{PAGE}end-user/new/", {"daily_budget_nanos": "1", **ENFORCE}),
        (f"{PAGE}end-user/new/", {"end_user": "e" * 257, "daily_budget_nanos": "1", **ENFORCE}),
        (f"{PAGE}end-user/new/", {"end_user": "eve", "daily_budget_nanos": "999999999999", **ENFORCE}),
    ):
        assert alice.post(url, values).status_code == 422, (url, values)
    for holder in ("key/0", "key/x", "member/999999", "member/x", "end-user/ab", "organization/7", "nobody/all"):
        assert alice.get(f"{PAGE}{holder}/").status_code == 404
    assert not SpenderBudget.objects.exists()


def test_refusals_by_limits_are_told_with_how_many(alice: Client, people: People) -> None:
    now = datetime.now(UTC)
    codes = {"rate_limited_requests": 429, "end_user_daily_budget_exceeded": 402, "model_not_allowed": 402}
    write_refusals(
        [
            Refusal(
                request_id=make_request_id().hex,
                organization_id=organization.pk,
                key_id=people.key.pk,
                endpoint="messages",
                model_id="m",
                status=status,
                error_code=code,
                message=f"Because of {code} of {organization.slug}.",
                refused_at=now,
                repeats=3,
            )
            for organization in (people.organization, people.charlies)
            for code, status in codes.items()
        ]
    )
    response = alice.get(PAGE)
    reasons = [(reason.code, reason.today, reason.month) for reason in response.context["refused_days"]]
    assert reasons == [("end_user_daily_budget_exceeded", 4, 4), ("rate_limited_requests", 4, 4)]
    page = response.content.decode()
    assert "Because of rate_limited_requests of alice." in page
    assert "of charlie" not in page
    assert "model_not_allowed" not in page


def test_many_rows_cost_as_many_queries_as_one(alice: Client, people: People) -> None:
    counts = []
    alice.get(PAGE)
    set_end_user_budget(people.organization, end_user="", amounts=Amounts(daily_nanos=USD), actor="a test")
    for number in (1, 150):
        for each in range(number):
            spent_by_eve(people, USD * (each + 1) // 150, name=f"user {number} {each}")
        create_key(people.organization, name=f"{number}", created_by=None, fields={"daily_budget_nanos": 1})
        with CaptureQueriesContext(connection) as queries:
            response = alice.get(PAGE)
        counts.append(len(queries))
    assert counts[0] == counts[1]
    assert len(response.context["end_users"]) == MAX_LISTED
    assert response.context["end_users"][0].label in ("user 1 0", "user 150 149")
    assert [user.label for user in alice.get(PAGE, {"end_user": "user 150 3"}).context["end_users"]] == ["user 150 3"]


def test_the_rates_of_a_key_are_read_though_most_keys_have_none(
    alice: Client, people: People, redis_client: redis.Redis
) -> None:
    """Of keys with budgets alone only what they spent is asked, so the answers are told apart by their number."""
    for number in range(6):
        fields = {"requests_per_minute": 60} if number % 2 else {"daily_budget_nanos": 10**9}
        create_key(people.organization, name=f"Key {number}", created_by=people.alice, fields=fields)
    publish_pending_changes()
    rates = shard_keys_of(people.organization.pk)
    limited = people.organization.keys.get(name="Key 3")
    redis_client.set(rates.rate("key", limited.pk, "requests"), "1", px=31_000)
    found = {standing.label: standing for standing in alice.get(PAGE).context["keys"]}
    assert len(found) == 6
    assert [use.used for use in found["Key 3"].rates] == [30]
    assert all(use.used == 0 for name, standing in found.items() if name != "Key 3" for use in standing.rates)
