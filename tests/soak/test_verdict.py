"""The verdict of `make soak` by hand: what it calls growth, and what it lets pass."""

from collections.abc import Callable

import pytest

from tests.soak.verdict import judge, render

SAMPLES = 40
ANSWERS = [number * 50 for number in range(SAMPLES)]


def grown(name: str, measurement: Callable[[int], float]) -> list[str]:
    growths = judge([{name: measurement(number)} for number in range(SAMPLES)], ANSWERS)
    assert name in render(growths)
    return [each.name for each in growths if each.is_too_much]


@pytest.mark.parametrize(
    ("name", "each_sample"),
    [
        ("Postgres connections", 1),
        ("gateway threads", 1),
        ("gateway files", 2),
        ("gateway MiB", 2),
        ("Redis keys", 10),
        ("temporary files", 2),
        ("rows of a_table_of_tomorrow", 2),
    ],
)
def test_what_grows_with_every_answer_is_told(name: str, each_sample: float) -> None:
    assert grown(name, lambda number: 10 + number * each_sample) == [name]


@pytest.mark.parametrize("name", ["Postgres connections", "gateway threads", "gateway MiB", "temporary files"])
def test_what_is_taken_at_the_start_and_kept_is_no_growth(name: str) -> None:
    assert grown(name, lambda number: 100 if number > 5 else 0) == []


def test_one_high_moment_is_no_growth() -> None:
    assert grown("gateway threads", lambda number: 500 if number == SAMPLES - 1 else 20) == []


def test_records_grow_with_use() -> None:
    assert grown("rows of billing_usagerecord", lambda number: number * 1000) == []


def test_growth_is_told_for_each_thousand_answers() -> None:
    (growth,) = judge([{"gateway files": number} for number in range(SAMPLES)], ANSWERS)
    assert growth.per_thousand == pytest.approx(20)


def test_a_few_samples_make_no_verdict() -> None:
    with pytest.raises(ValueError, match="Eight samples"):
        judge([{}] * 7, [0] * 7)
