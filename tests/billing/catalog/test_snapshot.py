"""The snapshot: what the request path sees, in how many queries, and that every change is noticed."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import transaction
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from accounts.models import Organization
from billing.catalog.file import parse_catalog
from billing.catalog.load import load_catalog
from billing.catalog.snapshot import (
    CatalogModel,
    catalog_fingerprint,
    load_snapshot,
)
from billing.models import (
    LanguageModel,
    LanguageModelAlias,
    OrganizationPriceFactor,
    PriceVersion,
    Route,
    Upstream,
)
from tests.billing.catalog_factory import CATALOG

pytestmark = pytest.mark.django_db

FIRST_DAY = datetime(2026, 2, 17, tzinfo=UTC)


def load(text: str = CATALOG, *, approve: bool = True) -> None:
    load_catalog(parse_catalog(text, file_name="catalog.toml"), actor="alice@example.org", approve=approve)


def catalog_model(name: str = "acme/large-1.0") -> CatalogModel:
    model = load_snapshot().find(name)
    assert model is not None
    return model


@pytest.fixture(autouse=True)
def sandbox(settings: Any) -> None:
    settings.SANDBOX_URL = "http://127.0.0.1:9001"


def test_finds_models_by_id_and_alias() -> None:
    load()
    snapshot = load_snapshot()
    model = catalog_model()
    assert model == snapshot.find("large-1-0") == snapshot.find("acme/large")
    assert snapshot.find("acme/none") is None
    assert (model.display_name, model.context_tokens, model.max_output_tokens) == ("Acme Large 1.0", 200_000, 64_000)
    assert (model.capabilities, model.max_image_tokens) == (frozenset({"tools"}), 1600)
    assert model.released_at == FIRST_DAY
    assert model.expansion_tokens == {}
    LanguageModel.objects.filter(model_id=model.id).update(expansion_tokens={"document": 9_000})
    assert catalog_model().expansion_tokens == {"document": 9_000}


def test_a_disabled_model_is_not_sold() -> None:
    load()
    LanguageModel.objects.update(is_enabled=False)
    assert load_snapshot().models == ()


def test_an_id_wins_over_an_alias_of_the_same_name() -> None:
    load()
    small = LanguageModel.objects.create(model_id="small", context_tokens=1, max_output_tokens=1)
    LanguageModelAlias.objects.create(alias="acme/large-1.0", language_model=small)
    assert catalog_model().id == "acme/large-1.0"


# --- Routes ---------------------------------------------------------------------------------------------------------


def test_the_sandbox_serves_only_while_no_real_route_is_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    load()
    monkeypatch.delenv("ACME_API_KEY", raising=False)
    (route,) = catalog_model().routes
    assert (route.upstream_name, route.is_sandbox, route.base_url) == ("sandbox", True, "http://127.0.0.1:9001")
    monkeypatch.setenv("ACME_API_KEY", "secret-1")
    (route,) = catalog_model().routes
    assert (route.upstream_name, route.upstream_model, route.credential) == ("acme", "large-1-0-20260217", "secret-1")
    assert dict(route.profile) == {"api_version": "2023-06-01"}
    assert "secret-1" not in repr(load_snapshot())


@pytest.mark.parametrize("change", ["route", "upstream"])
def test_disabled_routes_and_upstreams_are_not_used(change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    load()
    monkeypatch.setenv("ACME_API_KEY", "secret-1")
    if change == "route":
        Route.objects.filter(upstream__name="acme").update(is_enabled=False)
    else:
        Upstream.objects.filter(name="acme").update(is_enabled=False)
    assert [route.upstream_name for route in catalog_model().routes] == ["sandbox"]


def test_without_an_address_a_route_is_not_used(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """In production no sandbox runs, so that a forgotten key never sells sandbox replies."""
    load()
    monkeypatch.delenv("ACME_API_KEY", raising=False)
    settings.SANDBOX_URL = ""
    model = catalog_model()
    assert model.routes == ()
    assert not model.is_available(timezone.now())


def test_routes_are_in_order_of_position(monkeypatch: pytest.MonkeyPatch) -> None:
    load()
    monkeypatch.setenv("ACME_API_KEY", "secret-1")
    acme = Upstream.objects.get(name="acme")
    for name, position in (("third", 3), ("zeroth", 0)):
        Route.objects.create(
            language_model=LanguageModel.objects.get(), upstream=acme, upstream_model=name, position=position
        )
    assert [route.upstream_model for route in catalog_model().routes] == ["zeroth", "large-1-0-20260217", "third"]


# --- Prices ---------------------------------------------------------------------------------------------------------


def test_prices_by_date_and_seller() -> None:
    load()
    later = datetime(2099, 1, 1, tzinfo=UTC)
    price = CATALOG[CATALOG.index("[[model.price]]") :].replace("2026-02-17", "2099-01-01").replace('"3"', '"2"')
    load(CATALOG + "\n" + price)
    model = catalog_model()

    def input_picos(moment: datetime) -> int | None:
        table = model.price_at(moment)
        return table.picos_per_unit("input") if table else None

    assert input_picos(FIRST_DAY - timedelta(microseconds=1)) is None
    assert input_picos(FIRST_DAY) == input_picos(timezone.now()) == 3_000_000
    assert input_picos(later - timedelta(microseconds=1)) == 3_000_000
    assert input_picos(later) == 2_000_000
    sale, cost = model.price_at(timezone.now()), model.upstream_price_at("acme", timezone.now())
    assert sale is not None
    assert cost is not None
    assert sale.price_version_id == PriceVersion.objects.get(upstream=None, effective_from=FIRST_DAY).pk
    assert cost.price_version_id == PriceVersion.objects.get(upstream__name="acme", effective_from=FIRST_DAY).pk
    assert dict(sale.tiers) == dict(cost.tiers)
    assert model.upstream_price_at("sandbox", timezone.now()) is None
    assert model.is_available(timezone.now())


def test_drafts_price_nothing() -> None:
    load(approve=False)
    model = catalog_model()
    assert model.price_at(timezone.now()) is None
    assert not model.is_available(timezone.now())


def test_old_history_is_not_kept_but_the_current_price_is() -> None:
    prices = CATALOG[CATALOG.index("[[model.price]]") :]
    history = "".join(
        "\n" + prices.replace("2026-02-17", f"2025-{month:02}-01").replace('"3"', f'"{month}"')
        for month in range(1, 13)
    )
    load(CATALOG + history)
    assert [moment for moment, _ in catalog_model().sale_prices] == [FIRST_DAY]


# --- Factors --------------------------------------------------------------------------------------------------------


def test_factors_are_dated() -> None:
    alice, bob = (Organization.objects.create(name=name, slug=name) for name in ("alice", "bob"))
    day = timedelta(days=1)
    for factor_ppm, begins, ends in (
        (900_000, FIRST_DAY, None),
        (500_000, FIRST_DAY + 10 * day, FIRST_DAY + 20 * day),
    ):
        OrganizationPriceFactor.objects.create(
            organization=alice, factor_ppm=factor_ppm, effective_from=begins, effective_to=ends, reason="deal"
        )
    snapshot = load_snapshot()
    moments = [FIRST_DAY + days * day for days in (-1, 0, 10, 19, 20)]
    expected = [1_000_000, 900_000, 500_000, 500_000, 900_000]
    assert [snapshot.factor_ppm(alice.pk, moment) for moment in moments] == expected
    assert [snapshot.factor_ppm(bob.pk, moment) for moment in moments] == [1_000_000] * 5


# --- Noticing changes -----------------------------------------------------------------------------------------------


def test_the_number_of_queries_does_not_grow(django_assert_num_queries: DjangoAssertNumQueries) -> None:
    load()
    with django_assert_num_queries(8):
        load_snapshot()
    model = CATALOG[CATALOG.index("[[model]]") :]
    load(
        CATALOG
        + "".join(
            model.replace("acme/large", f"acme/large-{n}").replace("large-1-0", f"large-1-0-{n}") for n in range(2, 5)
        )
    )
    with django_assert_num_queries(8):
        assert len(load_snapshot().models) == 4
    with django_assert_num_queries(1):
        catalog_fingerprint()


CHANGES: dict[str, Callable[[], object]] = {
    "upstream disabled": lambda: Upstream.objects.filter(name="acme").update(is_enabled=False),
    "upstream changed by SQL": lambda: Upstream.objects.extra().update(base_url="https://other.example"),
    "model disabled": lambda: LanguageModel.objects.update(is_enabled=False),
    "alias added": lambda: LanguageModelAlias.objects.create(alias="x", language_model=LanguageModel.objects.get()),
    "alias deleted": lambda: LanguageModelAlias.objects.first().delete(),  # type: ignore[union-attr]
    "route moved": lambda: Route.objects.filter(upstream__name="acme").update(position=4),
    "price drafted": lambda: load(CATALOG.replace('"3"', '"4"'), approve=False),
    "factor added": lambda: OrganizationPriceFactor.objects.create(
        organization=Organization.objects.create(name="a", slug="a"), factor_ppm=1, effective_from=FIRST_DAY, reason="x"
    ),
}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("name", CHANGES)
def test_every_change_changes_the_fingerprint(name: str) -> None:
    load()
    before = catalog_fingerprint()
    assert catalog_fingerprint() == before == load_snapshot().fingerprint
    CHANGES[name]()
    assert catalog_fingerprint() != before


@pytest.mark.django_db(transaction=True)
def test_what_is_rolled_back_changes_nothing() -> None:
    load()
    before = catalog_fingerprint()
    with transaction.atomic():
        LanguageModel.objects.update(is_enabled=False)
        transaction.set_rollback(True)
    assert catalog_fingerprint() == before


def test_the_fingerprint_of_an_empty_catalog() -> None:
    assert load_snapshot().models == ()
