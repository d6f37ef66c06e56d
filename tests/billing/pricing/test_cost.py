"""What a request costs: the shared vectors, an independent calculation, and what must hold for any usage at all."""

import json
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from billing.money import parse_usd, parse_usd_per_million
from billing.pricing.cost import (
    COMPONENTS,
    FACTOR_ONE_PPM,
    IMAGE,
    MAX_FACTOR_PPM,
    MAX_PICOS_PER_UNIT,
    PROMPT_COMPONENTS,
    WEB_SEARCH,
    InvalidPriceError,
    InvalidUsageError,
    MissingPriceError,
    PriceTable,
    Usage,
    catalog_price_strings,
    cost_nanos,
    describe_prices,
)
from billing.usage_event import MAX_COUNT, USAGE_COUNTS, UsageEvent

VECTORS = json.loads((Path(__file__).parents[3] / "docs" / "price-vectors.json").read_text())
COUNT_FIELDS = Usage._fields

counts = st.integers(0, MAX_COUNT)
usages = st.builds(Usage, **dict.fromkeys(COUNT_FIELDS, counts))
starts = st.lists(st.integers(1, 2_000_000), max_size=3, unique=True).map(lambda later: [0, *sorted(later)])
picos = st.integers(0, MAX_PICOS_PER_UNIT)
factors = st.integers(0, MAX_FACTOR_PPM)


@st.composite
def price_tables(draw: st.DrawFn, *, rising: bool = False) -> PriceTable:
    """Any price table that has a price for everything. With `rising`, longer prompts never get cheaper."""
    begins = draw(starts)
    tiers = {}
    for component in COMPONENTS:
        amounts = draw(st.lists(picos, min_size=len(begins), max_size=len(begins)))
        tiers[component] = tuple(zip(begins, sorted(amounts) if rising else amounts, strict=True))
    return PriceTable(1, tiers, draw(st.integers(0, 10**9)))


def table_of(prices: dict[str, Any]) -> PriceTable:
    """The price table of prices written as in the vectors: USD per million tokens and per thousand units."""
    tiers = {}
    for component in COMPONENTS:
        rows = []
        for row in [{"prompt_tokens_from": 0, **prices}, *prices.get("tiers", [])]:
            if component in (IMAGE, WEB_SEARCH):
                if f"{component}_per_thousand" in row:
                    rows.append((row["prompt_tokens_from"], parse_usd(row[f"{component}_per_thousand"])))
            elif component in PROMPT_COMPONENTS:
                rows.append((row["prompt_tokens_from"], parse_usd_per_million(row.get(component, row["input"]))))
            else:
                rows.append((row["prompt_tokens_from"], parse_usd_per_million(row[component])))
        if rows:
            tiers[component] = tuple(rows)
    return PriceTable(1, tiers, parse_usd(prices.get("minimum_charge", "0")))


def independent_nanos(prices: dict[str, Any], usage: dict[str, int], factor: str) -> int:
    """The same rule, written a second time on decimal dollars, as a customer would check a bill."""
    prompt = sum(usage.get(f"{kind}_tokens", 0) for kind in ("input", "cache_write_5m", "cache_write_1h", "cache_read"))
    in_force = dict(prices)
    for tier in prices.get("tiers", []):
        if tier["prompt_tokens_from"] <= prompt:
            in_force |= tier
    with localcontext(prec=60):
        dollars = Decimal(0)
        for kind in ("input", "output", "cache_write_5m", "cache_write_1h", "cache_read"):
            per_million = in_force.get(kind, in_force["input"])
            dollars += usage.get(f"{kind}_tokens", 0) * Decimal(per_million) / 1_000_000
        dollars += usage.get("images", 0) * Decimal(in_force.get("image_per_thousand", "0")) / 1000
        dollars += usage.get("web_searches", 0) * Decimal(in_force.get("web_search_per_thousand", "0")) / 1000
        if any(usage.values()):
            dollars = max(dollars, Decimal(prices.get("minimum_charge", "0")))
        return int((dollars * Decimal(factor) * 1_000_000_000).to_integral_value(rounding="ROUND_CEILING"))


