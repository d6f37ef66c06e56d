"""`/api/v1/limits`: the rates of an organization as a whole."""

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.access import Permission
from api.keys import LIMIT_FIELDS, LimitsShown
from api.management import ManagementView
from billing.budgets.standing import StandingReader


class RateShown(serializers.Serializer[Any]):
    limit = serializers.IntegerField()
    used = serializers.IntegerField(help_text="Of this minute; of requests at the same time: how many run.")


class RatesShown(serializers.Serializer[Any]):
    requests_per_minute = RateShown(allow_null=True)
    input_tokens_per_minute = RateShown(allow_null=True)
    output_tokens_per_minute = RateShown(allow_null=True)
    concurrent_requests = RateShown(allow_null=True)


class OrganizationLimitsShown(LimitsShown):
    in_force = RatesShown(help_text="With the defaults of the installation. null: no limit.")
    is_current = serializers.BooleanField(help_text="false: what is used is not known, because Redis is away.")


class LimitsAnswer(serializers.Serializer[Any]):
    data = OrganizationLimitsShown()  # type: ignore[assignment]  # The envelope's name is also one of DRF's own.


class LimitsView(ManagementView):
    needs = {"GET": Permission.SEE_USAGE}

    @extend_schema(operation_id="get_limits", responses=LimitsAnswer)
    def get(self, request: Request) -> Response:
        """The rates of the organization, which its operator sets. null: the default of the installation."""
        organization = self.acting(request).organization
        reader = StandingReader(organization)
        in_force: dict[str, Any] = dict.fromkeys(LIMIT_FIELDS)
        for rate in reader.read_organization().rates:
            in_force[rate.kind] = {"limit": rate.limit, "used": rate.used}
        as_set = {name: getattr(organization, name) for name in LIMIT_FIELDS}
        return Response({"data": {**as_set, "in_force": in_force, "is_current": reader.is_current}})
