"""What the components of many requests cost together, at one price: lines of invoices, and of cost reports."""

from collections.abc import Iterable, Sequence

from billing.catalog.price_versions import price_table
from billing.models import PriceVersion
from billing.money import PICOS_PER_NANO
from billing.pricing.cost import COMPONENTS, FACTOR_ONE_PPM, PriceTable


def price_components(
    table: PriceTable, prompt_tokens: int, factor_ppm: int, quantities: Sequence[int]
) -> list[tuple[str, int, int, int]]:
    """Return (component, quantity, picos per unit, nano-dollars) of each component that was used, in their order.

    Each is rounded down. What requests cost beyond their sum is the rounding up of each, or a minimum charge.
    """
    priced = []
    for component, quantity in zip(COMPONENTS, quantities, strict=True):
        if quantity:
            picos = table.picos_per_unit(component, prompt_tokens=prompt_tokens)
            nanos = quantity * picos * factor_ppm // (FACTOR_ONE_PPM * PICOS_PER_NANO)
            priced.append((component, quantity, picos, nanos))
    return priced


def read_price_tables(version_ids: Iterable[int]) -> dict[int, PriceTable]:
    """Return price versions by id, ready to price with; those that do not exist are missing."""
    versions = PriceVersion.objects.filter(pk__in=list(version_ids)).prefetch_related("components")
    return {version.pk: price_table(version) for version in versions}
