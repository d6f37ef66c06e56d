"""The worst case covers whatever a request then uses, and the affordable max_tokens is its exact inverse."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billing.pricing.cost import PriceTable, Usage, cost_nanos
from billing.pricing.estimation import (
    PROMPT_WITH_5M_CACHE_WRITES,
    PROMPT_WITH_ALL_CACHE_WRITES,
    PROMPT_WITHOUT_CACHE_WRITES,
    affordable_max_tokens,
    worst_case_input_tokens,
    worst_case_nanos,
)
from tests.billing.pricing.test_cost import factors, price_tables

SONNET = PriceTable(
    1,
    {
        "input": ((0, 3_000_000),),
        "output": ((0, 15_000_000),),
        "cache_write_5m": ((0, 3_750_000),),
        "cache_write_1h": ((0, 6_000_000),),
        "cache_read": ((0, 300_000),),
    },
)
token_counts = st.integers(0, 3_000_000)


@given(st.data(), price_tables(), factors)
@settings(max_examples=500)
def test_no_usage_within_the_estimate_costs_more(data: st.DataObject, price: PriceTable, factor_ppm: int) -> None:
    """Tiers may rise and fall at will: the dearest that any prompt up to the estimate can reach is held."""
    input_tokens, output_tokens = data.draw(token_counts), data.draw(token_counts)
    images, web_searches = data.draw(st.integers(0, 20)), data.draw(st.integers(0, 20))
    cached = [data.draw(st.integers(0, input_tokens)) for _ in range(3)]
    parts = sorted(cached)
    prompt = data.draw(st.integers(parts[-1], input_tokens))
    usage = Usage(
        input_tokens=prompt - parts[2],
        cache_write_5m_tokens=parts[0],
        cache_write_1h_tokens=parts[1] - parts[0],
        cache_read_tokens=parts[2] - parts[1],
        output_tokens=data.draw(st.integers(0, output_tokens)),
        images=data.draw(st.integers(0, images)),
        web_searches=data.draw(st.integers(0, web_searches)),
    )
    assert usage.prompt_tokens == prompt <= input_tokens
    held = worst_case_nanos(
        price,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        factor_ppm=factor_ppm,
        images=images,
        web_searches=web_searches,
    )
    assert cost_nanos(usage, price, factor_ppm) <= held


@given(st.integers(0, 10**14), price_tables(), factors, token_counts)
@settings(max_examples=500)
def test_affordable_max_tokens_is_the_largest_that_fits(
    available_nanos: int, price: PriceTable, factor_ppm: int, input_tokens: int
) -> None:
    def held(output_tokens: int) -> int:
        return worst_case_nanos(price, input_tokens=input_tokens, output_tokens=output_tokens, factor_ppm=factor_ppm)

    affordable = affordable_max_tokens(
        available_nanos, price, input_tokens=input_tokens, factor_ppm=factor_ppm, ceiling=10**6
    )
    if affordable:
        assert held(affordable) <= available_nanos
    if affordable < 10**6:
        assert held(affordable + 1) > available_nanos


def test_worst_case_of_a_plain_request() -> None:
    held = worst_case_nanos(SONNET, input_tokens=1000, output_tokens=100, prompt_components=PROMPT_WITHOUT_CACHE_WRITES)
    assert held == 1000 * 3_000 + 100 * 15_000


def test_worst_case_holds_cache_writes_only_when_the_request_may_write() -> None:
    assert [
        worst_case_nanos(SONNET, input_tokens=1000, output_tokens=0, prompt_components=components)
        for components in (
            PROMPT_WITHOUT_CACHE_WRITES,
            PROMPT_WITH_5M_CACHE_WRITES,
            PROMPT_WITH_ALL_CACHE_WRITES,
        )
    ] == [3_000_000, 3_750_000, 6_000_000]


def test_affordable_max_tokens() -> None:
    def affordable(available_nanos: int) -> int:
        return affordable_max_tokens(
            available_nanos, SONNET, input_tokens=1000, prompt_components=PROMPT_WITHOUT_CACHE_WRITES
        )

    assert affordable(3_000_000 + 10 * 15_000) == 10
    assert affordable(3_000_000 + 10 * 15_000 - 1) == 9
    assert affordable(3_000_000) == 0
    assert affordable(2_999_999) == 0
    assert affordable(0) == 0
    assert affordable(-5) == 0


def test_what_costs_nothing_is_bounded_by_the_ceiling() -> None:
    assert affordable_max_tokens(0, SONNET, input_tokens=10, factor_ppm=0, ceiling=4096) == 4096


def test_input_tokens_of_a_body() -> None:
    def estimate(body_bytes: int, image_count: int = 0, image_data_bytes: int = 0) -> int:
        return worst_case_input_tokens(
            body_bytes=body_bytes,
            image_count=image_count,
            image_data_bytes=image_data_bytes,
            max_image_tokens=1600,
            bytes_per_token=2,
        )

    assert estimate(100) == 50
    assert estimate(101) == 51
    assert estimate(1_000_100, image_count=2, image_data_bytes=1_000_000) == 50 + 3200
    assert estimate(100, image_count=1) == 50 + 1600  # By url: no data inside.
    with pytest.raises(ValueError, match="image data"):
        estimate(100, image_count=1, image_data_bytes=101)
