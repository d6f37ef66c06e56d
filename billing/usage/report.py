"""When a day of a report begins."""

from datetime import UTC, date, datetime, time


def start_of_day(day: date) -> datetime:
    return datetime.combine(day, time.min, tzinfo=UTC)
