"""What one request costs, in nano-dollars: exact integers, rounded once. Pure, and on the request path.

The whole rule, which docs/prices.md states for customers and docs/price-vectors.json proves:

    picos = sum of count x price over the components, each price from the highest tier that the whole prompt reaches
    picos = the minimum charge, where that is more and anything at all was used
    nanos = picos x factor / (1,000,000 x 1,000), rounded up

Rounded up, so that whatever has a price is never free and cost never falls as usage grows. The factor applies to the
minimum charge too: it is a part of the published price, and "half price" means half of the bill.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple, Protocol

from billing.money import PICOS_PER_NANO, format_usd
from billing.usage_event import MAX_COUNT, USAGE_COUNTS

INPUT, OUTPUT = "input", "output"
CACHE_WRITE_5M, CACHE_WRITE_1H, CACHE_READ = "cache_write_5m", "cache_write_1h", "cache_read"
IMAGE, WEB_SEARCH = "image", "web_search"
COMPONENTS = (INPUT, OUTPUT, CACHE_WRITE_5M, CACHE_WRITE_1H, CACHE_READ, IMAGE, WEB_SEARCH)
PROMPT_COMPONENTS = (INPUT, CACHE_WRITE_5M, CACHE_WRITE_1H, CACHE_READ)

MAX_PICOS_PER_UNIT = 10**15  # 1,000 USD for one token, image or search: beyond every sane price.
FACTOR_ONE_PPM = 1_000_000
MAX_FACTOR_PPM = 100 * FACTOR_ONE_PPM
PICOS_PPM_PER_NANO = PICOS_PER_NANO * FACTOR_ONE_PPM

Tiers = tuple[tuple[int, int], ...]  # (prompt_tokens_from, picos_per_unit), by rising prompt size, the first from 0.


class PricingError(ValueError):
    """The request cannot be priced; the text says why."""


class InvalidUsageError(PricingError):
    """A count is negative, absurd or no whole number."""


class InvalidPriceError(PricingError):
    """A price table or a factor is out of bounds or incomplete."""


class MissingPriceError(PricingError):
    """Something was used that this price version has no price for. It is never taken as free."""


class Counted(Protocol):
    """What has the counts of USAGE_COUNTS: an event, a record, a correction."""

    input_tokens: int
    output_tokens: int
    cache_write_5m_tokens: int
    cache_write_1h_tokens: int
    cache_read_tokens: int
    images: int
    web_searches: int


class Usage(NamedTuple):
    """Disjoint counts of one response: no token is in two of them, so they add up to what the provider reported."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_write_5m_tokens: int = 0
    cache_write_1h_tokens: int = 0
    cache_read_tokens: int = 0
    images: int = 0
    web_searches: int = 0

    @classmethod
    def of(cls, counted: Counted) -> "Usage":
        """Return the counts of an event, a record or a correction."""
        return cls(*(getattr(counted, name) for name in USAGE_COUNTS))

    @property
    def prompt_tokens(self) -> int:
        """The size of the whole prompt, cached parts included: what tiers are chosen by."""
        return self.input_tokens + self.cache_write_5m_tokens + self.cache_write_1h_tokens + self.cache_read_tokens

    @property
    def counts(self) -> tuple[int, ...]:
        """The counts in the order of COMPONENTS and USAGE_COUNTS."""
        return self


