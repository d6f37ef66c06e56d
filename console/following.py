"""Pages that follow what happens: they ask every few seconds, until a time after which nobody is likely to look."""

import time

from django.http import HttpResponse

STOP_ASKING = 286  # htmx' own: the page asks no more.
MAX_UNTIL_DIGITS = 16


def follow_until(seconds: int) -> int:
    """Return the time until which a page that is opened now may ask."""
    return int(time.time()) + seconds


def may_ask(until: str) -> bool:
    """Say whether the time that the page was given is still to come."""
    return until.isdecimal() and until.isascii() and len(until) <= MAX_UNTIL_DIGITS and int(until) > time.time()


def stop_following() -> HttpResponse:
    """Tell the page to ask no more. What it shows stays, and it says that it is from then."""
    return HttpResponse(status=STOP_ASKING, headers={"HX-Reswap": "none", "HX-Trigger": "following-ended"})
