"""Our accounts at providers: what is left on them, and whether their price lists say what we think.

Both are asked in the shapes that OpenRouter documents (`/api/v1/credits`, `/api/v1/models`) and others follow. Which
upstreams are asked, and where, says CROSSMODEL_PROVIDER_BALANCES and CROSSMODEL_PRICE_LISTS; the credential is that of
the upstream. A price that differs becomes a draft, which a person approves or not; nothing changes by itself.
"""

import json
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Q

from billing.catalog.notices import tell_who_may_approve
from billing.catalog.price_versions import PriceDraft, draft_price, stored_tiers
from billing.models import PriceVersion, Route, Upstream
from billing.money import NANOS_PER_USD, PICOS_PER_NANO
from billing.pricing.cost import MAX_PICOS_PER_UNIT, Tiers
from billing.watching import watched
from operations.judged_http import Bounds, NoAnswerError, exchange
from operations.models import ProviderBalance

TOTAL_SECONDS = 30.0
MAX_ANSWER_BYTES = 16 * 1024 * 1024
MAX_PROBLEM_CHARS = 300
MAX_USD = Decimal(10**9)
DRAFTED_BY = "job:price_drift"
LISTED = {
    "prompt": "input",
    "completion": "output",
    "input_cache_read": "cache_read",
    "input_cache_write": "cache_write_5m",
}

logger = logging.getLogger(__name__)


class ProviderSilentError(Exception):
    """The provider could not be asked, or answered what cannot be read; the text says why."""


@dataclass(frozen=True, slots=True)
class Drift:
    """Prices of one route that differ: `was` is the approved version, `tiers` what the provider's list has."""

    route: Route
    was: PriceVersion
    tiers: Mapping[str, Tiers]
    differences: tuple[str, ...]
    url: str

    def __str__(self) -> str:
        return f"{self.route.upstream.name} {self.route.upstream_model}: {', '.join(self.differences)}"


def watch_balances(*, now: datetime) -> int:
    """Ask each provider what is left, and keep the answer or why there is none; return how many answered."""
    answered = 0
    for name, url in watched(settings.PROVIDER_BALANCES.items(), len(settings.PROVIDER_BALANCES)):
        known, _ = ProviderBalance.objects.get_or_create(upstream=name)
        try:
            known.balance_nanos = read_balance(ask(name, url))
        except ProviderSilentError as error:
            logger.warning("The balance at %s is not known: %s", name, error)
            known.problem = str(error)[:MAX_PROBLEM_CHARS]
        else:
            known.problem, known.looked_at = "", now
            answered += 1
        known.save()
    ProviderBalance.objects.exclude(upstream__in=settings.PROVIDER_BALANCES).delete()
    return answered


def read_balance(answer: Any) -> int:
    """Return nano-dollars of `{"data": {"total_credits": ..., "total_usage": ...}}`. Raises ProviderSilentError."""
    try:
        given = answer["data"]
        left = Decimal(str(given["total_credits"])) - Decimal(str(given["total_usage"]))
    except (KeyError, TypeError, InvalidOperation):
        raise ProviderSilentError("It did not say total_credits and total_usage.") from None
    if not left.is_finite() or abs(left) > MAX_USD:
        raise ProviderSilentError("It said an amount that cannot be.")
    return int(left * NANOS_PER_USD)


def find_drifts() -> Iterator[Drift]:
    """Yield each price that differs from the provider's list. Raises ProviderSilentError."""
    for name, url in settings.PRICE_LISTS.items():
        yield from _find_drifts_of(name, url)


def draft_drifts(*, now: datetime) -> int:
    """Draft a price version for each price that differs and has no such draft yet; return how many were drafted.

    What somebody discarded is not drafted again while the list says the same and no other price was approved.
    Those of one provider's list are drafted together, and who may approve them gets one mail.
    """
    drafted = 0
    for name, url in watched(settings.PRICE_LISTS.items(), len(settings.PRICE_LISTS)):
        drifts = list(_find_drifts_of(name, url))
        with transaction.atomic():
            new = [_draft(drift, now) for drift in drifts if not _is_drafted(drift)]
            tell_who_may_approve(new)
        drafted += len(new)
    return drafted


