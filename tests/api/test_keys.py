"""`/api/v1/keys`: what a management key may do with keys, and what it may not."""

import base64
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from accounts.key_secrets import find_key
from accounts.keys import create_key, disable_key, enable_key, revoke_key
from accounts.members import remove_member
from accounts.models import ApiKey, Member, Role, TemporarySecret
from api import answers, base
from api.models import ManagementAnswer
from tests.api.manager import Manager
from tests.support.people import People
from tests.support.settled_usage import billed_event, sell_model, settle
from tests.support.together import run_together


@pytest.fixture
def manager(people: People) -> Manager:
    return Manager(people.organization, person=people.alice)


FULL = {
    "name": "Worker",
    "expires_at": "2099-01-01T00:00:00Z",
    "limits": {"requests_per_minute": 60, "concurrent_requests": 3},
    "budgets": {"daily": "1.50", "monthly": "20"},
    "allowed_networks": ["203.0.113.0/24"],
}


def test_a_key_lives_from_its_making_to_its_end(manager: Manager, people: People) -> None:
    made = manager.do("POST", "keys", FULL)
    key_id, shown = made["data"]["id"], made["data"]
    key = find_key(made["key"])
    assert key is not None and f"apikey_{key.pk}" == key_id
    assert key.created_by == people.alice
    assert shown["limits"]["requests_per_minute"] == 60
    assert shown["budgets"]["daily"] == {"limit": "1.50", "in_force": "1.50", "spent": "0.00", "remaining": "1.50"}
    assert shown["budgets"]["weekly"]["limit"] is None
    assert made["key"] not in str(manager.get(f"keys/{key_id}"))
    changed = manager.do("PATCH", f"keys/{key_id}", {"budgets": {"weekly": "5"}, "disabled": True})["data"]
    assert (changed["disabled"], changed["name"], changed["budgets"]["daily"]["limit"]) == (True, "Worker", "1.50")
    assert changed["budgets"]["weekly"]["limit"] == "5.00"
    whole = manager.do("PUT", f"keys/{key_id}", {"name": "Only a name"})["data"]
    assert (whole["disabled"], whole["expires_at"], whole["allowed_networks"]) == (False, None, [])
    assert {whole["budgets"][period]["limit"] for period in ("daily", "weekly", "monthly")} == {None}
    assert whole["limits"] == dict.fromkeys(shown["limits"])
    again = manager.do("PUT", f"keys/{key_id}", {"name": "Only a name"})["data"]
    assert again == whole
    rotated = manager.do("POST", f"keys/{key_id}/rotate", {})
    assert find_key(made["key"]) == find_key(rotated["key"]) == key
    manager.do("POST", f"keys/{key_id}/rotate", {"overlap_seconds": 0})
    assert (find_key(made["key"]), find_key(rotated["key"])) == (None, None)
    gone = manager.do("DELETE", f"keys/{key_id}")
    assert gone["deleted"] and gone["data"]["revoked_at"]
    assert manager.do("DELETE", f"keys/{key_id}") == gone
    assert manager.refusal("PATCH", f"keys/{key_id}", {"name": "x"}) == (409, "key_is_revoked")
    assert manager.refusal("POST", f"keys/{key_id}/rotate", {}) == (409, "key_is_revoked")


def test_a_change_says_whether_gateways_know_it(manager: Manager) -> None:
    answer = manager.call("POST", "keys", {"name": "x"})
    assert (answer.status_code, answer["x-crossmodel-in-force"]) == (201, "true")
    assert manager.call("GET", "keys").get("x-crossmodel-in-force") is None


