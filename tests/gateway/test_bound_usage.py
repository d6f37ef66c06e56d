"""Whatever a provider reports, what is billed is possible for the request; and what can be true is believed."""

from datetime import UTC, datetime
from types import MappingProxyType

from hypothesis import given
from hypothesis import strategies as st

from billing.catalog.snapshot import CatalogModel
from billing.pricing.cost import PriceTable, Usage, cost_nanos
from billing.pricing.estimation import worst_case_nanos
from gateway.metering.meter import bound_usage
from gateway.metering.request_facts import RequestFacts
from gateway.prompt_bounds import PromptBounds

PRICE = PriceTable(
    1,
    {
        "input": ((0, 3_000_000), (200_000, 6_000_000)),
        "output": ((0, 15_000_000), (200_000, 22_500_000)),
        "cache_write_5m": ((0, 3_750_000),),
        "cache_write_1h": ((0, 6_000_000),),
        "cache_read": ((0, 300_000),),
        "web_search": ((0, 10_000_000_000),),
    },
)
MODEL = CatalogModel(
    id="acme/large",
    language_model_id=1,
    display_name="Large",
    capabilities=frozenset(),
    context_tokens=200_000,
    max_output_tokens=64_000,
    max_image_tokens=1_600,
    expansion_tokens=MappingProxyType({}),
    released_at=datetime(2026, 1, 1, tzinfo=UTC),
    aliases=(),
    routes=(),
    sale_prices=(),
    upstream_prices=MappingProxyType({}),
)
counts = st.integers(0, 300) | st.integers(0, 100_000_000)
usages = st.builds(
    Usage,
    input_tokens=counts,
    output_tokens=counts,
    cache_write_5m_tokens=counts,
    cache_write_1h_tokens=counts,
    cache_read_tokens=counts,
    images=st.just(0),
    web_searches=st.integers(0, 20),
)


def facts_of(*, held: int, most: int, max_tokens: int, searches: int) -> RequestFacts:
    bounds = PromptBounds(held, held, max_tokens, most, max(max_tokens, 64_000), samplings=1, may_grow=held == most)
    return RequestFacts(
        request_id="0" * 32,
        organization_id=1,
        key_id=1,
        catalog_model=MODEL,
        price=PRICE,
        factor_ppm=1_000_000,
        received_at=datetime(2026, 11, 1, tzinfo=UTC),
        max_tokens=max_tokens,
        body_bytes=2 * held,
        images=0,
        is_streamed=False,
        end_user="",
        tag="",
        session="",
        client="",
        web_searches=searches,
        prompt_components=("input", "cache_read", "cache_write_5m", "cache_write_1h"),
        bounds=bounds,
    )


requests = st.builds(
    lambda held, more, max_tokens, searches: facts_of(
        held=held, most=held + more, max_tokens=max_tokens, searches=searches
    ),
    st.integers(1, 300_000),
    st.integers(0, 40_000),
    st.integers(0, 64_000),
    st.integers(0, 10),
)


@given(usages, requests)
def test_what_is_billed_lies_within_what_is_possible(reported: Usage, facts: RequestFacts) -> None:
    billed, problem = bound_usage(reported, facts)
    bounds = facts.bounds
    assert billed.prompt_tokens <= bounds.most_prompt_tokens
    assert billed.output_tokens <= bounds.most_output_tokens
    assert billed.web_searches <= facts.web_searches
    assert all(ours <= theirs for ours, theirs in zip(_sides(billed), _sides(reported), strict=True))
    assert (billed == reported) is (problem == "")
    assert bound_usage(billed, facts) == (billed, "")


@given(usages, requests)
def test_a_prompt_that_cannot_be_costs_no_more_than_its_hold(reported: Usage, facts: RequestFacts) -> None:
    facts = facts._replace(bounds=facts.bounds._replace(most_prompt_tokens=facts.bounds.held_prompt_tokens))
    reported = reported._replace(output_tokens=min(reported.output_tokens, facts.max_tokens))
    billed, _ = bound_usage(reported, facts)
    held = worst_case_nanos(
        PRICE, input_tokens=facts.bounds.held_prompt_tokens, output_tokens=facts.max_tokens, **facts.extras
    )
    assert cost_nanos(billed, PRICE) <= held


def _sides(usage: Usage) -> tuple[int, int, int]:
    return (usage.prompt_tokens, usage.output_tokens, usage.web_searches)
