"""Every list of the API is walked in the same way: `limit`, `cursor`, `has_more`, `next_cursor`."""

import base64
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from billing.credit.top_ups import grant_credit
from billing.documents.periods import month_of, months_between
from billing.models import CreditLot, WebhookDelivery, WebhookEndpoint
from billing.webhooks.queue import queue_test
from tests.api.manager import Manager
from tests.support.past import posted_at
from tests.support.people import People

pytestmark = pytest.mark.django_db(transaction=True)

# Lists that are bounded by what is on sale, or by the days that are asked for: these have no pages.
WHOLE = {"list_models", "list_prices", "list_activity", "report_usage", "report_cost"}


@pytest.fixture
def manager(people: People) -> Manager:
    return Manager(people.organization)


def walk(manager: Manager, path: str, *, limit: int) -> list[list[Any]]:
    """Return the ids of each page."""
    pages = []
    answer = manager.get(f"{path}?limit={limit}")
    while True:
        assert answer["has_more"] == (answer["next_cursor"] is not None)
        pages.append([row["id"] for row in answer["data"]])
        if not answer["has_more"]:
            return pages
        answer = manager.get(f"{path}?limit={limit}&cursor={answer['next_cursor']}")


def test_every_list_has_a_cursor() -> None:
    schema = Client().get("/api/schema/", headers={"accept": "application/json"}).json()
    without = set()
    for path in schema["paths"].values():
        call = path.get("get")
        content = ((call or {}).get("responses", {}).get("200") or {}).get("content", {}).get("application/json")
        if content is None:
            continue
        answer = schema["components"]["schemas"].get(content["schema"].get("$ref", "").rpartition("/")[2], {})
        is_list = answer.get("properties", {}).get("data", {}).get("type") == "array"
        if is_list and "cursor" not in {parameter["name"] for parameter in call.get("parameters", ())}:
            without.add(call["operationId"])
    assert without == WHOLE


def test_deliveries_of_one_moment_are_each_on_one_page(manager: Manager) -> None:
    made = manager.do("POST", "webhooks", {"url": "https://example.org/hook"})["data"]
    endpoint = WebhookEndpoint.objects.get()
    queued = [queue_test(endpoint) for _ in range(5)]
    WebhookDelivery.objects.filter(pk__in=[row.pk for row in queued[:3]]).update(created_at=queued[0].created_at)
    path = f"webhooks/{made['id']}/deliveries"
    pages = walk(manager, path, limit=2)
    assert [len(page) for page in pages] == [2, 2, 1]
    in_order = WebhookDelivery.objects.order_by("-created_at", "-pk").values_list("pk", flat=True)
    assert [each for page in pages for each in page] == [str(pk) for pk in in_order]


def test_a_page_of_deliveries_begins_after_what_is_gone_by_now(manager: Manager) -> None:
    made = manager.do("POST", "webhooks", {"url": "https://example.org/hook"})["data"]
    older, newer = (queue_test(WebhookEndpoint.objects.get()) for _ in range(2))
    path = f"webhooks/{made['id']}/deliveries"
    cursor = manager.get(f"{path}?limit=1")["next_cursor"]
    newer.delete()
    assert [row["id"] for row in manager.get(f"{path}?cursor={cursor}")["data"]] == [str(older.pk)]


def test_statements_have_pages(manager: Manager, people: People) -> None:
    begun = timezone.now() - timedelta(days=200)
    with posted_at(begun):
        paid: dict[str, Any] = {"kind": CreditLot.Kind.PAID, "reason": "x", "actor": "a", "idempotency_key": "x"}
        grant_credit(people.organization, amount_nanos=10**9, **paid)
    months = [str(month) for month in months_between(month_of(begun), month_of(timezone.now()))][::-1]
    pages = walk(manager, "statements", limit=3)
    assert [each for page in pages for each in page] == months
    assert [len(page) for page in pages[:-1]] == [3] * (len(pages) - 1)


@pytest.mark.parametrize("place", ["5", "99999999999999999." + "0" * 32, "5.x", "5." + "f" * 31, "2026-10", "."])
def test_places_that_are_none(manager: Manager, place: str) -> None:
    made = manager.do("POST", "webhooks", {"url": "https://example.org/hook"})["data"]
    cursor = base64.urlsafe_b64encode(f"deliveries:{place}".encode()).decode().rstrip("=")
    wrong = (400, "invalid_cursor")
    assert manager.refusal("GET", f"webhooks/{made['id']}/deliveries?cursor={cursor}") == wrong
    assert manager.refusal("GET", f"statements?cursor={cursor}") == wrong
