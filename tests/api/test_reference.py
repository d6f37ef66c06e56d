"""The reference page and llms.txt: they name every call, for everybody, and load nothing of others."""

import pytest
from django.test import Client

from api.reference import read_groups


@pytest.mark.django_db
def test_they_name_every_call_and_load_nothing_of_others() -> None:
    schema = Client().get("/api/schema/?format=json").json()
    calls = [f"{method.upper()} {path}" for path, operations in schema["paths"].items() for method in operations]
    page, text = Client().get("/reference/api/"), Client().get("/llms.txt")
    assert (page.status_code, text.status_code) == (200, 200)
    assert text["content-type"].startswith("text/plain")
    for call in calls:
        assert call in page.content.decode(), call
        assert f"`{call}`" in text.content.decode(), call
    assert "script-src 'self'" in page["Content-Security-Policy"]
    assert "//cdn" not in page.content.decode()


@pytest.mark.django_db
def test_fields_are_named_by_their_way() -> None:
    calls = {call["id"]: call for group in read_groups() for call in group["calls"]}
    assert "budgets.daily" in {row["name"] for row in calls["create_key"]["body"]}
    [(status, rows)] = calls["list_keys"]["answers"]
    assert status == "200"
    assert {"data[].id", "data[].budgets.daily.spent", "next_cursor"} <= {row["name"] for row in rows}
    assert calls["create_key"]["needs"] == "a management key"
    assert calls["get_credits"]["needs"] == "a key"
