"""Budgets of members and end users and overrides over the API: the same rules as on the console's page."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from accounts.keys import create_key
from accounts.models import ApiKey, AuditEntry, Member, Role
from billing.budgets import choices, overrides
from billing.budgets.spenders import digest_of
from billing.models import BudgetOverride, SpenderBudget
from billing.money import format_usd
from tests.api.manager import Manager
from tests.support.people import People
from tests.support.settled_usage import billed_event, sell_model, settle

PERIODS = ("daily", "weekly", "monthly")
FOR_A_FAIR = {"daily": "1", "until": "TOMORROW", "reason": "A fair"}


@pytest.fixture
def manager(people: People) -> Manager:
    return Manager(people.organization, person=people.alice)


def soon(**ahead: int) -> str:
    return (datetime.now(UTC) + timedelta(**ahead)).isoformat()


def member_path(people: People) -> str:
    return f"budgets/members/member_{Member.objects.get(user=people.bob, organization=people.organization).pk}"


def limits_of(shown: dict[str, Any]) -> list[str | None]:
    return [shown[period]["limit"] for period in PERIODS]


def test_put_converges_on_every_budget_and_override(manager: Manager, people: People) -> None:
    """As a tool would: the same wishes twice change nothing, and what is read is what was wished."""
    key = f"keys/apikey_{people.key.pk}"
    odd = f"budgets/end-users/enduser_{digest_of('a/b')}"
    wishes: list[tuple[str, dict[str, Any]]] = [
        ("budgets", {"daily": "5", "only_notifies": True}),
        (key, {"name": "Backend", "budgets": {"weekly": "7.5", "only_notifies": True}, "owner": "Bob@example.org"}),
        (member_path(people), {"monthly": "20"}),
        ("budgets/members/default", {"daily": "0.000000001"}),
        ("budgets/end-users/eve%20%C3%A4", {"daily": "1", "weekly": "2"}),
        ("budgets/end-users/default", {"daily": "0", "only_notifies": True}),
        (odd, {"end_user": "a/b", "daily": "1"}),
    ]
    until = soon(days=1)
    holders = [path for path, _ in wishes] + ["budgets/end-users/somebody%20new"]
    wishes += [(f"{path}/override", {"daily": "9", "until": until, "reason": "A fair"}) for path in holders]
    first = [manager.do("PUT", path, wish)["data"] for path, wish in wishes]
    read = [manager.get(path)["data"] for path, _ in wishes]
    entries = AuditEntry.objects.count()
    assert [manager.do("PUT", path, wish)["data"] for path, wish in wishes[2:]] == read[2:]
    assert AuditEntry.objects.count() == entries
    assert first[7:] == read[7:]
    for found, (_, wish) in zip([read[0], read[1]["budgets"], *read[2:7]], wishes, strict=False):
        asked = wish.get("budgets", wish)
        assert limits_of(found) == [
            format_usd(round(float(asked[period]) * 10**9)) if period in asked else None for period in PERIODS
        ]
        assert found["only_notifies"] == asked.get("only_notifies", False)
        assert (found["daily"]["in_force"], found["override"]["made_by"]) == ("9.00", "alice@example.org")
    assert read[1]["owner"] == "bob@example.org"
    assert (read[4]["end_user"], read[4]["id"]) == ("eve ä", f"enduser_{digest_of('eve ä')}")
    assert manager.get(f"budgets/end-users/{read[4]['id']}")["data"] == read[4]
    listed = manager.get("budget-overrides")["data"]
    assert [row["scope"] for row in listed] == [
        *["end_user"] * 4, "member", "member", "key", "organization",
    ]  # fmt: skip
    assert {row["id"] for row in listed} >= {None, "default", read[2]["id"], read[1]["id"], odd.rpartition("/")[2]}
    for path in holders:
        assert manager.do("DELETE", f"{path}/override")["deleted"]
        assert manager.refusal("GET", f"{path}/override") == (404, "not_found")
    assert [found["is_default"] for found in read[2:7]] == [path.endswith("default") for path, _ in wishes[2:7]]
    for path, _ in sorted(wishes[2:7], key=lambda wish: wish[0].endswith("default")):
        assert manager.do("DELETE", path)["deleted"]
        if path.endswith("default"):
            assert manager.refusal("GET", path) == (404, "not_found")
        else:
            assert manager.get(path)["data"]["is_default"]
        assert manager.refusal("DELETE", path) == (404, "not_found")
    assert not SpenderBudget.objects.exists()


def test_whoever_has_the_default_alone_is_told_it_with_what_they_spent(manager: Manager, people: People) -> None:
    assert manager.refusal("GET", "budgets/end-users/eve") == (404, "not_found")
    manager.do("PUT", "budgets/end-users/default", {"daily": "50"})
    event = billed_event(people.key, sell_model(), end_user="eve")
    settle([event])
    for path in ("budgets/end-users/eve", f"budgets/end-users/enduser_{digest_of('eve')}"):
        shown = manager.get(path)["data"]
        assert (shown["id"], shown["end_user"], shown["is_default"]) == (f"enduser_{digest_of('eve')}", "eve", True)
        assert (shown["daily"]["limit"], shown["daily"]["spent"]) == ("50.00", format_usd(event.cost_nanos))
    until = soon(days=1)
    manager.do("PUT", "budgets/end-users/default/override", {"daily": "60", "until": until, "reason": "All"})
    assert manager.get("budgets/end-users/eve")["data"]["daily"]["in_force"] == "60.00"
    manager.do("PUT", "budgets/end-users/eve/override", {"daily": "70", "until": until, "reason": "Eve"})
    shown = manager.get("budgets/end-users/eve")["data"]
    assert (shown["daily"]["in_force"], shown["override"]["reason"]) == ("70.00", "Eve")
    manager.do("PUT", "budgets/members/default", {"daily": "9"})
    shown = manager.get(member_path(people))["data"]
    assert (shown["email"], shown["is_default"], shown["daily"]["remaining"]) == ("bob@example.org", True, "9.00")


def test_what_is_spent_stands_beside_each(manager: Manager, people: People) -> None:
    event = billed_event(people.key, sell_model(), end_user="eve")
    settle([event])
    cost = format_usd(event.cost_nanos)
    alice = Member.objects.get(user=people.alice, organization=people.organization)
    for path in (f"budgets/members/{alice.pk}", "budgets/end-users/eve", "budgets"):
        shown = manager.do("PUT", path, {"daily": "50"})["data"]
        assert shown["daily"]["spent"] == shown["monthly"]["spent"] == cost
        assert shown["daily"]["remaining"] == format_usd(50 * 10**9 - event.cost_nanos)
    default = manager.do("PUT", "budgets/end-users/default", {"daily": "50"})["data"]["daily"]
    assert default == {"limit": "50.00", "in_force": "50.00", "spent": None, "remaining": None}
    assert manager.get(f"keys/{people.key.pk}")["data"]["last_used_at"]


def test_an_asking_key_is_told_what_overrides_its_budget(people: People) -> None:
    manager = Manager(people.organization, person=people.alice)
    key, secret = create_key(people.organization, name="K", created_by=people.alice, fields={"daily_budget_nanos": 5})
    manager.do("PUT", f"keys/{key.pk}/override", {"daily": "8", "until": soon(hours=1), "reason": "x"})
    manager.secret = secret
    told = manager.get("key")["data"]
    assert (told["limit"], told["limit_remaining"], told["budgets"]["daily"]["limit"]) == (
        "8.00",
        "8.00",
        "0.000000005",
    )


def test_pages_of_end_users_cost_the_same_queries(
    manager: Manager, people: People, django_assert_num_queries: Any
) -> None:
    for number in range(5):
        manager.do("PUT", f"budgets/end-users/user-{number}", {"daily": "1"})
    path, seen = "budgets/end-users?limit=2", []
    while path:
        with django_assert_num_queries(4):
            page = manager.get(path)
        seen += [row["end_user"] for row in page["data"]]
        manager.do("PUT", f"budgets/end-users/late-{len(seen)}", {"daily": "1"})  # While somebody pages.
        path = f"budgets/end-users?limit=2&cursor={page['next_cursor']}" if page["has_more"] else ""
    assert seen == [f"user-{number}" for number in reversed(range(5))]
    cursor = manager.get("budgets/end-users?limit=1")["next_cursor"]
    assert manager.refusal("GET", f"budgets/members?cursor={cursor}") == (400, "invalid_cursor")


@pytest.mark.parametrize(
    ("path", "body", "refusal"),
    [
        ("budgets/members/default", {}, (400, "invalid_parameters")),
        ("budgets/members/default", {"daily": None}, (400, "invalid_parameters")),
        ("budgets/members/default", {"daily": "-0"}, (400, "invalid_parameters")),
        ("budgets/members/default", {"daily": "0.0000000001"}, (400, "invalid_parameters")),
        ("budgets/members/default", {"daily": "100000001"}, (400, "invalid_parameters")),
        ("budgets/members/default", {"daily": "1", "only_notifies": 1}, (400, "invalid_parameters")),
        ("budgets/members/default", {"daily": "1", "end_user": "eve"}, (400, "invalid_parameters")),
        ("budgets/members/999999999", {"daily": "1"}, (404, "not_found")),
        ("budgets/end-users/" + "e" * 257, {"daily": "1"}, (400, "invalid_parameters")),
        ("budgets/end-users/%00", {"daily": "1"}, (400, "invalid_parameters")),
        ("budgets/end-users/%20eve", {"daily": "1"}, (400, "invalid_parameters")),
        ("budgets/end-users/eve", {"daily": "1", "end_user": "mallory"}, (400, "invalid_parameters")),
        ("budgets/end-users/default", {"daily": "1", "end_user": "eve"}, (400, "invalid_parameters")),
        ("budgets/end-users/enduser_" + "0" * 32, {"daily": "1"}, (400, "invalid_parameters")),
        ("budgets/end-users/enduser_" + "0" * 32, {"daily": "1", "end_user": "x"}, (400, "invalid_parameters")),
        ("budgets/override", {**FOR_A_FAIR, "until": "2099-01-01T00:00:00Z"}, (400, "invalid_parameters")),
        ("budgets/override", {**FOR_A_FAIR, "until": "2001-01-01T00:00:00Z"}, (400, "invalid_parameters")),
        ("budgets/override", FOR_A_FAIR, (409, "no_budget_to_override")),
        ("budgets/override", {"daily": "1", "until": "TOMORROW"}, (400, "invalid_parameters")),
        ("budgets/override", {"daily": "1", "until": "TOMORROW", "reason": " "}, (400, "invalid_parameters")),
        ("budgets/override", {"until": "TOMORROW", "reason": "x"}, (400, "invalid_parameters")),
        ("budgets/end-users/eve/override", FOR_A_FAIR, (409, "no_budget_to_override")),
        ("keys/999999999/override", FOR_A_FAIR, (404, "not_found")),
        ("budgets", {"daily": "1e3"}, (400, "invalid_parameters")),
        ("budgets", {"daily": 1}, (400, "invalid_parameters")),
    ],
)  # fmt: skip
def test_what_makes_no_sense_changes_nothing(
    manager: Manager, path: str, body: dict[str, Any], refusal: tuple[int, str]
) -> None:
    if body.get("until") == "TOMORROW":
        body = {**body, "until": soon(days=1)}
    assert manager.refusal("PUT", path, body) == refusal
    assert not SpenderBudget.objects.exists()
    assert not BudgetOverride.objects.exists()


def test_there_are_bounds(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choices, "MAX_SPENDER_BUDGETS", 1)
    monkeypatch.setattr(overrides, "MAX_OPEN_OVERRIDES", 0)
    manager.do("PUT", "budgets/end-users/eve", {"daily": "1"})
    assert manager.refusal("PUT", "budgets/end-users/mallory", {"daily": "1"}) == (409, "too_many_budgets")
    override = {"daily": "1", "until": soon(days=1), "reason": "x"}
    assert manager.refusal("PUT", "budgets/end-users/eve/override", override) == (409, "too_many_budgets")


def test_who_manages_no_members_sees_their_own_budget_alone(manager: Manager, people: People) -> None:
    alice = Member.objects.get(user=people.alice, organization=people.organization)
    for path in (member_path(people), f"budgets/members/{alice.pk}", "budgets/members/default"):
        manager.do("PUT", path, {"daily": "1"})
    people.give_bob(Role.ADMIN)
    bobs = Manager(people.organization, role=Role.DEVELOPER, person=people.bob)
    assert [row["email"] for row in bobs.get("budgets/members")["data"]] == [None, "bob@example.org"]
    assert bobs.refusal("GET", f"budgets/members/{alice.pk}") == (404, "not_found")
    assert bobs.refusal("PUT", member_path(people), {"daily": "9"}) == (403, "permission_required")
    manager.do("PUT", "budgets/end-users/eve", {"daily": "1"})
    charlie = Manager(people.charlies, person=people.charlie)
    for method in ("GET", "DELETE"):
        assert charlie.refusal(method, "budgets/end-users/eve") == (404, "not_found")
    assert charlie.get("budgets/members")["data"] == charlie.get("budget-overrides")["data"] == []
    assert charlie.refusal("PUT", member_path(people), {"daily": "9"}) == (404, "not_found")
    assert charlie.refusal("PUT", f"budgets/members/{alice.pk}/override", {}) == (404, "not_found")


def test_keys_have_owners_and_go_to_others(manager: Manager, people: People) -> None:
    people.give_bob(Role.DEVELOPER)
    made = manager.do("POST", "keys", {"name": "x", "owner": "bob@example.org"})["data"]
    path = f"keys/{made['id']}"
    assert (made["owner"], made["created_by"]) == ("bob@example.org", "alice@example.org")
    assert manager.do("PUT", path, {"name": "x"})["data"]["owner"] == "bob@example.org"
    assert manager.do("PATCH", path, {"owner": None})["data"]["owner"] is None
    for owner in ("charlie@example.org", "nobody@example.org", "", 5):
        assert manager.refusal("PATCH", path, {"owner": owner}) == (400, "invalid_parameters")
    people.give_bob(Role.ADMIN)
    bobs = Manager(people.organization, role=Role.DEVELOPER, person=people.bob)
    mine = bobs.do("POST", "keys", {"name": "y", "owner": "bob@example.org"})["data"]
    assert bobs.refusal("PATCH", f"keys/{mine['id']}", {"owner": "alice@example.org"}) == (403, "permission_required")
    member = member_path(people).removeprefix("budgets/")
    alice = Member.objects.get(user=people.alice, organization=people.organization)
    charlie = Member.objects.get(user=people.charlie)
    for taker in (member.rpartition("/")[2], str(charlie.pk), "x"):
        assert manager.refusal("DELETE", f"{member}?keys_go_to={taker}") == (400, "invalid_parameters")
    assert manager.do("DELETE", f"{member}?keys_go_to=member_{alice.pk}")["deleted"]
    kept = ApiKey.objects.get(name="y")
    assert (kept.owner, kept.is_disabled) == (people.alice, False)
