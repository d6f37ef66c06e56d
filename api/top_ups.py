"""`/api/v1/top-ups` and `/api/v1/automatic-top-up`: orders of credit, where to pay them, and what tops up by itself."""

import hashlib
import secrets
from typing import Any

from django.conf import settings
from django.urls import reverse
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.exceptions import APIException, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.access import Permission
from accounts.models import Role
from api.answers import MAX_KEY_CHARS, InvalidIdempotencyKeyError, KeyReusedError
from api.errors import ConflictError
from api.fields import AmountField, Body, SwitchField, UsdField, WholeField, find_row, read_body
from api.management import Acting, ManagementView
from api.paging import PAGE, PAGE_PARAMETERS, PagedAnswer, read_page
from billing.models import AutomaticTopUp, TopUp
from billing.money import format_usd
from billing.payments.automatic_settings import (
    MAX_DAY_COUNT,
    MAX_MONTH_COUNT,
    Choice,
    InvalidAutomaticTopUpError,
    choose,
    read_settings,
)
from billing.payments.orders import (
    MAX_ORDERS_PER_HOUR,
    InvalidOrderError,
    OrderConflictError,
    TooManyOrdersError,
    open_payment_page,
    place_order,
)
from billing.payments.provider import PaymentProviderError, PaymentRefusedError
from billing.payments.providers import UnknownProviderError, current_provider, find_provider

ID_PREFIX = "topup_"
SECONDS_PER_HOUR = 3600


class OrdersUsedUpError(APIException):
    status_code = 429
    default_code = "too_many_top_ups"
    default_detail = f"{MAX_ORDERS_PER_HOUR} top-ups were ordered within an hour."
    retry_seconds = SECONDS_PER_HOUR


class ProviderDownError(APIException):
    status_code = 503
    default_code = "payment_provider_unavailable"
    default_detail = "The payment provider cannot be reached. Ask again with the same Idempotency-Key: it is one order."


class TopUpBody(Body):
    amount = UsdField(help_text="In whole cents.")


class TopUpShown(serializers.Serializer[Any]):
    id = serializers.CharField()
    amount = AmountField()
    currency = serializers.CharField()
    state = serializers.ChoiceField(choices=TopUp.State.choices)
    origin = serializers.ChoiceField(choices=TopUp.Origin.choices)
    pay_url = serializers.CharField(allow_null=True, help_text="Where a person pays it, while it is pending.")
    paid = AmountField(allow_null=True, help_text="What the payment provider took.")
    reversed = AmountField(help_text="How much of the credit was taken back.")
    failure = serializers.CharField(allow_null=True)
    created_by = serializers.CharField()
    created_at = serializers.DateTimeField()
    paid_at = serializers.DateTimeField(allow_null=True)


class TopUpAnswer(serializers.Serializer[Any]):
    data = TopUpShown()  # type: ignore[assignment]  # The envelope's name is also one of DRF's own.


class TopUpList(PagedAnswer):
    data = TopUpShown(many=True)  # type: ignore[assignment]  # The envelope's name is also one of DRF's own.


class AutomaticTopUpBody(Body):
    """PUT sets all of it. A card is kept in the console, by a person."""

    is_on = SwitchField()
    threshold = UsdField(help_text="Below this balance it tops up.")
    amount = UsdField()
    max_per_day = UsdField()
    max_per_month = UsdField()
    max_count_per_day = WholeField(min_value=1, max_value=MAX_DAY_COUNT)
    max_count_per_month = WholeField(min_value=1, max_value=MAX_MONTH_COUNT)


class AutomaticTopUpShown(serializers.Serializer[Any]):
    is_on = serializers.BooleanField()
    threshold = AmountField()
    amount = AmountField()
    max_per_day = AmountField()
    max_per_month = AmountField()
    max_count_per_day = serializers.IntegerField()
    max_count_per_month = serializers.IntegerField()
    card = serializers.CharField(allow_null=True)
    suspended_at = serializers.DateTimeField(allow_null=True)
    reason = serializers.CharField(allow_null=True)


class AutomaticTopUpAnswer(serializers.Serializer[Any]):
    data = AutomaticTopUpShown()  # type: ignore[assignment]  # The envelope's name is also one of DRF's own.


class TopUpsView(ManagementView):
    needs = dict.fromkeys(("GET", "POST"), Permission.SEE_BILLING)
    takes = PAGE

    @extend_schema(operation_id="list_top_ups", responses=TopUpList, parameters=PAGE_PARAMETERS)
    def get(self, request: Request) -> Response:
        """Orders of credit, newest first, those that came by themselves too."""
        orders = TopUp.objects.filter(organization=self.acting(request).organization)
        return Response(read_page(request, "top-ups").of(orders, lambda rows: [_show(row) for row in rows]))

    @extend_schema(operation_id="create_top_up", request=TopUpBody, responses={201: TopUpAnswer})
    def post(self, request: Request) -> Response:
        """Orders credit. A person pays at `pay_url`; credited is what was ordered, once it is paid.

        The Idempotency-Key is the order's own: the same key is the same order for ever, as it stands by then.
        """
        acting = self.acting(request)
        amount_nanos = read_body(TopUpBody(data=request.data))["amount"]
        provider = current_provider()
        if provider is None:
            raise ConflictError("Payments online are not set up here.", code="payments_not_set_up")
        try:
            order = place_order(
                acting.organization,
                amount_nanos=amount_nanos,
                provider=provider.name,
                idempotency_key=_order_key(request),
                actor=_payer(acting),
                origin=TopUp.Origin.API,
            )
        except TooManyOrdersError:
            raise OrdersUsedUpError from None
        except InvalidOrderError as error:
            raise ValidationError({"amount": [str(error)]}) from None
        except OrderConflictError:
            raise KeyReusedError from None
        return Response({"data": _show(_with_page(order))}, status=201)


