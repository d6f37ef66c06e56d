"""Amounts of money as integers. Pure.

Nano-dollars (1 USD = 1,000,000,000 nanos) are what balances, holds and costs are kept in. Prices are kept in
pico-dollars per token: 1 pico-dollar per token is 1 micro-dollar per million tokens, so every published price is whole.
"""

from decimal import Decimal, InvalidOperation
from enum import StrEnum

NANOS_PER_USD = 1_000_000_000
NANOS_PER_CENT = NANOS_PER_USD // 100
PICOS_PER_NANO = 1_000
# USD per million tokens -> pico-dollars per token.
PICOS_PER_TOKEN_PER_USD_PER_MILLION = 1_000_000
MINUS = "\N{MINUS SIGN}"
MAX_DIGITS = 28  # What Decimal multiplies exactly; far more than MAX_NANOS has.
MAX_NANOS = 2**62  # Fits bigint with room for sums of two; 4.6 billion USD.


class Currency(StrEnum):
    """What amounts are in. There is one: another is a type error until it is a feature."""

    USD = "USD"


class CurrencyError(TypeError):
    """An amount is in a currency that amounts here cannot be in."""


class InvalidAmountError(ValueError):
    """The text is no amount, is not whole in the unit asked for, or is out of bounds."""


def parse_usd(text: str) -> int:
    """Return nano-dollars for a decimal string of US dollars such as "5", "0.25" or "-1.5".

    Raises InvalidAmountError when it is no plain decimal number, finer than a nano-dollar, or beyond MAX_NANOS.
    """
    return _scale(text, NANOS_PER_USD, "nano-dollar")


def read_currency(code: str) -> Currency:
    """Return the currency with this code, in whichever case. Raises CurrencyError for all but US dollars."""
    try:
        return Currency(code.upper())
    except ValueError:
        raise CurrencyError(f"Amounts are in USD; this one is in {code.upper()[:10]!r}.") from None


def cents_to_nanos(cents: int, currency: Currency) -> int:
    """Return nano-dollars. `currency` is asked for so that no caller forgets to read it."""
    if currency is not Currency.USD:
        raise CurrencyError(f"Amounts are in USD; this one is in {currency!r}.")
    return cents * NANOS_PER_CENT


def nanos_to_cents(nanos: int) -> int:
    """Return whole cents. Raises InvalidAmountError when the amount is finer than a cent."""
    cents, rest = divmod(nanos, NANOS_PER_CENT)
    if rest:
        raise InvalidAmountError(f"{format_usd(nanos)} USD is finer than one cent.")
    return cents


def parse_usd_per_million(text: str) -> int:
    """Return pico-dollars per token for a decimal string of USD per million tokens. Raises InvalidAmountError."""
    return _scale(text, PICOS_PER_TOKEN_PER_USD_PER_MILLION, "micro-dollar per million")


def format_usd(nanos: int, *, min_decimals: int = 2) -> str:
    """Return the exact amount as a decimal string of US dollars, with at least `min_decimals` decimals."""
    sign = "-" if nanos < 0 else ""
    whole, fraction = divmod(abs(nanos), NANOS_PER_USD)
    decimals = f"{fraction:09d}".rstrip("0").ljust(min_decimals, "0")
    return f"{sign}{whole}.{decimals}" if decimals else f"{sign}{whole}"


def say_usd(nanos: int) -> str:
    """Return the exact amount as people read it, such as "$1,234.50"; the minus sign stands before the dollar."""
    whole, _, fraction = format_usd(abs(nanos)).partition(".")
    return f"{MINUS if nanos < 0 else ''}${int(whole):,}.{fraction}"


def _scale(text: str, scale: int, unit: str) -> int:
    try:
        amount = Decimal(text)
    except (InvalidOperation, TypeError):
        raise InvalidAmountError(f"{text!r} is not a decimal number.") from None
    if not amount.is_finite():
        raise InvalidAmountError(f"{text!r} is not a finite number.")
    if amount.adjusted() > MAX_DIGITS or len(amount.as_tuple().digits) > MAX_DIGITS:
        raise InvalidAmountError(f"{text[:40]!r} is out of bounds.")
    scaled = amount * scale
    if scaled != scaled.to_integral_value():
        raise InvalidAmountError(f"{text!r} is finer than one {unit}.")
    if abs(scaled) > MAX_NANOS:
        raise InvalidAmountError(f"{text!r} is out of bounds.")
    return int(scaled)
