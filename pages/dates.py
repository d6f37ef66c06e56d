"""How pages, mails and documents write a day and a moment: Nov 28, 2026 and Nov 28, 2026, 10:48.

Templates use the same forms. Lists leave out the year where it is this one.
"""

from datetime import date, datetime

from django.utils import timezone
from django.utils.dateformat import format as format_date

MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]

DAY, MOMENT, SECOND = "M j, Y", "M j, Y, H:i", "M j, Y, H:i:s"


def day_text(day: date) -> str:
    return format_date(day, DAY)


def moment_text(moment: datetime, form: str = MOMENT) -> str:
    """Return a moment that is in UTC, without saying so."""
    return format_date(moment, form)


def recent_text(moment: datetime, *, with_seconds: bool = False) -> str:
    """Return a moment as lists show it: "Nov 28, 10:48", and with its year when that is not this one.

    Not by Django's formats, which take ten times as long: a list has a hundred of them.
    """
    year = "" if moment.year == timezone.now().year else f", {moment.year}"
    clock = f"{moment:%H:%M:%S}" if with_seconds else f"{moment:%H:%M}"
    return f"{MONTHS[moment.month - 1]} {moment.day}{year}, {clock}"
