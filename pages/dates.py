"""How pages and mails write a day and a moment: Nov 28, 2026 and Nov 28, 2026, 10:48. Templates use the same forms."""

from datetime import date, datetime

from django.utils.dateformat import format as format_date

DAY, MOMENT, SECOND = "M j, Y", "M j, Y, H:i", "M j, Y, H:i:s"


def day_text(day: date) -> str:
    return format_date(day, DAY)


def moment_text(moment: datetime, form: str = MOMENT) -> str:
    """Return a moment that is in UTC, without saying so."""
    return format_date(moment, form)