class OneTopUpView(ManagementView):
    needs = {"GET": Permission.SEE_BILLING}

    @extend_schema(operation_id="get_top_up", responses=TopUpAnswer)
    def get(self, request: Request, top_up_id: str) -> Response:
        """One order, as it stands."""
        orders = TopUp.objects.filter(organization=self.acting(request).organization)
        return Response({"data": _show(find_row(orders, ID_PREFIX, top_up_id))})


class AutomaticTopUpView(ManagementView):
    needs = dict.fromkeys(("GET", "PUT"), Permission.SEE_BILLING)

    @extend_schema(operation_id="get_automatic_top_up", responses=AutomaticTopUpAnswer)
    def get(self, request: Request) -> Response:
        """The settings of automatic top-up, and how it stands."""
        return Response({"data": _show_automatic(read_settings(self.acting(request).organization))})

    @extend_schema(operation_id="set_automatic_top_up", request=AutomaticTopUpBody, responses=AutomaticTopUpAnswer)
    def put(self, request: Request) -> Response:
        """Sets all of it. It is off until it is turned on here or in the console, and needs a card for that."""
        acting = self.acting(request)
        data = read_body(AutomaticTopUpBody(data=request.data))
        choice = Choice(
            is_on=data["is_on"],
            threshold_nanos=data["threshold"],
            amount_nanos=data["amount"],
            max_day_nanos=data["max_per_day"],
            max_month_nanos=data["max_per_month"],
            max_day_count=data["max_count_per_day"],
            max_month_count=data["max_count_per_month"],
        )
        try:
            row = choose(acting.organization, choice, actor=acting.name)
        except InvalidAutomaticTopUpError as error:
            raise ConflictError(str(error), code="invalid_automatic_top_up") from None
        return Response({"data": _show_automatic(row)})


def _order_key(request: Request) -> str:
    """Return the key of the order: made from the client's, or new where there is none."""
    name = request.META.get("HTTP_IDEMPOTENCY_KEY")
    if name is None:
        return f"api-{secrets.token_hex(16)}"
    if not 0 < len(name) <= MAX_KEY_CHARS or not name.isascii():
        raise InvalidIdempotencyKeyError
    return f"api-{hashlib.sha256(name.encode()).hexdigest()}"


def _payer(acting: Acting) -> str:
    """Return the address that the payment page is opened for: of the member whose key it is, or of the first owner."""
    if acting.person is not None:
        return acting.person.email
    owner = acting.organization.members.filter(role=Role.OWNER).select_related("user").order_by("pk").first()
    if owner is None:
        raise ConflictError("The organization has no owner to pay.", code="nobody_pays")
    return owner.user.email


def _with_page(order: TopUp) -> TopUp:
    """Open the payment page of a pending order. Opened again it is the same page."""
    if order.state != TopUp.State.PENDING or order.checkout_url:
        return order
    here = settings.BASE_URL + reverse("top_up", kwargs={"slug": order.organization.slug, "top_up_id": order.pk})
    try:
        provider = find_provider(order.provider)
        open_payment_page(
            order, provider, customer_email=order.created_by, return_url=f"{here}?returned", cancel_url=here
        )
    except (PaymentProviderError, UnknownProviderError):
        raise ProviderDownError from None
    except PaymentRefusedError as error:
        raise ConflictError(f"The payment provider refused: {error}", code="payment_refused") from None
    order.refresh_from_db()
    return order


def _show(order: TopUp) -> dict[str, Any]:
    is_payable = order.state == TopUp.State.PENDING and order.processing_since is None
    return {
        "id": f"{ID_PREFIX}{order.pk}",
        "amount": format_usd(order.amount_nanos),
        "currency": order.currency,
        "state": order.state,
        "origin": order.origin,
        "pay_url": order.checkout_url or None if is_payable else None,
        "paid": None if order.paid_nanos is None else format_usd(order.paid_nanos),
        "reversed": format_usd(order.reversed_nanos),
        "failure": order.failure or None,
        "created_by": order.created_by,
        "created_at": order.created_at,
        "paid_at": order.paid_at,
    }


def _show_automatic(row: AutomaticTopUp) -> dict[str, Any]:
    return {
        "is_on": row.is_on,
        "threshold": format_usd(row.threshold_nanos),
        "amount": format_usd(row.amount_nanos),
        "max_per_day": format_usd(row.max_day_nanos),
        "max_per_month": format_usd(row.max_month_nanos),
        "max_count_per_day": row.max_day_count,
        "max_count_per_month": row.max_month_count,
        "card": row.method_label or None,
        "suspended_at": row.suspended_at,
        "reason": row.reason or None,
    }
