"""How lists show a moment."""

from datetime import datetime

from django import template

from pages.dates import recent_text

register = template.Library()


@register.filter
def recent(moment: datetime | None, time: str = "H:i") -> str:
    """Return such as "Nov 28, 10:48", with the year when it is not this one; `time` is the form of the time."""
    return recent_text(moment, time) if moment else ""
