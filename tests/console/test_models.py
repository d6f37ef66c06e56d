"""The price list: for everybody at published prices, for an organization at its own, exactly."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.test import Client

from billing.catalog.price_versions import PriceDraft, approve_price_version, draft_price
from billing.models import LanguageModel, OrganizationPriceFactor
from tests.support.people import People, client_of
from tests.support.settled_usage import sell_model

MODELS = "/api/v1/models"


def prices(client: Client, secret: str = "") -> dict[str, Any]:
    response = client.get(MODELS, headers={"x-api-key": secret} if secret else {})
    assert response.status_code == 200
    [model] = response.json()["data"]
    return {price["component"]: Decimal(price["usd"]) for price in model["price_tiers"][0]["prices"]}


def set_factor(people: People, ppm: int) -> None:
    OrganizationPriceFactor.objects.create(
        organization=people.organization,
        factor_ppm=ppm,
        effective_from=datetime.now(UTC) - timedelta(days=1),
        created_by="a test",
    )


def test_everybody_sees_the_published_prices(people: People) -> None:
    sell_model("acme/large", web_search=10_000_000_000)
    page = Client().get("/models/").content.decode()
    for text in ("acme/<wbr>large", "$3.00", "$15.00", "$0.30", "not available now"):
        assert text in page
    assert prices(Client()) == {
        "input": Decimal(3),
        "output": Decimal(15),
        "cache_read": Decimal("0.3"),
        "cache_write_5m": Decimal("3.75"),
        "web_search": Decimal(10),
    }


def test_an_organization_sees_what_it_pays(people: People) -> None:
    sell_model("acme/large")
    set_factor(people, 1_234_567)
    assert prices(Client(), people.secret)["input"] == Decimal("3.703701")
    assert prices(Client())["input"] == Decimal(3)
    page = client_of(people.alice).get("/console/alice/models/").content.decode()
    assert "$3.703701" in page
    assert "1.234567" in page
    assert "1.234567" not in client_of(people.charlie).get("/console/charlie/models/").content.decode()
    assert client_of(people.charlie).get("/console/alice/models/").status_code == 404


def test_prices_to_come_retirement_and_tiers_are_told(people: People) -> None:
    sell_model("acme/large")
    model = LanguageModel.objects.get()
    soon = datetime.now(UTC) + timedelta(days=3)
    draft = PriceDraft(
        effective_from=soon,
        source="a test",
        source_date=soon.date(),
        tiers={"input": ((0, 4_000_000), (200_000, 8_000_000)), "output": ((0, 20_000_000),)},
    )
    approve_price_version(draft_price(model, draft, created_by="alice"), approved_by="bob")
    LanguageModel.objects.update(retires_at=soon + timedelta(days=30))
    page = Client().get("/models/").content.decode()
    for text in ("$4.00", "$8.00", "200,000 prompt tokens and more", f"retires {soon + timedelta(days=30):%b}"):
        assert text in " ".join(page.split())
    [shown] = Client().get(MODELS).json()["data"]
    assert shown["next_prices_from"].startswith(f"{soon:%Y-%m-%dT%H:%M}")
    assert [tier["prompt_tokens_from"] for tier in shown["next_price_tiers"]] == [0, 200_000]


@pytest.mark.parametrize("key", ["cm-wrong", "cm-" + "a" * 8 + "-" + "b" * 43])
def test_a_key_that_is_sent_must_be_good(db: None, key: str) -> None:
    assert Client().get(MODELS, headers={"x-api-key": key}).status_code == 401


@pytest.mark.parametrize("models", [1, 5])
def test_it_costs_the_same_queries(people: People, models: int, django_assert_num_queries: Any) -> None:
    for number in range(models):
        sell_model(f"acme/{number}")
    Client().get("/models/")  # The catalog is read once for each of its versions.
    with django_assert_num_queries(2):
        Client().get("/models/")


def test_where_nothing_is_on_sale_the_page_says_so(people: People) -> None:
    for page in (Client().get("/models/"), client_of(people.alice).get("/console/alice/models/")):
        assert "No model is on sale here yet" in page.content.decode()
