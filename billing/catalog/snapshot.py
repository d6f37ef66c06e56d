"""The catalog in memory: what the request path looks models, routes and prices up in, without any query.

A snapshot is immutable. A gateway process asks `catalog_fingerprint()` every few seconds and loads a new one when it
changed.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

from django.db.models import prefetch_related_objects

from billing.catalog.file import SALE
from billing.catalog.price_versions import price_table
from billing.catalog.variables import expand_variables, read_variable
from billing.models import (
    CatalogVersion,
    LanguageModel,
    OrganizationPriceFactor,
    PriceVersion,
    Route,
    Upstream,
)
from billing.pricing.cost import FACTOR_ONE_PPM, PriceTable

# Requests are priced as of now; what was replaced longer ago than this is not kept in memory.
KEEP_REPLACED_PRICES = timedelta(days=1)
MAX_LOADS = 3

# What Claude Code and others append to a model's name for themselves, as [1m] for its long context.
CLIENT_MARKS = re.compile(r"(\[[0-9a-z_-]{1,16}\])+\Z", re.ASCII | re.IGNORECASE)

DatedPrices = tuple[tuple[datetime, PriceTable], ...]  # By falling date: the first that has begun is in force.


@dataclass(frozen=True, slots=True)
class UsableRoute:
    """A route that can be called now. Lower `position` first; equal positions share by `weight`."""

    route_id: int
    upstream_name: str
    protocol: str
    base_url: str
    credential: str
    bills_when_cancelled: bool
    is_sandbox: bool
    profile: Mapping[str, Any]
    upstream_model: str
    position: int
    weight: int

    def __repr__(self) -> str:
        return f"UsableRoute({self.upstream_name}:{self.upstream_model})"  # Never the credential.


@dataclass(frozen=True, slots=True)
class CatalogModel:
    """A language model on sale. Without routes it is known, but unavailable at present."""

    id: str
    language_model_id: int
    display_name: str
    capabilities: frozenset[str]
    context_tokens: int
    max_output_tokens: int
    max_image_tokens: int
    expansion_tokens: Mapping[str, int]  # See catalog.file.EXPANSIONS.
    released_at: datetime
    aliases: tuple[str, ...]
    routes: tuple[UsableRoute, ...]
    sale_prices: DatedPrices
    upstream_prices: Mapping[str, DatedPrices]

    def price_at(self, moment: datetime) -> PriceTable | None:
        """Return what organizations pay from `moment` on, or None when no approved price has begun."""
        return _price_at(self.sale_prices, moment)

    def upstream_price_at(self, upstream_name: str, moment: datetime) -> PriceTable | None:
        """Return what that upstream charges us, or None when it is unknown."""
        return _price_at(self.upstream_prices.get(upstream_name, ()), moment)

    def is_available(self, moment: datetime) -> bool:
        """True when it can be called and paid for."""
        return bool(self.routes) and self.price_at(moment) is not None


@dataclass(frozen=True, slots=True)
class PriceFactor:
    factor_ppm: int
    effective_from: datetime
    effective_to: datetime | None


PriceFactors = tuple[PriceFactor, ...]  # By falling date of beginning.


@dataclass(frozen=True, slots=True)
class CatalogSnapshot:
    fingerprint: int
    models: tuple[CatalogModel, ...]  # By id; every enabled one, also those without a route or price at present.
    by_name: Mapping[str, CatalogModel]  # By id and by alias.
    factors: Mapping[int, PriceFactors]  # By organization.

    def find(self, name: str) -> CatalogModel | None:
        """Return the model with that id or alias; marks that clients append for themselves do not count."""
        return self.by_name.get(name) or self.by_name.get(without_client_marks(name))

    def factor_ppm(self, organization_id: int, moment: datetime) -> int:
        """Return the organization's markup or discount at `moment`, in parts per million of the published price."""
        return factor_at(self.factors.get(organization_id, ()), moment)


def without_client_marks(name: str) -> str:
    """Return the name of a model without what clients append to it."""
    return CLIENT_MARKS.sub("", name)


def catalog_fingerprint() -> int:
    """Return a number that differs after every committed change of models, routes, prices or factors. One query."""
    return CatalogVersion.objects.values_list("version", flat=True).first() or 0


def load_snapshot() -> CatalogSnapshot:
    """Return the whole catalog as it is now, in a constant number of queries. The environment is read now too.

    Loads again when a change was committed meanwhile, so that no snapshot mixes two states; after the last try it
    returns what it has, under the older fingerprint, so that the next look loads again.
    """
    fingerprint = catalog_fingerprint()
    for _ in range(MAX_LOADS):
        snapshot = _read_snapshot(fingerprint)
        fingerprint = catalog_fingerprint()
        if fingerprint == snapshot.fingerprint:
            break
    return snapshot


