from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.documents.periods import InvalidPeriodError, Month, month_of, months_between, parse_month

A_TICK = timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("text", "begins", "ends", "days"),
    [
        ("2026-01", "2026-01-01", "2026-02-01", 31),
        ("2026-02", "2026-02-01", "2026-03-01", 28),
        ("2028-02", "2028-02-01", "2028-03-01", 29),  # A leap year.
        ("2100-02", "2100-02-01", "2100-03-01", 28),  # A century is none,
        ("2026-04", "2026-04-01", "2026-05-01", 30),
        ("2026-12", "2026-12-01", "2027-01-01", 31),
    ],
)
def test_a_month_is_half_open_from_midnight_to_midnight_utc(text: str, begins: str, ends: str, days: int) -> None:
    month = parse_month(text)
    assert str(month) == text
    assert month.begins == datetime.fromisoformat(begins).replace(tzinfo=UTC)
    assert month.ends == datetime.fromisoformat(ends).replace(tzinfo=UTC)
    assert month.ends - month.begins == timedelta(days=days)
    assert month.last_day.day == days
    assert month.contains(month.begins)
    assert month.contains(month.ends - A_TICK)
    assert not month.contains(month.ends)
    assert not month.contains(month.begins - A_TICK)


@pytest.mark.parametrize(
    ("moment", "month"),
    [
        ("2028-02-29T23:59:59.999999+00:00", "2028-02"),
        ("2028-03-01T00:00:00+00:00", "2028-03"),
        ("2026-12-31T23:59:59.999999+00:00", "2026-12"),
        ("2026-12-31T19:00:00-05:00", "2027-01"),  # The reader's evening is the next month in UTC.
        ("2026-11-01T00:30:00+01:00", "2026-10"),  # And the reader's morning the month before.
        ("2026-03-29T02:30:00+02:00", "2026-03"),  # An hour that daylight saving leaves out somewhere.
    ],
)
def test_the_clock_of_the_reader_changes_nothing(moment: str, month: str) -> None:
    assert str(month_of(datetime.fromisoformat(moment))) == month


@given(
    st.timedeltas(timedelta(), timedelta(days=365 * 179)).map(lambda passed: datetime(2020, 2, 1, tzinfo=UTC) + passed),
    st.integers(-14 * 60, 14 * 60),
)
def test_every_moment_lies_in_exactly_one_month(moment: datetime, minutes: int) -> None:
    elsewhere = moment.astimezone(timezone(timedelta(minutes=minutes)))
    month = month_of(elsewhere)
    assert month == month_of(moment)
    assert month.contains(moment)
    for other in (month.previous, month.next):
        assert not other.contains(moment)
    assert month.previous.ends == month.begins
    assert month.next.begins == month.ends
    assert month.next.previous == month


def test_months_follow_each_other_over_the_year() -> None:
    months = [str(month) for month in months_between(Month(2027, 11), Month(2028, 3))]
    assert months == ["2027-11", "2027-12", "2028-01", "2028-02", "2028-03"]
    assert list(months_between(Month(2028, 3), Month(2028, 2))) == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026",
        "2026-13",
        "2026-00",
        "2026-1",
        "26-01",
        "2026-11-01",
        " 2026-11",
        "1999-12",
        "2200-01",
        "\N{ARABIC-INDIC DIGIT TWO}026-11",
    ],
)
def test_what_is_no_month_is_refused(text: str) -> None:
    with pytest.raises(InvalidPeriodError):
        parse_month(text)


def test_a_moment_needs_a_time_zone() -> None:
    with pytest.raises(ValueError, match="time zone"):
        month_of(datetime(2026, 11, 1))  # noqa: DTZ001  That is what is tested.
