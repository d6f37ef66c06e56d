"""How lists show a moment."""

from datetime import datetime

from django import template

from pages.dates import recent_text

register = template.Library()


@register.filter
def recent(moment: datetime | None, time: str = "H:i") -> str:
    """Return such as "Nov 28, 10:48", with the year when it is not this one; by "H:i:s" also with seconds."""
    return recent_text(moment, with_seconds=time == "H:i:s") if moment else ""


@register.filter
def iso(moment: datetime) -> str:
    """Return a moment in UTC for programs."""
    return moment.isoformat()
