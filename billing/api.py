"""The JSON API beside `/v1/messages`: balance, key and receipts. Amounts are decimal strings of US dollars, exact."""

from datetime import UTC, datetime
from typing import Any

from django.http import Http404
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.api_authentication import ApiKeyAuthentication
from accounts.models import ApiKey
from billing.admission.feed import epoch_day
from billing.balances import read_figures
from billing.budgets import first_day_of_month, first_day_of_week, posted_nanos_by_day
from billing.money import format_usd
from billing.receipts import FailedReceipt, Receipt, find_receipt
from billing.request_id import MESSAGE_PREFIX, REQUEST_PREFIX, make_request_id, parse_request_id
from billing.usage_report import start_of_day, sum_usage


class UsageSoFar(serializers.Serializer[Any]):
    today = serializers.CharField(help_text="Since midnight UTC.")
    month = serializers.CharField(help_text="Since the first of the month, UTC.")
    total = serializers.CharField()


class Credits(serializers.Serializer[Any]):
    organization = serializers.CharField()
    currency = serializers.CharField()
    balance = serializers.CharField(help_text="Posted, without credit that has expired.")
    credit_limit = serializers.CharField(help_text="How far below zero the balance may go.")
    held = serializers.CharField(help_text="Reserved by requests that run.")
    unsettled = serializers.CharField(help_text="Cost of finished requests that is not posted yet.")
    available = serializers.CharField(help_text="balance + credit_limit - unsettled - held: what a request may cost.")
    open_requests = serializers.IntegerField()
    usage = UsageSoFar()


class Budget(serializers.Serializer[Any]):
    limit = serializers.CharField(allow_null=True)
    spent = serializers.CharField(help_text="Of settled requests.")


class Budgets(serializers.Serializer[Any]):
    daily = Budget()
    weekly = Budget(help_text="From Monday.")
    monthly = Budget(help_text="From the first.")


class KeyLimits(serializers.Serializer[Any]):
    requests_per_minute = serializers.IntegerField(allow_null=True)
    input_tokens_per_minute = serializers.IntegerField(allow_null=True)
    output_tokens_per_minute = serializers.IntegerField(allow_null=True)
    concurrent_requests = serializers.IntegerField(allow_null=True)


class Key(serializers.Serializer[Any]):
    name = serializers.CharField()
    prefix = serializers.CharField()
    last_four = serializers.CharField()
    organization = serializers.CharField()
    created_at = serializers.DateTimeField()
    expires_at = serializers.DateTimeField(allow_null=True)
    limits = KeyLimits()
    budgets = Budgets()
    allowed_models = serializers.ListField(child=serializers.CharField(), help_text="Empty: all models.")
    allowed_networks = serializers.ListField(child=serializers.CharField(), help_text="Empty: everywhere.")
    usage = UsageSoFar()


class ReceiptLineBody(serializers.Serializer[Any]):
    component = serializers.CharField()
    count = serializers.IntegerField()
    price_picos_per_unit = serializers.IntegerField(help_text="Pico-dollars for one token, image or search.")
    amount_picos = serializers.IntegerField(help_text="count x price_picos_per_unit.")


class AttemptBody(serializers.Serializer[Any]):
    outcome = serializers.CharField()
    status = serializers.IntegerField(allow_null=True)
    duration_ms = serializers.IntegerField(allow_null=True)


class Generation(serializers.Serializer[Any]):
    id = serializers.CharField()
    outcome = serializers.ChoiceField(choices=["billed", "failed"])
    error_code = serializers.CharField(allow_null=True)
    model = serializers.CharField()
    admitted_at = serializers.DateTimeField()
    settled_at = serializers.DateTimeField()
    total_ms = serializers.IntegerField()
    first_byte_ms = serializers.IntegerField(allow_null=True)
    streamed = serializers.BooleanField(allow_null=True)
    stop_reason = serializers.CharField(allow_null=True)
    usage_source = serializers.CharField(allow_null=True)
    price_version = serializers.IntegerField(allow_null=True)
    lines = ReceiptLineBody(many=True)
    minimum_charge = serializers.CharField(allow_null=True, help_text="Where it applied in place of the lines.")
    factor_ppm = serializers.IntegerField(allow_null=True, help_text="1,000,000 is the published price.")
    cost = serializers.CharField(help_text="As it was charged: rounded up once to the nano-dollar.")
    corrected_cost = serializers.CharField(
        allow_null=True, help_text="What is paid in the end, where a price was corrected or something was refunded."
    )
    attempts = AttemptBody(many=True)


LIMIT_FIELDS = ("requests_per_minute", "input_tokens_per_minute", "output_tokens_per_minute", "concurrent_requests")
ATTEMPT_FIELDS = ("outcome", "status", "duration_ms")


class JsonAlways(BaseContentNegotiation):
    """Whatever a client says that it accepts, it gets JSON, as from `/v1/`."""

    def select_parser(self, request: Request, parsers: Any) -> Any:
        return next(iter(parsers), None)

    def select_renderer(self, request: Request, renderers: Any, format_suffix: str | None = None) -> tuple[Any, str]:
        return renderers[0], renderers[0].media_type


class KeyedView(APIView):
    """A read for whoever has a key. Answers carry a request id, as everything of this API does."""

    authentication_classes = [ApiKeyAuthentication]
    content_negotiation_class = JsonAlways

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        answer = super().finalize_response(request, response, *args, **kwargs)
        answer.headers.setdefault("request-id", REQUEST_PREFIX + make_request_id().hex)
        answer.headers.setdefault("Cache-Control", "private, no-store")
        return answer

    def key_of(self, request: Request) -> ApiKey:
        key = request.auth
        assert isinstance(key, ApiKey)  # noqa: S101  the only class that authenticates has seen to it
        return key


