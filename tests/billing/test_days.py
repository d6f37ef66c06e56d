from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.days import first_day_of_month, first_day_of_week, week_of

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
days = st.integers(0, 100_000)


def day_of(year: int, month: int, day: int) -> int:
    return (datetime(year, month, day, tzinfo=UTC) - EPOCH).days


@given(days)
def test_weeks_begin_on_monday(day: int) -> None:
    moment = EPOCH + timedelta(days=day)
    assert first_day_of_week(day) == day - moment.weekday()
    assert week_of(day) - week_of(first_day_of_week(day)) == 0
    assert week_of(first_day_of_week(day) - 1) == week_of(day) - 1


@given(days)
def test_months_begin_on_the_first(day: int) -> None:
    moment = EPOCH + timedelta(days=day)
    assert first_day_of_month(day) == day - moment.day + 1


@pytest.mark.parametrize(
    ("day", "week"),
    [
        (0, 0),
        (day_of(1970, 1, 5), 1),
        (day_of(2024, 2, 29), 2826),
        (day_of(2026, 12, 31), 2974),
        (day_of(2027, 1, 1), 2974),
    ],
)
def test_weeks_of_known_days(day: int, week: int) -> None:
    assert week_of(day) == week
