"""`GET /api/v1/prices`: every price that ever applied, for whoever checks a bill. No key is needed."""

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from api.base import KeyedView
from api.language_models import OptionalKey
from billing.catalog.price_history import list_price_versions


class PriceComponentBody(serializers.Serializer[Any]):
    component = serializers.CharField()
    prompt_tokens_from = serializers.IntegerField(help_text="Applies to prompts of at least so many tokens.")
    picos_per_unit = serializers.IntegerField(help_text="Pico-dollars for one token, image or search.")


class PriceVersionBody(serializers.Serializer[Any]):
    price_version_id = serializers.IntegerField()
    model = serializers.CharField()
    effective_from = serializers.DateTimeField()
    minimum_charge_nanos = serializers.IntegerField()
    components = PriceComponentBody(many=True, help_text="By component, then by rising size of prompt.")


class PriceVersions(serializers.Serializer[Any]):
    data = PriceVersionBody(many=True)  # type: ignore[assignment]  # The envelope's name is also one of DRF's own.


class PricesView(KeyedView):
    authentication_classes = [OptionalKey]

    @extend_schema(operation_id="list_prices", responses=PriceVersions)
    def get(self, request: Request) -> Response:
        """All price versions, by id: exact, and never edited. An organization's factor is on its usage."""
        return Response({"data": list_price_versions()})
