"""How pages show amounts, counts and request ids. The exact amount is always in the element's title."""

import re
from collections.abc import Iterable, Mapping
from typing import TypeVar
from uuid import UUID

from django import template
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe

from billing.admission.balances import BalanceView
from billing.catalog.price_list import ListedModel
from billing.models import UsageRecord
from billing.money import MINUS, NANOS_PER_USD, PICOS_PER_NANO, format_usd, say_usd
from billing.pricing.cost import FACTOR_ONE_PPM
from billing.request_id import MESSAGE_PREFIX
from billing.usage.receipts import Receipt

register = template.Library()
T = TypeVar("T")

DECIMALS_OF_NANO = 9
NANOS_PER_TENTH_OF_A_CENT = NANOS_PER_USD // 1000
PICOS_PER_USD = NANOS_PER_USD * PICOS_PER_NANO
BREAKS = re.compile("(?<=[/_])")


def shorten_usd(nanos: int, decimals: int) -> str:
    """Return US dollars with exactly `decimals` decimals, rounded down (toward minus infinity).

    Down, so that a page never shows money that is not there.
    """
    unit = 10 ** (DECIMALS_OF_NANO - decimals)
    rounded = nanos // unit * unit
    sign = MINUS if rounded < 0 else ""
    whole, fraction = divmod(abs(rounded), NANOS_PER_USD)
    digits = f"{fraction:09d}"[:decimals]
    return f"{sign}${whole:,}.{digits}" if digits else f"{sign}${whole:,}"


def usual_decimals(nanos: int) -> int:
    """How many decimals an amount has that stands alone: cents, or more where cents would hide it."""
    return 2 if nanos >= NANOS_PER_USD or nanos == 0 else 4 if nanos >= NANOS_PER_TENTH_OF_A_CENT else 6


@register.simple_tag
def balance(nanos: int, decimals: int = 2) -> SafeString:
    """An amount that can be spent or is owed: rounded down, the exact one on hover."""
    return _amount_element(nanos, shorten_usd(nanos, decimals))


@register.simple_tag
def cost(nanos: int, decimals: int | None = None) -> SafeString:
    """An amount that was spent: rounded up, as costs are, so that no line looks cheaper than it was.

    Without `decimals` it is cents, or more of them where cents would hide it.
    """
    if decimals is None:
        decimals = usual_decimals(nanos)
    if nanos == 0:
        return _amount_element(0, shorten_usd(0, decimals))
    return _amount_element(nanos, shorten_usd(-nanos, decimals).removeprefix(MINUS) if nanos > 0 else say_usd(nanos))


@register.simple_tag
def change(nanos: int, decimals: int = 6) -> SafeString:
    """A change of a balance, with its sign always shown."""
    return _amount_element(nanos, ("+" if nanos > 0 else "") + shorten_usd(nanos, decimals))


@register.simple_tag
def exact(nanos: int, decimals: int = 2) -> SafeString:
    """An amount to the nano-dollar, with at least so many decimals."""
    return _amount_element(nanos, pad(say_usd(nanos), decimals))


@register.filter
def cents_usd(cents: int) -> str:
    """Whole cents as US dollars: what documents come to."""
    return f"${cents // 100:,}.{cents % 100:02d}"


@register.filter
def usd(nanos: int) -> str:
    """The exact amount as plain text."""
    return say_usd(nanos)


@register.filter
def picos_per_million(picos_per_unit: int) -> str:
    """Pico-dollars per token as US dollars for a million tokens, the way prices are published."""
    return "$" + format_usd(picos_per_unit * 1000)


@register.filter
def message_id(request_id: UUID) -> str:
    """The id as the client of `/v1/messages` got it."""
    return MESSAGE_PREFIX + request_id.hex


def _amount_element(nanos: int, text: str) -> SafeString:
    return format_html('<data class="amount" value="{}" title="{}">{}</data>', format_usd(nanos), say_usd(nanos), text)


@register.filter
def prompt_tokens(record: UsageRecord) -> int:
    """The whole prompt of a record, cached parts included."""
    cache_writes = record.cache_write_5m_tokens + record.cache_write_1h_tokens
    return record.input_tokens + cache_writes + record.cache_read_tokens


