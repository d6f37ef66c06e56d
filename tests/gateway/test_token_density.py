"""Estimates of tokens where a provider's own count is missing."""

import pytest

from gateway.token_density import DEFAULT_BYTES_PER_OUTPUT_TOKEN, TokenDensity

MODEL, OTHER = "acme/large", "acme/small"


def test_without_a_measure_four_bytes_are_a_token_rounded_up() -> None:
    density = TokenDensity()
    assert [density.tokens(MODEL, count) for count in (0, 1, 4, 5, 400)] == [0, 1, 1, 2, 100]
    assert [density.input_tokens(count) for count in (0, 1, 4, 5)] == [0, 1, 1, 2]


def test_it_learns_from_complete_replies_of_that_model_only() -> None:
    density = TokenDensity()
    density.learn(MODEL, 2_000, 1_000)
    assert density.tokens(MODEL, 100) == 50
    assert density.tokens(OTHER, 100) == 100 / DEFAULT_BYTES_PER_OUTPUT_TOKEN


def test_one_odd_reply_moves_it_little() -> None:
    density = TokenDensity()
    density.learn(MODEL, 4_000, 1_000)
    density.learn(MODEL, 16_000, 1_000)
    assert 80 <= density.tokens(MODEL, 400) < 100


@pytest.mark.parametrize(("size", "tokens"), [(199, 10), (1_000, 0), (1_000, -5)])
def test_short_or_impossible_replies_teach_nothing(size: int, tokens: int) -> None:
    density = TokenDensity()
    density.learn(MODEL, size, tokens)
    assert density.tokens(MODEL, 400) == 100


@pytest.mark.parametrize(("size", "tokens", "most", "least"), [(10_000, 10**9, 800, 800), (10**9, 1, 25, 25)])
def test_no_measure_leaves_what_is_plausible(size: int, tokens: int, most: int, least: int) -> None:
    """A provider that reports nonsense must not make later estimates nonsense."""
    density = TokenDensity()
    density.learn(MODEL, size, tokens)
    assert least <= density.tokens(MODEL, 400) <= most
