"""`/api/v1/activity`: what was used by UTC day and model, as OpenRouter tells it."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.access import Permission
from api.fields import AmountField
from api.management import ManagementView
from billing.money import format_usd
from billing.usage.sums import sum_by_day_and_model

DAYS = 30


class ActivityRow(serializers.Serializer[Any]):
    date = serializers.DateField(help_text="UTC.")
    model = serializers.CharField()
    usage = AmountField()
    requests = serializers.IntegerField()
    prompt_tokens = serializers.IntegerField(help_text="All tokens of prompts, cached ones too.")
    completion_tokens = serializers.IntegerField()
    cache_read_tokens = serializers.IntegerField()
    cache_write_tokens = serializers.IntegerField()


class Activity(serializers.Serializer[Any]):
    data = ActivityRow(many=True)  # type: ignore[assignment]  # The envelope's name is also one of DRF's own.


class ActivityView(ManagementView):
    needs = {"GET": Permission.SEE_USAGE}
    takes = frozenset({"date"})

    @extend_schema(
        operation_id="list_activity",
        responses=Activity,
        parameters=[
            OpenApiParameter(
                "date",
                OpenApiTypes.DATE,
                description=f"One of the last {DAYS} UTC days. All, unless told.",
            )
        ],
    )
    def get(self, request: Request) -> Response:
        """Settled requests of the last 30 whole UTC days, by day and model, newest first."""
        today = datetime.now(UTC).date()
        first, last = today - timedelta(days=DAYS), today - timedelta(days=1)
        if (text := request.query_params.get("date")) is not None:
            first = last = _read_day(text, first=first, last=last)
        rows = sum_by_day_and_model(self.acting(request).organization, first_day=first, last_day=last)
        return Response(
            {
                "data": [
                    {
                        "date": day,
                        "model": model_id,
                        "usage": format_usd(used.cost_nanos),
                        "requests": used.requests,
                        "prompt_tokens": used.prompt_tokens,
                        "completion_tokens": used.output_tokens,
                        "cache_read_tokens": used.cache_read_tokens,
                        "cache_write_tokens": used.cache_write_tokens,
                    }
                    for day, model_id, used in rows
                ]
            }
        )


def _read_day(text: str, *, first: date, last: date) -> date:
    try:
        day = date.fromisoformat(text)
    except ValueError:
        day = date.min
    if not first <= day <= last:
        raise ValidationError({"date": [f"A day from {first} to {last}."]})
    return day
