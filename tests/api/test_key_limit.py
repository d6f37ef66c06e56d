"""Keys by OpenRouter's names: limit, limit_reset, include_byok_in_limit, disabled and expires_at mean the same."""

from typing import Any

import pytest

from accounts.models import ApiKey
from tests.api.manager import Manager
from tests.support.people import People

# What OpenRouter's API shows as the body of a new key.
NEW = {
    "name": "My New API Key",
    "limit": 50,
    "limit_reset": "monthly",
    "include_byok_in_limit": True,
    "expires_at": "2099-12-31T23:59:59Z",
}


@pytest.fixture
def manager(people: People) -> Manager:
    return Manager(people.organization, person=people.alice)


def amounts(shown: dict[str, Any]) -> dict[str, Any]:
    return {period: shown["budgets"][period]["limit"] for period in ("daily", "weekly", "monthly")}


def test_a_key_is_made_and_changed_by_the_names_of_openrouter(manager: Manager) -> None:
    made = manager.do("POST", "keys", NEW)["data"]
    assert (made["limit"], made["limit_remaining"], made["limit_reset"]) == ("50.00", "50.00", "monthly")
    assert (made["name"], made["expires_at"], made["disabled"]) == ("My New API Key", NEW["expires_at"], False)
    assert made["include_byok_in_limit"] is False
    assert amounts(made) == {"daily": None, "weekly": None, "monthly": "50.00"}
    path = f"keys/{made['hash']}"
    for body, limit, reset in (
        ({"limit": 74.5}, "74.50", "monthly"),
        ({"limit_reset": "daily"}, "74.50", "daily"),
        ({"limit": "12.25", "limit_reset": "weekly"}, "12.25", "weekly"),
        ({"name": "Other", "disabled": True}, "12.25", "weekly"),
        ({"limit": 0}, "0.00", "weekly"),
        ({"limit": 2}, "2.00", "weekly"),
        ({"limit": None}, None, None),
        ({"limit": 0.1, "limit_reset": "daily"}, "0.10", "daily"),
        ({"limit": None, "limit_reset": "daily"}, None, None),
    ):
        changed = manager.do("PATCH", path, body)["data"]
        assert (changed["limit"], changed["limit_reset"]) == (limit, reset), body
        assert changed == manager.get(path)["data"]
    assert (changed["name"], changed["disabled"]) == ("Other", True)
    whole = manager.do("PUT", path, {"name": "Whole", "limit": 3, "limit_reset": "daily"})["data"]
    assert amounts(whole) == {"daily": "3.00", "weekly": None, "monthly": None}
    assert manager.do("PUT", path, {"name": "Whole", "limit": 3, "limit_reset": "daily"})["data"] == whole


@pytest.mark.parametrize(
    "body",
    [
        {"limit": 5},
        {"limit": 5, "limit_reset": None},
        {"limit": 5, "limit_reset": "yearly"},
        {"limit_reset": "daily"},
        {"limit": 5, "limit_reset": "daily", "budgets": {"daily": "5"}},
        {"limit": -1, "limit_reset": "daily"},
        {"limit": True, "limit_reset": "daily"},
        {"limit": 1e-10, "limit_reset": "daily"},
        {"limit": 1e10, "limit_reset": "daily"},
        {"limit": 10**400, "limit_reset": "daily"},
        {"limit": "five", "limit_reset": "daily"},
        {"limit": 5, "limit_reset": "daily", "include_byok_in_limit": "yes"},
    ],
)
def test_a_limit_that_cannot_be_kept_makes_no_key(manager: Manager, body: dict[str, Any]) -> None:
    before = ApiKey.objects.count()
    assert manager.refusal("POST", "keys", {"name": "x", **body}) == (400, "invalid_parameters")
    assert ApiKey.objects.count() == before


def test_a_limit_says_which_of_several_budgets_it_means(manager: Manager) -> None:
    made = manager.do("POST", "keys", {"name": "x", "budgets": {"daily": "1", "monthly": "20"}})["data"]
    path = f"keys/{made['id']}"
    for body in ({"limit": 5}, {"limit_reset": "daily"}):
        assert manager.refusal("PATCH", path, body) == (400, "invalid_parameters")
    assert amounts(manager.get(path)["data"]) == amounts(made)
    changed = manager.do("PATCH", path, {"limit": 5, "limit_reset": "monthly"})["data"]
    assert amounts(changed) == {"daily": None, "weekly": None, "monthly": "5.00"}


def test_a_list_leaves_disabled_keys_out_when_told(manager: Manager) -> None:
    manager.do("POST", "keys", {"name": "Off", "disabled": True})
    names = [key["name"] for key in manager.get("keys")["data"]]
    assert "Off" in names
    assert [key["name"] for key in manager.get("keys?include_disabled=true")["data"]] == names
    assert "Off" not in [key["name"] for key in manager.get("keys?include_disabled=false")["data"]]
    assert manager.refusal("GET", "keys?include_disabled=x") == (400, "invalid_parameters")
