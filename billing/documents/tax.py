"""Tax: which rate a document bears, and how much that is. Pure but for the settings.

It is computed once for a document and rate, from the net in whole cents, and rounded half up. So net and tax make up
the gross exactly, and no sum of lines can differ by a cent.
"""

from dataclasses import dataclass

from django.conf import settings

NANOS_PER_CENT = 10_000_000
PPM = 1_000_000
EVERYWHERE = "*"
REVERSE_CHARGE_NOTE = "Reverse charge: the recipient owes the tax."


@dataclass(frozen=True, slots=True)
class TaxRule:
    """The rate in parts per million of the net, and what the law wants said beside it."""

    rate_ppm: int
    note: str = ""


def choose_tax_rule(*, country: str, has_valid_tax_id: bool) -> TaxRule:
    """Return what applies to a customer of this country ("" when unknown), by CROSSMODEL_TAX_RATES.

    Where the settings say that a valid tax id shifts the tax to the recipient, the rate is zero and the note says so. A
    tax id that is not checked, or is invalid, shifts nothing.
    """
    rates: dict[str, int] = settings.TAX_RATES_PPM
    rate_ppm = rates.get(country, rates.get(EVERYWHERE, 0))
    if has_valid_tax_id and country in settings.REVERSE_CHARGE_COUNTRIES:
        return TaxRule(0, REVERSE_CHARGE_NOTE)
    return TaxRule(rate_ppm)


def round_to_cents(nanos: int) -> int:
    """Return whole cents for an amount at or above zero, rounded half up: the one rounding of a document's net."""
    if nanos < 0:
        raise ValueError("A document's net is not below zero.")
    return (nanos + NANOS_PER_CENT // 2) // NANOS_PER_CENT


def tax_cents_of(net_cents: int, rate_ppm: int) -> int:
    """Return the tax in whole cents, rounded half up, for a net and a rate at or above zero."""
    return (net_cents * rate_ppm + PPM // 2) // PPM


def format_rate(rate_ppm: int) -> str:
    """Return a rate as people read it: 190000 is "19 %", 77000 is "7.7 %"."""
    whole, fraction = divmod(rate_ppm * 100, PPM)
    digits = f"{fraction:06d}".rstrip("0")
    return f"{whole}.{digits} %" if digits else f"{whole} %"
