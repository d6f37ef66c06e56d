"""`GET /api/v1/models`: what is on sale, with every price. Also for whoever has no key; with one, at its prices."""

from datetime import UTC, datetime
from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.models import ApiKey
from accounts.request_credentials import read_key_text
from api.authentication import ApiKeyAuthentication, ApiKeyScheme
from api.base import KeyedView
from billing.catalog.price_list import ListedModel, PriceTier, list_prices


class OptionalKey(BaseAuthentication):
    """A key that is sent must be good; none is needed."""

    def authenticate(self, request: Request) -> tuple[None, ApiKey] | None:
        return ApiKeyAuthentication().authenticate(request) if read_key_text(request.META) else None

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


class OptionalKeyScheme(ApiKeyScheme):  # type: ignore[no-untyped-call]  # drf-spectacular has no types
    """How the schema describes it: as a key, which the schema of this path says may be left out."""

    target_class = OptionalKey  # type: ignore[assignment]
    name = "optionalApiKey"


class PriceBody(serializers.Serializer[Any]):
    component = serializers.CharField()
    units = serializers.IntegerField(help_text="For so many tokens, images or searches.")
    usd = serializers.CharField(help_text="US dollars, as an exact decimal string.")


class TierBody(serializers.Serializer[Any]):
    prompt_tokens_from = serializers.IntegerField()
    prices = PriceBody(many=True)


class ModelBody(serializers.Serializer[Any]):
    id = serializers.CharField()
    name = serializers.CharField()
    aliases = serializers.ListField(child=serializers.CharField())
    capabilities = serializers.ListField(child=serializers.CharField())
    context_length = serializers.IntegerField(help_text="Tokens.")
    max_output_tokens = serializers.IntegerField()
    created_at = serializers.DateTimeField()
    retires_at = serializers.DateTimeField(allow_null=True)
    is_available = serializers.BooleanField(help_text="Whether it can be called now.")
    price_tiers = TierBody(many=True)
    next_prices_from = serializers.DateTimeField(allow_null=True)
    next_price_tiers = TierBody(many=True)


class Models(serializers.Serializer[Any]):
    data = ModelBody(many=True)  # type: ignore[assignment]  # The envelope's name is also one of DRF's own.


class ModelsView(KeyedView):
    authentication_classes = [OptionalKey]

    @extend_schema(operation_id="list_models", responses=Models)
    def get(self, request: Request) -> Response:
        """Every model on sale, at the published prices; with a key, at the prices of its organization."""
        key = request.auth
        organization_id = key.organization_id if isinstance(key, ApiKey) else None
        listed = list_prices(now=datetime.now(UTC), organization_id=organization_id)
        return Response({"data": [_body(item) for item in listed]})


def _body(item: ListedModel) -> dict[str, Any]:
    return {
        "id": item.model.id,
        "name": item.model.display_name,
        "aliases": list(item.model.aliases),
        "capabilities": item.capabilities,
        "context_length": item.model.context_tokens,
        "max_output_tokens": item.model.max_output_tokens,
        "created_at": item.model.released_at,
        "retires_at": item.retires_at,
        "is_available": item.is_available,
        "price_tiers": [_tier(tier) for tier in item.tiers],
        "next_prices_from": item.next_from,
        "next_price_tiers": [_tier(tier) for tier in item.next_tiers],
    }


def _tier(tier: PriceTier) -> dict[str, Any]:
    prices = [{"component": price.component, "units": price.units, "usd": price.usd} for price in tier.prices]
    return {"prompt_tokens_from": tier.prompt_tokens_from, "prices": prices}