@pytest.mark.parametrize("vector", VECTORS["vectors"], ids=lambda vector: vector["name"])
def test_vectors(vector: dict[str, Any]) -> None:
    prices = VECTORS["prices"][vector["price"]]
    factor_ppm = int(Decimal(vector["factor"]) * FACTOR_ONE_PPM)
    assert cost_nanos(Usage(**vector["usage"]), table_of(prices), factor_ppm) == vector["nanos"]
    assert independent_nanos(prices, vector["usage"], vector["factor"]) == vector["nanos"]


def test_vectors_cover_every_count_alone_and_every_pair() -> None:
    """A price forgotten for one combination is how comparable systems went wrong."""
    used = [{name for name, count in vector["usage"].items() if count} for vector in VECTORS["vectors"]]
    fields = [name for name in COUNT_FIELDS if name != "images"]
    assert all({name} in used for name in COUNT_FIELDS)
    assert all(any({one, other} <= names for names in used) for one in fields for other in fields)


@given(st.sampled_from(sorted(VECTORS["prices"])), st.data())
@settings(max_examples=300)
def test_agrees_with_the_independent_calculation(name: str, data: st.DataObject) -> None:
    prices = VECTORS["prices"][name]
    table = table_of(prices)
    usage = data.draw(st.fixed_dictionaries({field: st.integers(0, 300_000) for field in COUNT_FIELDS[:5]}))
    for field, component in (("images", IMAGE), ("web_searches", WEB_SEARCH)):
        usage[field] = data.draw(st.integers(0, 50)) if table.has_price(component) else 0
    factor_ppm = data.draw(factors)
    expected = independent_nanos(prices, usage, str(Decimal(factor_ppm) / FACTOR_ONE_PPM))
    assert cost_nanos(Usage(**usage), table, factor_ppm) == expected


@given(usages, price_tables(), factors)
@example(Usage(*[MAX_COUNT] * 7), PriceTable(1, dict.fromkeys(COMPONENTS, ((0, MAX_PICOS_PER_UNIT),))), MAX_FACTOR_PPM)
def test_is_never_negative_and_a_whole_number(usage: Usage, price: PriceTable, factor_ppm: int) -> None:
    cost = cost_nanos(usage, price, factor_ppm)
    assert type(cost) is int
    assert cost >= 0


@given(usages, price_tables(rising=True), factors, st.sampled_from(COUNT_FIELDS), st.integers(1, 10**6))
def test_never_falls_as_a_count_grows(usage: Usage, price: PriceTable, factor_ppm: int, field: str, more: int) -> None:
    values = {name: getattr(usage, name) for name in COUNT_FIELDS}
    grown = Usage(**{**values, field: min(MAX_COUNT, values[field] + more)})
    assert cost_nanos(grown, price, factor_ppm) >= cost_nanos(usage, price, factor_ppm)


@given(usages, price_tables(), st.integers(0, MAX_FACTOR_PPM - 1))
def test_never_falls_as_the_factor_grows(usage: Usage, price: PriceTable, factor_ppm: int) -> None:
    assert cost_nanos(usage, price, factor_ppm + 1) >= cost_nanos(usage, price, factor_ppm)


@given(usages)
def test_disjoint_components_add_up_to_the_whole_bill(usage: Usage) -> None:
    """With one tier and whole nanos, the costs of each component alone add up to the cost of all: none counts twice."""
    price = PriceTable(1, {component: ((0, 1000 * number),) for number, component in enumerate(COMPONENTS, start=1)})
    alone = [Usage(**{name: getattr(usage, name)}) for name in COUNT_FIELDS]
    assert sum(cost_nanos(part, price) for part in alone) == cost_nanos(usage, price)
    assert sum(part.prompt_tokens for part in alone) == usage.prompt_tokens


