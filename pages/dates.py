"""How pages, mails and documents write a day and a moment: Nov 28, 2026 and Nov 28, 2026, 10:48.

Templates use the same forms. Lists leave out the year where it is this one.
"""

from datetime import date, datetime

from django.utils import timezone
from django.utils.dateformat import format as format_date

DAY, MOMENT, SECOND = "M j, Y", "M j, Y, H:i", "M j, Y, H:i:s"


def day_text(day: date) -> str:
    return format_date(day, DAY)


def moment_text(moment: datetime, form: str = MOMENT) -> str:
    """Return a moment that is in UTC, without saying so."""
    return format_date(moment, form)


def recent_text(moment: datetime, time: str = "H:i") -> str:
    """Return a moment as lists show it: "Nov 28, 10:48", and with its year when that is not this one."""
    return format_date(moment, f"M j, {time}" if moment.year == timezone.now().year else f"M j, Y, {time}")
