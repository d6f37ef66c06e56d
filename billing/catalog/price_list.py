"""What is on sale, for people to read: each model with its prices, what changes next, and if it can be called now.

The prices are those that organizations pay; with an organization they are multiplied by its price factor, exactly.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from billing.catalog.snapshot import CatalogModel, CatalogSnapshot, catalog_fingerprint, load_snapshot
from billing.models import LanguageModel
from billing.pricing.cost import COMPONENTS, FACTOR_ONE_PPM, IMAGE, WEB_SEARCH, PriceTable, tier_starts

UNITS_PER_PRICE = {IMAGE: 1_000, WEB_SEARCH: 1_000}
TOKENS_PER_PRICE = 1_000_000


@dataclass(frozen=True, slots=True)
class ListedPrice:
    """The price of `units` units of a component, in pico-dollars times parts per million of the factor, undivided."""

    component: str
    units: int
    picos_ppm: int

    @property
    def usd(self) -> str:
        """The amount in US dollars as an exact decimal: 18 decimals are enough for any price and factor."""
        whole, fraction = divmod(self.picos_ppm, 10**18)
        digits = f"{fraction:018d}".rstrip("0").ljust(2, "0")
        return f"{whole}.{digits}"


@dataclass(frozen=True, slots=True)
class PriceTier:
    """Prices for prompts of `prompt_tokens_from` tokens and more."""

    prompt_tokens_from: int
    prices: Sequence[ListedPrice]

    @property
    def by_component(self) -> dict[str, str]:
        return {price.component: price.usd for price in self.prices}


@dataclass(frozen=True, slots=True)
class ListedModel:
    model: CatalogModel
    is_available: bool
    retires_at: datetime | None
    tiers: Sequence[PriceTier]  # Empty while no approved price has begun.
    next_from: datetime | None
    next_tiers: Sequence[PriceTier]

    @property
    def capabilities(self) -> list[str]:
        return sorted(self.model.capabilities)


def list_prices(*, now: datetime, organization_id: int | None = None) -> list[ListedModel]:
    """Return every model on sale by its id, at the published prices or at those of one organization."""
    snapshot = _snapshot(catalog_fingerprint())
    factor_ppm = snapshot.factor_ppm(organization_id, now) if organization_id else FACTOR_ONE_PPM
    retirements = dict(
        LanguageModel.objects.filter(is_enabled=True, retires_at__isnull=False).values_list("pk", "retires_at")
    )
    return [_list(model, retirements.get(model.language_model_id), now, factor_ppm) for model in snapshot.models]


def factor_of(organization_id: int, *, now: datetime) -> int:
    """Return the organization's price factor, in parts per million of the published price."""
    return _snapshot(catalog_fingerprint()).factor_ppm(organization_id, now)


@lru_cache(maxsize=1)
def _snapshot(fingerprint: int) -> CatalogSnapshot:
    """Return the catalog; the last one is kept, since it is the same until something changes it."""
    del fingerprint
    return load_snapshot()


def _list(model: CatalogModel, retires_at: datetime | None, now: datetime, factor_ppm: int) -> ListedModel:
    price = model.price_at(now)
    coming = [(begins, table) for begins, table in model.sale_prices if begins > now]
    next_from, next_price = coming[-1] if coming else (None, None)
    return ListedModel(
        model=model,
        is_available=model.is_available(now),
        retires_at=retires_at,
        tiers=_tiers(price, factor_ppm),
        next_from=next_from,
        next_tiers=_tiers(next_price, factor_ppm),
    )


def _tiers(price: PriceTable | None, factor_ppm: int) -> list[PriceTier]:
    if price is None:
        return []
    components = [component for component in COMPONENTS if _has(price, component)]
    return [
        PriceTier(start, [_price(price, component, start, factor_ppm) for component in components])
        for start in tier_starts(price)
    ]


def _has(price: PriceTable, component: str) -> bool:
    """Say whether a component is worth a line: most models take images at no charge of their own."""
    return price.has_price(component) and not (component == IMAGE and price.picos_per_unit(component) == 0)


def _price(price: PriceTable, component: str, prompt_tokens: int, factor_ppm: int) -> ListedPrice:
    units = UNITS_PER_PRICE.get(component, TOKENS_PER_PRICE)
    picos = price.picos_per_unit(component, prompt_tokens=prompt_tokens)
    return ListedPrice(component, units, picos * units * factor_ppm)