@register.filter
def thousands(count: int) -> SafeString:
    """A whole number with its separators. Long tables have a thousand: humanize's takes ten times as long for each."""
    return SafeString(f"{count:,}")


@register.filter
def duration(milliseconds: int) -> str:
    """Milliseconds as people read them."""
    if milliseconds < 1000:
        return f"{milliseconds} ms"
    seconds = milliseconds / 1000
    return f"{seconds:.1f} s" if seconds < 100 else f"{seconds:,.0f} s"


@register.filter
def duration_or_dash(milliseconds: int | None) -> str:
    return "\N{EN DASH}" if milliseconds is None else duration(milliseconds)


@register.filter
def permille(share: int | None) -> str:
    """A share in permille as percent, with one decimal; a dash where there is none."""
    return "\N{EN DASH}" if share is None else f"{share / 10:.1f} %"


@register.filter
def column_decimals(amounts: Iterable[int]) -> int:
    """How many decimals the amounts of one column have, all the same: enough to tell the small ones from nothing."""
    largest = max((abs(nanos) for nanos in amounts), default=0)
    return 2 if largest >= 100 * NANOS_PER_USD else 4 if largest >= NANOS_PER_USD else 6


@register.filter
def decimals_of_balance(view: BalanceView) -> int:
    """How many decimals the parts of a balance have, all the same: enough to tell what is held from nothing."""
    state = view.state
    return max(usual_decimals(nanos) for nanos in (state.held_nanos, state.unsettled_nanos)) if state else 2


@register.filter
def cut_underscores(word: str) -> str:
    """A machine's word as people write it."""
    return word.replace("_", " ")


@register.filter
def key_name(names: Mapping[int, str], key_id: int) -> str:
    return names.get(key_id, f"key {key_id}")


@register.filter
def detail_of(details: Mapping[UUID, T] | None, request_id: UUID) -> T | None:
    """What a request of a list says of whom it is for, where the list knows."""
    return details.get(request_id) if details else None


@register.filter
def picos_usd(picos: int, decimals: int = 2) -> str:
    """Pico-dollars as US dollars, exactly, with at least so many decimals."""
    whole, fraction = divmod(picos, PICOS_PER_USD)
    digits = f"{fraction:012d}".rstrip("0").ljust(2, "0")
    return pad(f"${whole:,}.{digits}", decimals)


@register.filter
def pad(amount: str, decimals: int) -> str:
    """Return an exact amount with zeros up to so many decimals, as the others of its column have."""
    whole, _, fraction = amount.partition(".")
    return f"{whole}.{fraction.ljust(decimals, '0')}"


@register.filter
def decimals_of_arithmetic(receipt: Receipt) -> int:
    """How many decimals the amounts of a receipt have, so that they stand below each other."""
    nanos = (receipt.record.cost_nanos, receipt.rerated_nanos or 0, receipt.refunded_nanos, receipt.current_nanos)
    picos = [line.picos for line in receipt.lines] + [amount * PICOS_PER_NANO for amount in nanos]
    return max(len(picos_usd(abs(amount)).partition(".")[2]) for amount in picos)


@register.filter
def decimals_of_prices(listed: Iterable[ListedModel], component: str) -> int:
    """How many decimals the exact prices of one component have in a list of models: those of the longest."""
    tiers = [tier for item in listed for tier in (*item.tiers, *item.next_tiers)]
    prices = (tier.by_component.get(component, "") for tier in tiers)
    return max((len(price.partition(".")[2]) for price in prices), default=2)


@register.filter
def factor(factor_ppm: int) -> str:
    """Parts per million as a plain decimal factor, exactly."""
    whole, fraction = divmod(factor_ppm, FACTOR_ONE_PPM)
    digits = f"{fraction:06d}".rstrip("0")
    return f"{whole}.{digits}" if digits else str(whole)


@register.filter
def breakable(text: str) -> SafeString:
    """A model id or a code that narrow screens may break after its slashes and underscores."""
    return format_html_join(mark_safe("<wbr>"), "{}", ((part,) for part in BREAKS.split(text)))
