"""`GET /api/v1/generation`: the receipt of one request, with OpenRouter's names beside ours."""

from typing import Any

from django.http import Http404
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from api.base import KeyedView
from billing.models import RefusedRequest, RequestDetail
from billing.money import format_usd
from billing.pricing.cost import OUTPUT, PROMPT_COMPONENTS
from billing.request_id import MESSAGE_PREFIX, parse_request_id
from billing.usage.receipts import FailedReceipt, Receipt, find_receipt
from billing.usage.refusals import find_refusal

ATTRIBUTION_FIELDS = ("end_user", "tag", "session")
ATTEMPT_FIELDS = ("outcome", "status", "duration_ms")


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
    outcome = serializers.ChoiceField(choices=["billed", "failed", "refused"])
    error_code = serializers.CharField(allow_null=True)
    error_message = serializers.CharField(allow_null=True, help_text="Why a request was refused, as it was answered.")
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
    end_user = serializers.CharField(allow_null=True, help_text="Named by metadata.user_id of the request.")
    tag = serializers.CharField(allow_null=True, help_text="From the header x-crossmodel-tag.")
    created_at = serializers.DateTimeField(help_text="admitted_at, under OpenRouter's name; so are those below.")
    total_cost = serializers.CharField(help_text="corrected_cost, or else cost.")
    latency = serializers.IntegerField(allow_null=True, help_text="first_byte_ms.")
    generation_time = serializers.IntegerField(help_text="total_ms.")
    finish_reason = serializers.CharField(allow_null=True, help_text="stop_reason.")
    tokens_prompt = serializers.IntegerField(help_text="All tokens of the prompt, cached ones too.")
    tokens_completion = serializers.IntegerField()
    session = serializers.CharField(allow_null=True, help_text="From x-crossmodel-session, or from Claude Code.")


class GenerationAnswer(serializers.Serializer[Any]):
    data = Generation()  # type: ignore[assignment]  # The envelope's name is also one of DRF's own.


class GenerationView(KeyedView):
    takes = frozenset({"id"})

    @extend_schema(
        operation_id="get_generation",
        responses=GenerationAnswer,
        parameters=[OpenApiParameter("id", str, required=True, description="The id of a message, or a request-id.")],
    )
    def get(self, request: Request) -> Response:
        """The receipt of one request of the key's organization, some seconds after its answer."""
        if "id" not in request.query_params:
            raise ValidationError({"id": ["This parameter is required."]})
        request_id = parse_request_id(request.query_params["id"])
        receipt = find_receipt(self.key_of(request).organization, request_id) if request_id else None
        if receipt is None:
            refusal = find_refusal(self.key_of(request).organization_id, request_id) if request_id else None
            if refusal is None:
                raise Http404
            return Response({"data": _with_openrouter_names(_refused_body(refusal))})
        body = _failed_body(receipt) if isinstance(receipt, FailedReceipt) else _billed_body(receipt)
        return Response({"data": _with_openrouter_names(body)})


def _with_openrouter_names(body: dict[str, Any]) -> dict[str, Any]:
    counts = {line["component"]: line["count"] for line in body["lines"]}
    return {
        **body,
        "created_at": body["admitted_at"],
        "total_cost": body["cost"] if body["corrected_cost"] is None else body["corrected_cost"],
        "latency": body["first_byte_ms"],
        "generation_time": body["total_ms"],
        "finish_reason": body["stop_reason"],
        "tokens_prompt": sum(counts.get(component, 0) for component in PROMPT_COMPONENTS),
        "tokens_completion": counts.get(OUTPUT, 0),
    }


def _billed_body(receipt: Receipt) -> dict[str, Any]:
    record = receipt.record
    return {
        "id": MESSAGE_PREFIX + record.request_id.hex,
        "outcome": "billed",
        "error_code": None,
        "error_message": None,
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
        **_attribution(receipt.detail),
    }


def _failed_body(receipt: FailedReceipt) -> dict[str, Any]:
    record = receipt.record
    return {
        "id": MESSAGE_PREFIX + record.request_id.hex,
        "outcome": "failed",
        "error_code": record.error_code,
        "error_message": None,
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
        **_attribution(receipt.detail),
    }


def _refused_body(refusal: RefusedRequest) -> dict[str, Any]:
    """The same fields as of a failed request: nothing was held, asked or billed."""
    body = dict.fromkeys(Generation().fields)
    return {
        **body,
        "id": MESSAGE_PREFIX + refusal.request_id.hex,
        "outcome": "refused",
        "error_code": refusal.error_code,
        "error_message": refusal.message,
        "model": refusal.model_id,
        "admitted_at": refusal.refused_at,
        "settled_at": refusal.refused_at,
        "total_ms": 0,
        "lines": [],
        "cost": format_usd(0),
        "attempts": [],
        **_attribution(refusal),
    }


def _attribution(counted_for: RequestDetail | RefusedRequest | None) -> dict[str, str | None]:
    return {name: getattr(counted_for, name, "") or None for name in ATTRIBUTION_FIELDS}


def _attempts(receipt: Receipt | FailedReceipt) -> list[dict[str, Any]]:
    """Attempts without the names of upstreams and what they cost us: those do not concern the client."""
    return [{name: attempt.get(name) for name in ATTEMPT_FIELDS} for attempt in receipt.attempts]