class CreditsView(KeyedView):
    @extend_schema(responses=Credits)
    def get(self, request: Request) -> Response:
        """The balance of the key's organization as admission enforces it, and its usage so far."""
        organization = self.key_of(request).organization
        figures = read_figures(organization)
        return Response(
            {
                "organization": organization.slug,
                "currency": "USD",
                "balance": format_usd(figures.credit_nanos),
                "credit_limit": format_usd(figures.limit_nanos),
                "held": format_usd(figures.held_nanos),
                "unsettled": format_usd(figures.unsettled_nanos),
                "available": format_usd(figures.available_nanos),
                "open_requests": figures.open_requests,
                "usage": _usage_so_far(self.key_of(request), of_key=False),
            }
        )


class KeyView(KeyedView):
    @extend_schema(responses=Key)
    def get(self, request: Request) -> Response:
        """The key that asks: its limits, its budgets with what is spent of them, its usage so far."""
        key = self.key_of(request)
        return Response(
            {
                "name": key.name,
                "prefix": key.prefix,
                "last_four": key.last_four,
                "organization": key.organization.slug,
                "created_at": key.created_at,
                "expires_at": key.expires_at,
                "limits": {name: getattr(key, name) for name in LIMIT_FIELDS},
                "budgets": _budgets(key),
                "allowed_models": key.allowed_models,
                "allowed_networks": key.allowed_networks,
                "usage": _usage_so_far(key, of_key=True),
            }
        )


class GenerationView(KeyedView):
    @extend_schema(
        responses=Generation,
        parameters=[OpenApiParameter("id", str, required=True, description="The id of a message, or a request-id.")],
    )
    def get(self, request: Request) -> Response:
        """The receipt of one request of the key's organization, some seconds after its answer."""
        request_id = parse_request_id(request.query_params.get("id", ""))
        receipt = find_receipt(self.key_of(request).organization, request_id) if request_id else None
        if receipt is None:
            raise Http404
        return Response(_failed_body(receipt) if isinstance(receipt, FailedReceipt) else _billed_body(receipt))


def _usage_so_far(key: ApiKey, *, of_key: bool) -> dict[str, str]:
    today = datetime.now(UTC).date()
    key_id = key.pk if of_key else None
    periods = {"today": start_of_day(today), "month": start_of_day(today.replace(day=1)), "total": None}
    return {
        name: format_usd(sum_usage(key.organization, since=since, key_id=key_id).cost_nanos)
        for name, since in periods.items()
    }


def _budgets(key: ApiKey) -> dict[str, dict[str, str | None]]:
    today = epoch_day(datetime.now(UTC))
    first_days = {"daily": today, "weekly": first_day_of_week(today), "monthly": first_day_of_month(today)}
    posted = posted_nanos_by_day(organization_id=key.organization_id, key_id=key.pk, first_day=min(first_days.values()))
    budgets: dict[str, dict[str, str | None]] = {}
    for name, first_day in first_days.items():
        limit = getattr(key, f"{name}_budget_nanos")
        spent = sum(nanos for day, nanos in posted.items() if day >= first_day)
        budgets[name] = {"limit": None if limit is None else format_usd(limit), "spent": format_usd(spent)}
    return budgets


def _billed_body(receipt: Receipt) -> dict[str, Any]:
    record = receipt.record
    return {
        "id": MESSAGE_PREFIX + record.request_id.hex,
        "outcome": "billed",
        "error_code": None,
        "model": record.model_id,
        "admitted_at": record.admitted_at,
        "settled_at": record.settled_at,
        "total_ms": record.total_ms,
        "first_byte_ms": record.first_byte_ms,
        "streamed": record.is_streamed,
        "stop_reason": (receipt.detail.stop_reason or None) if receipt.detail else None,
        "usage_source": receipt.correction.usage_source if receipt.correction else record.usage_source,
        "price_version": record.price_version_id,
        "lines": [
            {
                "component": line.component,
                "count": line.count,
                "price_picos_per_unit": line.picos_per_unit,
                "amount_picos": line.picos,
            }
            for line in (receipt.corrected_lines if receipt.correction else receipt.lines)
        ],
        "minimum_charge": format_usd(receipt.minimum_charge_nanos) if receipt.minimum_charge_nanos else None,
        "factor_ppm": record.factor_ppm,
        "cost": format_usd(record.cost_nanos),
        "corrected_cost": format_usd(receipt.current_nanos) if receipt.is_corrected else None,
        "attempts": _attempts(receipt),
    }


def _failed_body(receipt: FailedReceipt) -> dict[str, Any]:
    record = receipt.record
    return {
        "id": MESSAGE_PREFIX + record.request_id.hex,
        "outcome": "failed",
        "error_code": record.error_code,
        "model": record.model_id,
        "admitted_at": record.admitted_at,
        "settled_at": record.settled_at,
        "total_ms": record.total_ms,
        "first_byte_ms": None,
        "streamed": None,
        "stop_reason": None,
        "usage_source": None,
        "price_version": None,
        "lines": [],
        "minimum_charge": None,
        "factor_ppm": None,
        "cost": format_usd(0),
        "corrected_cost": None,
        "attempts": _attempts(receipt),
    }


def _attempts(receipt: Receipt | FailedReceipt) -> list[dict[str, Any]]:
    """Attempts without the names of upstreams and what they cost us: those are not the caller's."""
    return [{name: attempt.get(name) for name in ATTEMPT_FIELDS} for attempt in receipt.attempts]