def read_price_list(answer: Any) -> dict[str, dict[str, int]]:
    """Return pico-dollars per token by model and component. Raises ProviderSilentError."""
    try:
        return {str(model["id"]): _picos_of(model["pricing"]) for model in answer["data"]}
    except (KeyError, TypeError, AttributeError):
        raise ProviderSilentError("It is no list of models with prices.") from None


def ask(upstream_name: str, url: str) -> Any:
    """Return the JSON that a provider answers with the upstream's credential. Raises ProviderSilentError."""
    upstream = Upstream.objects.filter(name=upstream_name).first()
    credential = os.environ.get(upstream.credential_env, "").split(",")[0].strip() if upstream else ""
    if upstream is None:
        raise ProviderSilentError(f"There is no upstream {upstream_name}.")
    headers = {"accept": "application/json"}
    if credential:
        headers["authorization"] = f"Bearer {credential}"
    bounds = Bounds(tuple(settings.UPSTREAM_NETWORKS), TOTAL_SECONDS, MAX_ANSWER_BYTES)
    try:
        status, body = exchange("GET", url, headers=headers, bounds=bounds)
        if status != 200:
            raise ProviderSilentError(f"{url} answered {status}.")
        return json.loads(body)
    except NoAnswerError as error:
        raise ProviderSilentError(f"{url}: {error}") from error
    except ValueError:
        raise ProviderSilentError(f"{url} answered what is no JSON.") from None


def _find_drifts_of(upstream_name: str, url: str) -> Iterator[Drift]:
    listed = read_price_list(ask(upstream_name, url))
    routes = Route.objects.filter(upstream__name=upstream_name, is_enabled=True)
    for route in routes.select_related("upstream", "language_model"):
        drift = _compare(route, listed.get(route.upstream_model), url)
        if drift is not None:
            yield drift


def _is_drafted(drift: Drift) -> bool:
    same = PriceVersion.objects.filter(
        Q(discarded_at=None) | Q(pk__gt=drift.was.pk),
        language_model=drift.route.language_model,
        upstream=drift.route.upstream,
        approved_at=None,
    )
    return any(stored_tiers(version) == dict(drift.tiers) for version in same)


def _draft(drift: Drift, now: datetime) -> PriceVersion:
    draft = PriceDraft(
        effective_from=now,
        source=drift.url[:300],
        source_date=now.date(),
        tiers=drift.tiers,
        minimum_charge_nanos=drift.was.minimum_charge_nanos,
        upstream=drift.route.upstream,
    )
    return draft_price(drift.route.language_model, draft, created_by=DRAFTED_BY)


def _picos_of(pricing: Mapping[str, Any]) -> dict[str, int]:
    picos = {}
    for name, component in LISTED.items():
        try:
            amount = Decimal(str(pricing[name])) * NANOS_PER_USD * PICOS_PER_NANO
        except (KeyError, InvalidOperation):
            continue
        if amount.is_finite() and 0 <= amount <= MAX_PICOS_PER_UNIT:
            picos[component] = int(amount)
    return picos


def _compare(route: Route, listed: Mapping[str, int] | None, url: str) -> Drift | None:
    """Compare the amounts from the first token on; what a list does not say stays as it is."""
    versions = PriceVersion.objects.filter(
        language_model=route.language_model, upstream=route.upstream, approved_at__isnull=False
    )
    version = versions.order_by("-effective_from", "-id").first()
    if listed is None or version is None:
        return None
    tiers = dict(stored_tiers(version))
    differences = []
    for component, picos in listed.items():
        known = tiers.get(component)
        if known and known[0][1] != picos:
            differences.append(f"{component} is {picos:,} pico-dollars there and {known[0][1]:,} here")
            tiers[component] = ((known[0][0], picos), *known[1:])
    return Drift(route, version, tiers, tuple(differences), url) if differences else None