def test_without_redis_changes_are_kept_and_told_later(manager: Manager, redis_away: None) -> None:
    answer = manager.call("POST", "keys", {"name": "x"})
    assert (answer.status_code, answer["x-crossmodel-in-force"]) == (201, "false")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"nonsense",
        {},
        {"name": ""},
        {"name": "  "},
        {"name": 5},
        {"name": "x" * 101},
        {"name": "a\x00b"},
        {"name": "a\nb"},
        {"name": "a\u202eb"},
        {"name": "x", "nmae": "y"},
        {"name": "x", "budgets": {"daily": 5}},
        {"name": "x", "budgets": {"daily": "-1"}},
        {"name": "x", "budgets": {"daily": "1e3"}},
        {"name": "x", "budgets": {"daily": "1.0000000001"}},
        {"name": "x", "budgets": {"hourly": "1"}},
        {"name": "x", "budgets": None},
        {"name": "x", "limits": {"requests_per_minute": 0}},
        {"name": "x", "limits": {"requests_per_minute": "60"}},
        {"name": "x", "limits": {"requests_per_minute": True}},
        {"name": "x", "limits": {"input_tokens_per_minute": 2**63}},
        {"name": "x", "disabled": "true"},
        {"name": "x", "expires_at": "yesterday"},
        {"name": "x", "expires_at": "2001-01-01T00:00:00Z"},
        {"name": "x", "allowed_models": ["acme/nothing"]},
        {"name": "x", "allowed_networks": ["300.0.0.0/8"]},
        {"name": "x", "allowed_networks": ["10.0.0.0/8"] * 51},
    ],
)
def test_what_makes_no_sense_makes_no_key(manager: Manager, body: Any) -> None:
    before = ApiKey.objects.count()
    status, code = manager.refusal("POST", "keys", body)
    assert (status, code) in {(400, "invalid_parameters"), (400, "parse_error")}
    assert ApiKey.objects.count() == before


def test_models_are_kept_by_their_ids(manager: Manager) -> None:
    model_id = sell_model().language_model.model_id
    made = manager.do("POST", "keys", {"name": "x", "allowed_models": [model_id, model_id]})
    assert made["data"]["allowed_models"] == [model_id]


def test_keys_come_page_by_page_and_cost_the_same_queries(
    manager: Manager, people: People, django_assert_num_queries: Any
) -> None:
    for number in range(7):
        create_key(people.organization, name=f"Key {number}", created_by=people.alice)
    dead, _ = create_key(people.organization, name="Dead", created_by=people.alice)
    revoke_key(dead, revoked_by=None)
    settle([billed_event(people.key, sell_model())])
    seen: list[str] = []
    path, pages = "keys?limit=3", 0
    while True:
        with django_assert_num_queries(6):
            page = manager.get(path)
        seen += [key["name"] for key in page["data"]]
        pages += 1
        if not page["has_more"]:
            break
        path = f"keys?limit=3&cursor={page['next_cursor']}"
    assert pages == 3 and page["next_cursor"] is None
    assert seen == [*(f"Key {number}" for number in reversed(range(7))), "Backend"]
    assert page["data"][-1]["usage"] == page["data"][-1]["usage_daily"] != "0.00"
    everything = manager.get("keys?limit=100&include_revoked=true")["data"]
    assert len(everything) == 9


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("limit=0", "invalid_limit"),
        ("limit=101", "invalid_limit"),
        ("limit=x", "invalid_limit"),
        ("limit=%D9%A3", "invalid_limit"),
        ("cursor=", "invalid_cursor"),
        ("cursor=abc", "invalid_cursor"),
        ("cursor=%00", "invalid_parameters"),
        ("cursor=" + "A" * 5000, "invalid_cursor"),
        ("cursor=" + base64.urlsafe_b64encode(b"webhooks:5").decode(), "invalid_cursor"),
        ("cursor=" + base64.urlsafe_b64encode(b"keys:-5").decode(), "invalid_cursor"),
        ("cursor=" + base64.urlsafe_b64encode(b"keys:" + b"9" * 30).decode(), "invalid_cursor"),
        ("cursor=" + base64.urlsafe_b64encode("keys:٣".encode()).decode(), "invalid_cursor"),
    ],
)
def test_pages_that_are_none(manager: Manager, query: str, code: str) -> None:
    assert manager.refusal("GET", f"keys?{query}") == (400, code)