def _read_snapshot(fingerprint: int) -> CatalogSnapshot:
    routes = _usable_routes()
    prices = _dated_prices(datetime.now(UTC))
    models = tuple(
        _catalog_model(model, routes.get(model.pk, ()), prices.get(model.pk, {}))
        for model in LanguageModel.objects.filter(is_enabled=True).prefetch_related("aliases").order_by("model_id")
    )
    by_name = {alias: model for model in models for alias in model.aliases}
    by_name.update((model.id, model) for model in models)
    return CatalogSnapshot(fingerprint, models, MappingProxyType(by_name), MappingProxyType(_factors_by_organization()))


def factor_at(factors: PriceFactors, moment: datetime) -> int:
    """Return the factor in force at `moment`: the last that began and has not ended (exclusive), or 1,000,000."""
    for factor in factors:
        if factor.effective_from <= moment and (factor.effective_to is None or moment < factor.effective_to):
            return factor.factor_ppm
    return FACTOR_ONE_PPM


def _usable_routes() -> dict[int, tuple[UsableRoute, ...]]:
    """Return, by language model, the routes whose upstream has an address and its credential; sandboxes only alone."""
    usable: dict[int, list[UsableRoute]] = {}
    rows = Route.objects.filter(is_enabled=True, upstream__is_enabled=True).select_related("upstream")
    for row in rows.order_by("position", "id"):
        base_url = expand_variables(row.upstream.base_url)
        credential = read_variable(row.upstream.credential_env) if row.upstream.credential_env else ""
        if base_url and (credential or not row.upstream.credential_env):
            usable.setdefault(row.language_model_id, []).append(_usable_route(row, row.upstream, base_url, credential))
    # A reply of a sandbox must never stand in for a real one that merely failed.
    return {
        model_id: tuple([route for route in routes if not route.is_sandbox] or routes)
        for model_id, routes in usable.items()
    }


def _usable_route(row: Route, upstream: Upstream, base_url: str, credential: str) -> UsableRoute:
    return UsableRoute(
        route_id=row.pk,
        upstream_name=upstream.name,
        protocol=upstream.protocol,
        base_url=base_url.rstrip("/"),
        credential=credential,
        bills_when_cancelled=upstream.bills_when_cancelled,
        is_sandbox=upstream.is_sandbox,
        profile=MappingProxyType(dict(upstream.profile)),
        upstream_model=row.upstream_model,
        position=row.position,
        weight=row.weight,
    )


def _catalog_model(
    row: LanguageModel, routes: tuple[UsableRoute, ...], prices: Mapping[str, DatedPrices]
) -> CatalogModel:
    return CatalogModel(
        id=row.model_id,
        language_model_id=row.pk,
        display_name=row.display_name,
        capabilities=frozenset(row.capabilities),
        context_tokens=row.context_tokens,
        max_output_tokens=row.max_output_tokens,
        max_image_tokens=row.max_image_tokens,
        expansion_tokens=MappingProxyType(dict(row.expansion_tokens)),
        released_at=row.released_at,
        aliases=tuple(alias.alias for alias in row.aliases.all()),
        routes=routes,
        sale_prices=prices.get(SALE, ()),
        upstream_prices=MappingProxyType({seller: dated for seller, dated in prices.items() if seller != SALE}),
    )


def _dated_prices(now: datetime) -> dict[int, dict[str, DatedPrices]]:
    """Return approved prices by language model and seller (SALE or an upstream's name): current and future ones."""
    kept: dict[int, dict[str, list[PriceVersion]]] = {}
    versions = PriceVersion.objects.filter(approved_at__isnull=False, language_model__is_enabled=True)
    for version in versions.select_related("upstream").order_by("-effective_from", "-id"):
        seller = version.upstream.name if version.upstream else SALE
        series = kept.setdefault(version.language_model_id, {}).setdefault(seller, [])
        if not series or series[-1].effective_from > now - KEEP_REPLACED_PRICES:
            series.append(version)
    # One query for all that is kept; the rest may be years of history.
    prefetch_related_objects(
        [v for by_seller in kept.values() for series in by_seller.values() for v in series], "components"
    )
    return {
        model_pk: {
            seller: tuple((version.effective_from, price_table(version)) for version in series)
            for seller, series in by_seller.items()
        }
        for model_pk, by_seller in kept.items()
    }


def _price_at(prices: DatedPrices, moment: datetime) -> PriceTable | None:
    for effective_from, table in prices:
        if effective_from <= moment:
            return table
    return None


def _factors_by_organization() -> dict[int, PriceFactors]:
    rows = OrganizationPriceFactor.objects.order_by("-effective_from", "-id")
    factors: dict[int, PriceFactors] = {}
    for owner, ppm, begin, end in rows.values_list("organization_id", "factor_ppm", "effective_from", "effective_to"):
        factors[owner] = (*factors.get(owner, ()), PriceFactor(ppm, begin, end))
    return factors
