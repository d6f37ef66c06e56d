"""Estimates of tokens where a provider's own count is missing."""

import pytest

from gateway.token_estimator import (
    DEFAULT_BYTES_PER_OUTPUT_TOKEN,
    MAX_MEASURES,
    TYPICAL_IMAGE_TOKENS,
    TokensPerByteEstimator,
)

MODEL, OTHER = "acme/large", "acme/small"
ALICE, BOB = 1, 2
MANY = 200  # Replies, after which a measure is nearly what they all say.


def test_without_a_measure_four_bytes_are_a_token_rounded_up() -> None:
    estimator = TokensPerByteEstimator()
    assert [estimator.tokens(ALICE, MODEL, count) for count in (0, 1, 4, 5, 400)] == [0, 1, 1, 2, 100]
    assert [estimator.input_tokens(count) for count in (0, 1, 4, 5)] == [0, 1, 1, 2]


def test_images_count_in_estimates_of_input() -> None:
    estimator = TokensPerByteEstimator()
    assert estimator.input_tokens(400, images=2, max_image_tokens=4_800) == 100 + 2 * TYPICAL_IMAGE_TOKENS
    assert estimator.input_tokens(400, images=2, max_image_tokens=85) == 100 + 2 * 85


def test_it_learns_from_replies_of_that_model_to_that_organization_only() -> None:
    """Whatever one organization has a model write moves nobody else's estimate."""
    estimator = TokensPerByteEstimator()
    for _ in range(MANY):
        estimator.learn(ALICE, MODEL, 2_000, 1_000)
    assert 195 <= estimator.tokens(ALICE, MODEL, 400) <= 200
    assert (
        estimator.tokens(ALICE, OTHER, 400) == estimator.tokens(BOB, MODEL, 400) == 400 / DEFAULT_BYTES_PER_OUTPUT_TOKEN
    )


def test_one_odd_reply_moves_it_little() -> None:
    estimator = TokensPerByteEstimator()
    estimator.learn(ALICE, MODEL, 8_000, 1_000)
    assert 90 <= estimator.tokens(ALICE, MODEL, 400) < 100


@pytest.mark.parametrize(
    ("size", "tokens"),
    [(199, 50), (1_000, 0), (1_000, -5), (800, 813), (10_000, 10**9), (10**9, 1)],
    ids=["short", "none", "negative", "hidden thinking", "nonsense", "nonsense the other way"],
)
def test_short_or_implausible_replies_teach_nothing(size: int, tokens: int) -> None:
    estimator = TokensPerByteEstimator()
    for _ in range(MANY):
        estimator.learn(ALICE, MODEL, size, tokens)
    assert estimator.tokens(ALICE, MODEL, 400) == 100


def test_measures_are_bounded_in_number() -> None:
    estimator = TokensPerByteEstimator()
    for organization_id in range(MAX_MEASURES + 1):
        estimator.learn(organization_id, MODEL, 2_000, 1_000)
    assert estimator.tokens(0, MODEL, 400) == 100
    assert estimator.tokens(1, MODEL, 400) > 100