def test_what_is_of_others_is_not_there(manager: Manager, people: People) -> None:
    theirs, _ = create_key(people.charlies, name="Charlie's", created_by=people.charlie)
    for wanted in (theirs.pk, manager.key.pk, 10**17, "x", "0", "-1", "%00", "1%2F2", "9" * 40):
        for method, tail in (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/rotate")):
            assert manager.refusal(method, f"keys/{wanted}{tail}", {}) == (404, "not_found")
    assert "Charlie" not in str(manager.get("keys?include_revoked=true"))
    theirs.refresh_from_db()
    assert not theirs.is_revoked


def test_an_ordinary_key_manages_nothing(manager: Manager, people: People) -> None:
    manager.secret = people.secret
    assert manager.refusal("GET", "keys") == (403, "management_key_required")
    assert manager.refusal("POST", "keys", {"name": "x"}) == (403, "management_key_required")
    manager.secret = "cm-nothing"
    assert manager.refusal("GET", "keys") == (401, "invalid_api_key")


def test_a_developers_key_sees_what_its_person_made(people: People) -> None:
    people.give_bob(Role.ADMIN)
    developer = Manager(people.organization, role=Role.DEVELOPER, person=people.bob)
    mine, _ = create_key(people.organization, name="Bob's", created_by=people.bob)
    assert [key["name"] for key in developer.get("keys")["data"]] == ["Bob's"]
    assert developer.refusal("DELETE", f"keys/apikey_{people.key.pk}") == (404, "not_found")
    assert developer.do("DELETE", f"keys/apikey_{mine.pk}")["deleted"]
    nobodys = Manager(people.organization, role=Role.DEVELOPER)
    assert nobodys.get("keys")["data"] == []


def test_a_developers_key_enables_nothing_that_another_disabled(people: People) -> None:
    developer, owner = (
        Manager(people.organization, role=role, person=people.alice) for role in (Role.DEVELOPER, Role.OWNER)
    )
    path = f"keys/{people.key.pk}"
    for body in ({"disabled": False}, {"name": "Backend", "disabled": False}, {"name": "Backend"}):
        disable_key(people.key, disabled_by=people.bob)
        assert developer.refusal("PATCH" if len(body) == 1 and "name" not in body else "PUT", path, body) == (
            403, "permission_required",
        )  # fmt: skip
        people.key.refresh_from_db()
        assert people.key.is_disabled
    assert developer.do("PATCH", path, {"name": "Still"})["data"]["disabled"]
    assert not owner.do("PATCH", path, {"disabled": False})["data"]["disabled"]
    developer.do("PATCH", path, {"disabled": True})
    people.key.refresh_from_db()
    assert people.key.disabled_by == people.alice
    assert not developer.do("PATCH", path, {"disabled": False})["data"]["disabled"]


def test_a_key_acts_for_the_member_whose_key_it_is(people: People) -> None:
    """Not for who made it, when that person has left: nothing here is put down to them any more."""
    people.give_bob(Role.ADMIN)
    bobs = Manager(people.organization, role=Role.ADMIN, person=people.bob)
    remove_member(Member.objects.get(user=people.bob), keys_go_to=people.alice, removed_by=people.alice)
    assert enable_key(bobs.key, enabled_by=people.alice, manages_all=True)
    assert bobs.do("POST", "keys", {"name": "Worker"})["data"]["owner"] == "alice@example.org"
    left = Manager(people.organization, role=Role.ADMIN, person=people.alice)
    ApiKey.objects.filter(pk=left.key.pk).update(owner=people.bob)
    assert left.do("POST", "keys", {"name": "Other"})["data"]["owner"] is None


def test_the_same_call_twice_makes_one_key(manager: Manager, people: People) -> None:
    first = manager.call("POST", "keys", {"name": "x"}, **{"idempotency-key": "k1"})
    second = manager.call("POST", "keys", {"name": "x"}, **{"idempotency-key": "k1"})
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json() == second.json()
    assert second["idempotent-replayed"] == "true"
    assert ApiKey.objects.filter(name="x").count() == 1
    stored = ManagementAnswer.objects.get()
    assert first.json()["key"].encode() not in bytes(stored.sealed_answer or b"")
    assert manager.refusal("POST", "keys", {"name": "y"}, **{"idempotency-key": "k1"}) == (
        409, "idempotency_key_reused",
    )  # fmt: skip
    path = f"keys/{first.json()['data']['id']}/rotate"
    assert manager.refusal("POST", path, {"name": "x"}, **{"idempotency-key": "k1"})[0] == 409
    other = Manager(people.charlies, person=people.charlie)
    assert other.do("POST", "keys", {"name": "x"}, **{"idempotency-key": "k1"})["key"] != first.json()["key"]


def test_what_failed_may_be_tried_again_with_the_same_key(manager: Manager) -> None:
    assert manager.refusal("POST", "keys", {"name": ""}, **{"idempotency-key": "k"})[0] == 400
    assert manager.do("POST", "keys", {"name": "x"}, **{"idempotency-key": "k"})["key"]
    for bad in ("", "x" * 256, "ä"):
        assert manager.refusal("POST", "keys", {"name": "x"}, **{"idempotency-key": bad}) == (
            400, "invalid_idempotency_key",
        )  # fmt: skip


def test_answers_are_kept_for_a_day_and_bounded(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "MAX_ANSWERS_PER_ORGANIZATION", 2)
    for name in ("a", "b"):
        manager.do("POST", "keys", {"name": name}, **{"idempotency-key": name})
    assert manager.refusal("POST", "keys", {"name": "c"}, **{"idempotency-key": "c"}) == (
        429, "too_many_idempotency_keys",
    )  # fmt: skip
    ManagementAnswer.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    manager.do("POST", "keys", {"name": "c"}, **{"idempotency-key": "a"})
    assert ManagementAnswer.objects.count() == 1


def test_a_rotated_management_key_reads_no_answer_of_its_former_secret(manager: Manager) -> None:
    from accounts.key_secrets import rotate_secret

    manager.do("POST", "keys", {"name": "x"}, **{"idempotency-key": "k"})
    _, manager.secret = rotate_secret(manager.key, overlap=timedelta(hours=1))
    assert manager.refusal("POST", "keys", {"name": "x"}, **{"idempotency-key": "k"}) == (
        409, "idempotency_answer_not_kept",
    )  # fmt: skip


@pytest.mark.django_db(transaction=True)
def test_two_at_once_make_one_key(people: People) -> None:
    manager = Manager(people.organization, person=people.alice)
    found: list[str] = []

    def make() -> None:
        found.append(manager.do("POST", "keys", {"name": "x"}, **{"idempotency-key": "k"})["key"])

    assert run_together(*[make] * 4) == []
    assert len(set(found)) == 1
    assert ApiKey.objects.filter(name="x").count() == 1
    assert TemporarySecret.objects.count() == 0


def test_calls_have_a_pace(manager: Manager, monkeypatch: pytest.MonkeyPatch, people: People) -> None:
    monkeypatch.setattr(base, "CALLS_PER_MINUTE_OF_KEY", 3)
    monkeypatch.setattr(base, "CALLS_PER_MINUTE_OF_ORGANIZATION", 4)
    for _ in range(3):
        manager.get("keys?limit=1")
    answer = manager.call("GET", "keys")
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "rate_limited_requests")
    assert int(answer["retry-after"]) >= 1
    Manager(people.organization).get("keys")  # Another key has a pace of its own.
    third = Manager(people.organization)
    assert third.refusal("GET", "keys") == (429, "rate_limited_requests")
    Manager(people.charlies).get("keys")
