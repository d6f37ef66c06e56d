"""Every price that ever applied to a customer: what a bill of any time can be recomputed from."""

from typing import Any

from billing.models import PriceVersion


def list_price_versions() -> list[dict[str, Any]]:
    """Return the approved sale prices of all models, by id, with their tiers. In pico-dollars: whole numbers."""
    versions = PriceVersion.objects.filter(upstream=None, approved_at__isnull=False)
    return [
        {
            "price_version_id": version.pk,
            "model": version.language_model.model_id,
            "effective_from": version.effective_from.isoformat(),
            "minimum_charge_nanos": version.minimum_charge_nanos,
            "components": [
                {
                    "component": component.component,
                    "prompt_tokens_from": component.prompt_tokens_from,
                    "picos_per_unit": component.picos_per_unit,
                }
                for component in version.components.all()
            ],
        }
        for version in versions.select_related("language_model").prefetch_related("components").order_by("pk")
    ]