@dataclass(frozen=True, slots=True)
class PriceTable:
    """One price version, ready to price with: pico-dollars per unit, for each component by size of the prompt.

    Raises InvalidPriceError for an unknown component, tiers that do not rise from 0, and amounts out of bounds.
    """

    price_version_id: int
    tiers: Mapping[str, Tiers]
    minimum_charge_nanos: int = 0

    def __post_init__(self) -> None:
        if self.minimum_charge_nanos < 0:
            raise InvalidPriceError(f"minimum charge {self.minimum_charge_nanos} is negative")
        for component, tiers in self.tiers.items():
            if component not in COMPONENTS:
                raise InvalidPriceError(f"unknown component {component!r}")
            starts = [start for start, _ in tiers]
            if not starts or starts[0] != 0 or starts != sorted(set(starts)):
                raise InvalidPriceError(f"{component}: tiers must rise from 0, they start at {starts}")
            if not all(0 <= picos <= MAX_PICOS_PER_UNIT for _, picos in tiers):
                raise InvalidPriceError(f"{component}: a price is negative or absurd")
        object.__setattr__(self, "tiers", MappingProxyType(dict(self.tiers)))

    def has_price(self, component: str) -> bool:
        return component in self.tiers

    def picos_per_unit(self, component: str, *, prompt_tokens: int = 0) -> int:
        """Return the price of one unit for a prompt of this size. Raises MissingPriceError."""
        tiers = self.tiers.get(component)
        if tiers is None:
            raise MissingPriceError(f"price version {self.price_version_id} has no price for {component}")
        picos = tiers[0][1]
        for start, tier_picos in tiers[1:]:
            if start > prompt_tokens:
                break
            picos = tier_picos
        return picos

    def dearest_picos(self, components: tuple[str, ...], *, prompt_tokens: int) -> int:
        """Return the highest price among the components, over every tier that a prompt of up to this size can reach."""
        dearest = 0
        for component in components:
            for start, picos in self.tiers.get(component, ()):
                if start <= prompt_tokens and picos > dearest:
                    dearest = picos
        return dearest


def cost_nanos(usage: Usage, price: PriceTable, factor_ppm: int = FACTOR_ONE_PPM) -> int:
    """Return what `usage` costs in nano-dollars, at or above 0, rounded up once.

    Raises InvalidUsageError, MissingPriceError for used components without a price, InvalidPriceError for the factor.
    """
    for component, count in zip(COMPONENTS, usage, strict=True):
        if type(count) is not int or not 0 <= count <= MAX_COUNT:
            raise InvalidUsageError(f"{component}: {count!r} is not a count between 0 and {MAX_COUNT}")
    if not any(usage):
        return 0
    prompt_tokens = usage.prompt_tokens
    picos = 0
    for component, count in zip(COMPONENTS, usage, strict=True):
        if count:
            picos += count * price.picos_per_unit(component, prompt_tokens=prompt_tokens)
    return price_picos(picos, price, factor_ppm)


def price_picos(picos: int, price: PriceTable, factor_ppm: int) -> int:
    """Return the nano-dollars of a sum of pico-dollars: minimum charge, factor, and the one rounding (up)."""
    if not 0 <= factor_ppm <= MAX_FACTOR_PPM:
        raise InvalidPriceError(f"factor {factor_ppm} lies outside 0 to {MAX_FACTOR_PPM} ppm")
    charged = max(picos, price.minimum_charge_nanos * PICOS_PER_NANO)
    return -(-charged * factor_ppm // PICOS_PPM_PER_NANO)


def catalog_price_strings(price: PriceTable, *, prompt_tokens: int = 0) -> dict[str, str]:
    """Return the prices for prompts of this size as decimal strings of US dollars, for people and for the API.

    Tokens by the million (`input`), units by the thousand (`web_search_per_thousand`), as the catalog file writes them.
    """
    strings = {}
    for component in COMPONENTS:
        if not price.has_price(component):
            continue
        picos = price.picos_per_unit(component, prompt_tokens=prompt_tokens)
        if component in (IMAGE, WEB_SEARCH):
            strings[f"{component}_per_thousand"] = format_usd(picos)  # 1,000 picos are a nano.
        else:
            strings[component] = format_usd(picos * PICOS_PER_NANO)
    return strings


def tier_starts(price: PriceTable) -> list[int]:
    """Return the prompt sizes from which other prices apply, 0 among them, rising."""
    return sorted({start for tiers in price.tiers.values() for start, _ in tiers})


def describe_prices(price: PriceTable) -> str:
    """Return all prices in one line: "input 3.00, output 15.00; from 200,000 prompt tokens: input 6.00, ..."."""
    parts = []
    for start in tier_starts(price):
        amounts = ", ".join(
            f"{name} {usd}"
            for name, usd in catalog_price_strings(price, prompt_tokens=start).items()
            if (name, usd) != ("image_per_thousand", "0.00")  # That is the rule, and says nothing.
        )
        parts.append(f"from {start:,} prompt tokens: {amounts}" if start else amounts)
    if price.minimum_charge_nanos:
        parts.append(f"at least {format_usd(price.minimum_charge_nanos)}")
    return "; ".join(parts)
