"""How documents write amounts and counts. Exact amounts have as many decimals as the longest of the document needs."""

from collections.abc import Iterable
from datetime import date, datetime

from billing.documents.periods import Month
from billing.money import NANOS_PER_USD, PICOS_PER_NANO, format_usd
from billing.pricing.cost import FACTOR_ONE_PPM
from pages.dates import day_text

MINUS = "\N{MINUS SIGN}"
DECIMALS_OF_NANO = 9
MIN_DECIMALS = 2


def decimals_for(amounts: Iterable[int]) -> int:
    """Return how many decimals write all of these nano-dollars exactly, at least two."""
    return max([MIN_DECIMALS, *(len(f"{abs(nanos) % NANOS_PER_USD:09d}".rstrip("0")) for nanos in amounts)])


def exact(nanos: int, decimals: int) -> str:
    """Return an amount in US dollars with so many decimals, which must write it exactly."""
    whole, fraction = divmod(abs(nanos), NANOS_PER_USD)
    digits = f"{fraction:09d}"
    if digits[decimals:].strip("0"):
        raise ValueError(f"{nanos} nano-dollars do not fit into {decimals} decimals.")
    return f"{MINUS if nanos < 0 else ''}{whole:,}.{digits[:decimals]}"


def cents(amount: int) -> str:
    """Return an amount of whole cents in US dollars."""
    whole, fraction = divmod(abs(amount), 100)
    return f"{MINUS if amount < 0 else ''}{whole:,}.{fraction:02d}"


def count(number: int) -> str:
    return f"{number:,}"


def published_price(component: str, picos_per_unit: int) -> str:
    """Return a price as it is published: tokens by the million, images and searches by the thousand."""
    if component in ("image", "web_search"):
        return f"{format_usd(picos_per_unit)} / 1K"  # 1,000 units of so many picos are so many nanos.
    return f"{format_usd(picos_per_unit * PICOS_PER_NANO)} / 1M"


def factor(factor_ppm: int) -> str:
    """Return a factor as a plain decimal: 900000 is "0.9"."""
    whole, fraction = divmod(factor_ppm, FACTOR_ONE_PPM)
    return f"{whole}.{fraction:06d}".rstrip("0").rstrip(".")


def day(moment: date | datetime) -> str:
    """Return a day as pages and mails write it: "Nov 28, 2026"."""
    return day_text(moment)


def month(period: Month) -> str:
    """Return the days of a month, its first and its last."""
    return f"{day(period.begins)} \N{EN DASH} {day(period.last_day)}, UTC"
