"""Days as numbers: whole UTC days since 1970-01-01. Weeks begin on Monday, months on the first. Pure."""

from datetime import date

ORDINAL_OF_EPOCH = date(1970, 1, 1).toordinal()
EPOCH_WEEKDAY = 3  # 1970-01-01 was a Thursday: three days after Monday.
DAYS_FROM_ONE_MONTH_INTO_THE_NEXT = 31


def week_of(day: int) -> int:
    """Return the number of the week, from Monday, that a day lies in."""
    return (day + EPOCH_WEEKDAY) // 7


def first_day_of_week(day: int) -> int:
    return week_of(day) * 7 - EPOCH_WEEKDAY


def first_day_of_month(day: int) -> int:
    return date.fromordinal(ORDINAL_OF_EPOCH + day).replace(day=1).toordinal() - ORDINAL_OF_EPOCH


def days_in_month(day: int) -> int:
    """Return how many days the month has that a day lies in."""
    first_day = first_day_of_month(day)
    return first_day_of_month(first_day + DAYS_FROM_ONE_MONTH_INTO_THE_NEXT) - first_day


def date_of(day: int) -> date:
    return date.fromordinal(ORDINAL_OF_EPOCH + day)