@given(usages, st.integers(1, MAX_PICOS_PER_UNIT), st.integers(1, MAX_FACTOR_PPM))
def test_what_has_a_price_is_never_free(usage: Usage, unit_picos: int, factor_ppm: int) -> None:
    price = PriceTable(1, dict.fromkeys(COMPONENTS, ((0, unit_picos),)))
    assert (cost_nanos(usage, price, factor_ppm) > 0) == any(usage.counts)


@pytest.mark.parametrize("field", COUNT_FIELDS)
@pytest.mark.parametrize("count", [-1, MAX_COUNT + 1, 1.5, True, "7", None])
def test_refuses_absurd_counts(field: str, count: object) -> None:
    price = PriceTable(1, dict.fromkeys(COMPONENTS, ((0, 1),)))
    usage = Usage(**{**dict.fromkeys(COUNT_FIELDS, 1), field: count})  # type: ignore[arg-type]
    with pytest.raises(InvalidUsageError):
        cost_nanos(usage, price)


@pytest.mark.parametrize(("field", "component"), list(zip(COUNT_FIELDS, COMPONENTS, strict=True)))
def test_refuses_a_used_component_without_a_price(field: str, component: str) -> None:
    price = PriceTable(1, {name: ((0, 1),) for name in COMPONENTS if name != component})
    with pytest.raises(MissingPriceError, match=component):
        cost_nanos(Usage(**{field: 1}), price)
    assert cost_nanos(Usage(), price) == 0


@pytest.mark.parametrize("factor_ppm", [-1, MAX_FACTOR_PPM + 1])
def test_refuses_an_absurd_factor(factor_ppm: int) -> None:
    with pytest.raises(InvalidPriceError):
        cost_nanos(Usage(1), PriceTable(1, {"input": ((0, 1),)}), factor_ppm)


@pytest.mark.parametrize(
    ("tiers", "minimum_charge_nanos"),
    [
        ({"inptu": ((0, 1),)}, 0),
        ({"input": ()}, 0),
        ({"input": ((1, 1),)}, 0),
        ({"input": ((0, 1), (5, 1), (5, 2))}, 0),
        ({"input": ((0, 1), (7, 1), (5, 2))}, 0),
        ({"input": ((0, -1),)}, 0),
        ({"input": ((0, MAX_PICOS_PER_UNIT + 1),)}, 0),
        ({"input": ((0, 1),)}, -1),
    ],
)
def test_refuses_a_price_table_that_makes_no_sense(tiers: Any, minimum_charge_nanos: int) -> None:
    with pytest.raises(InvalidPriceError):
        PriceTable(1, tiers, minimum_charge_nanos)


def test_usage_and_events_have_the_same_counts_in_the_same_order() -> None:
    assert Usage._fields == USAGE_COUNTS
    counts = (1, 2, 3, 4, 5, 6, 7)
    event = UsageEvent("0" * 32, 1, 1, 1, "acme/large", 1, FACTOR_ONE_PPM, 0, 0)
    event.set_counts(counts)
    assert Usage.of(event) == Usage(*counts)
    assert Usage.of(event).counts == counts


def test_prices_are_written_as_decimal_strings() -> None:
    table = table_of(VECTORS["prices"]["haiku"] | {"web_search_per_thousand": "10", "minimum_charge": "0.0001"})
    assert catalog_price_strings(table) == {
        "input": "0.10",
        "output": "0.50",
        "cache_write_5m": "0.125",
        "cache_write_1h": "0.20",
        "cache_read": "0.01",
        "web_search_per_thousand": "10.00",
    }
    assert catalog_price_strings(table, prompt_tokens=100_001)["output"] == "2.50"
    assert describe_prices(table) == (
        "input 0.10, output 0.50, cache_write_5m 0.125, cache_write_1h 0.20, cache_read 0.01, "
        "web_search_per_thousand 10.00; from 100,001 prompt tokens: input 0.50, output 2.50, cache_write_5m 0.625, "
        "cache_write_1h 1.00, cache_read 0.05, web_search_per_thousand 10.00; at least 0.0001"
    )
