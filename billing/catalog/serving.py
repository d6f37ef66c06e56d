"""Which models can be served, by the catalog alone, and what a change of it would take away. Environment and health of
upstreams are not asked: a credential that is missing here may be there where the gateway runs."""

from collections.abc import Callable
from dataclasses import dataclass

from django.db import transaction
from django.db.models import Exists, OuterRef, QuerySet
from django.utils import timezone

from billing.models import LanguageModel, PriceVersion, Route

# What serves a model: nobody, a sandbox alone, or a provider. A sandbox never stands in where a provider is there.
NOBODY, SANDBOX, PROVIDER = 0, 1, 2


@dataclass(frozen=True, slots=True)
class LostModel:
    """A model that was better served before. Off sale it is unknown (404); without a route or a price it gets 503."""

    model_id: str
    is_off_sale: bool
    has_sandbox: bool = False

    def __str__(self) -> str:
        if self.is_off_sale:
            return f"{self.model_id} (404, off sale)"
        return f"{self.model_id} ({'the sandbox alone answers' if self.has_sandbox else '503, nobody serves it'})"


def servable_models() -> dict[str, int]:
    """Return for every model by its id who serves it at an approved price: NOBODY, SANDBOX or PROVIDER."""
    routes = _routes()
    rows = LanguageModel.objects.filter(is_enabled=True).annotate(
        has_price=Exists(_prices()),
        has_provider=Exists(routes.filter(upstream__is_sandbox=False)),
        has_sandbox=Exists(routes.filter(upstream__is_sandbox=True)),
    )
    return {
        row.model_id: (PROVIDER if row.has_provider else SANDBOX if row.has_sandbox else NOBODY)
        if row.has_price
        else NOBODY
        for row in rows
    }


def unserved_models() -> list[str]:
    """Return the ids of the models that are on sale at a price, and that no enabled upstream serves."""
    unserved = LanguageModel.objects.filter(Exists(_prices()), ~Exists(_routes()), is_enabled=True)
    return list(unserved.order_by("model_id").values_list("model_id", flat=True))


def lost_since(before: dict[str, int]) -> list[LostModel]:
    """Return which models are worse served than before."""
    after = servable_models()
    return [
        LostModel(model_id, is_off_sale=model_id not in after, has_sandbox=after.get(model_id) == SANDBOX)
        for model_id, served in sorted(before.items())
        if after.get(model_id, NOBODY) < served
    ]


def what_is_lost(change: Callable[[], object]) -> list[LostModel]:
    """Make a change, see what it takes away, and take it back."""
    with transaction.atomic():
        before = servable_models()
        change()
        lost = lost_since(before)
        transaction.set_rollback(True)
    return lost


def _routes() -> QuerySet[Route]:
    """Return the routes of a model of the query around it by which it can be served."""
    return Route.objects.filter(language_model=OuterRef("pk"), is_enabled=True, upstream__is_enabled=True)


def _prices() -> QuerySet[PriceVersion]:
    """Return the prices of a model of the query around it at which it is sold now."""
    return PriceVersion.objects.filter(
        language_model=OuterRef("pk"), upstream=None, approved_at__isnull=False, effective_from__lte=timezone.now()
    )
