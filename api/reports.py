"""Usage and cost as Anthropic's Admin API reports them, for whoever has a management key of the organization."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.models import Organization
from api.base import KeyedView
from api.management import ManagementKeyAuthentication
from billing.documents.provider_reports import (
    Page,
    ReportError,
    Wanted,
    parse_key_name,
    report_cost,
    report_usage,
)

MAX_TEXT_CHARS = 200


class ReportBucket(serializers.Serializer[Any]):
    starting_at = serializers.DateTimeField()
    ending_at = serializers.DateTimeField()
    results = serializers.ListField(child=serializers.DictField())


class Report(serializers.Serializer[Any]):
    data = ReportBucket(many=True)  # type: ignore[assignment]  # The envelope's name is also one of DRF's own.
    has_more = serializers.BooleanField()
    next_page = serializers.CharField(allow_null=True)


def _list_parameter(name: str, text: str) -> OpenApiParameter:
    return OpenApiParameter(f"{name}[]", str, many=True, description=text)


PARAMETERS = [
    OpenApiParameter("starting_at", OpenApiTypes.DATETIME, required=True),
    OpenApiParameter("ending_at", OpenApiTypes.DATETIME),
    OpenApiParameter("bucket_width", str, description="1m, 1h or 1d; of costs 1d."),
    OpenApiParameter("limit", int, description="How many buckets."),
    OpenApiParameter("page", str, description="`next_page` of the page before."),
    _list_parameter("group_by", "What rows are told apart by."),
    _list_parameter("api_key_ids", "Only these keys."),
    _list_parameter("models", "Only these models."),
    _list_parameter("context_window", "Only prompts of these sizes."),
]


class ReportView(KeyedView):
    takes = frozenset(name for each in PARAMETERS for name in (each.name, each.name.removesuffix("[]")))
    authentication_classes = [ManagementKeyAuthentication]

    def report(self, request: Request, make: Callable[[Organization, Wanted], Page]) -> Response:
        try:
            page = make(self.key_of(request).organization, _read_wanted(request))
        except ReportError as error:
            raise ValidationError(str(error)) from None
        return Response(
            {
                "data": [
                    {
                        "starting_at": _format(bucket.starting_at),
                        "ending_at": _format(bucket.ending_at),
                        "results": bucket.results,
                    }
                    for bucket in page.buckets
                ],
                "has_more": page.next_page is not None,
                "next_page": page.next_page,
            }
        )


class UsageReportView(ReportView):
    @extend_schema(operation_id="report_usage", responses=Report, parameters=PARAMETERS)
    def get(self, request: Request) -> Response:
        """Tokens by bucket of 1m, 1h or 1d, and by `group_by[]`."""
        return self.report(request, report_usage)


class CostReportView(ReportView):
    @extend_schema(operation_id="report_cost", responses=Report, parameters=PARAMETERS)
    def get(self, request: Request) -> Response:
        """What requests cost by day, in cents, and by `group_by[]=description`."""
        return self.report(request, report_cost)


def _read_wanted(request: Request) -> Wanted:
    query = request.query_params
    if "starting_at" not in query:
        raise ReportError("starting_at: is required.")
    keys = _read_list(request, "api_key_ids")
    return Wanted(
        starting_at=_read_moment(query["starting_at"], "starting_at"),
        ending_at=_read_moment(query["ending_at"], "ending_at") if "ending_at" in query else None,
        width=query.get("bucket_width", "1d"),
        limit=_read_limit(query["limit"]) if "limit" in query else None,
        page=query.get("page", ""),
        group_by=_read_list(request, "group_by"),
        key_ids=[parse_key_name(text) for text in keys] if keys else None,
        models=_read_list(request, "models"),
        context_windows=_read_list(request, "context_window"),
    )


def _read_list(request: Request, name: str) -> list[str]:
    """Return the values of `name[]`, or of `name` as some tools write it."""
    values = request.query_params.getlist(f"{name}[]") or request.query_params.getlist(name)
    return [value[:MAX_TEXT_CHARS] for value in values]


def _read_moment(text: str, name: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ReportError(f"{name}: {text[:40]!r} is no RFC 3339 timestamp such as 2026-11-01T00:00:00Z.") from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    if not 2000 <= moment.year <= 2200:
        raise ReportError(f"{name}: {text[:40]!r} lies out of bounds.")
    return moment


def _read_limit(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 6):
        raise ReportError("limit: is no whole number.")
    return int(text)


def _format(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
