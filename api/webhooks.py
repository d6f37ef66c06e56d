"""`/api/v1/webhooks`: where an organization wants events sent, and what became of them."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from django.http import Http404
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.exceptions import APIException, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.access import Permission
from api.answers import once
from api.errors import ConflictError
from api.fields import Body, SwitchField, TextField, find_row, read_body
from api.management import Acting, ManagementView
from api.paging import PAGE, PAGE_PARAMETERS, PagedAnswer, read_page
from billing.models import Alert, WebhookDelivery, WebhookEndpoint
from billing.webhooks.deliveries import list_deliveries, replay, replay_missed
from billing.webhooks.endpoints import (
    MAX_ENDPOINTS_PER_ORGANIZATION,
    MAX_URL_CHARS,
    InvalidUrlError,
    TooManyEndpointsError,
    add_endpoint,
    change_endpoint,
    kept_endpoints,
    remove_endpoint,
    rotate_secret,
    switch_off,
    switch_on,
)
from billing.webhooks.queue import MAX_TESTS_PER_HOUR, TooManyTestsError, queue_test

ID_PREFIX = "webhook_"
MAX_DESCRIPTION_CHARS, MAX_REASON_CHARS = 100, 200
SECONDS_PER_HOUR = 3600
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DELIVERY_PLACE = re.compile(r"[0-9]{1,16}\.[0-9a-f]{32}")  # When, in microseconds, and its id.


class TestsUsedUpError(APIException):
    status_code = 429
    default_code = "too_many_webhook_tests"
    default_detail = f"{MAX_TESTS_PER_HOUR} tests were sent to this endpoint within the hour."
    retry_seconds = SECONDS_PER_HOUR


class WebhookBody(Body):
    """PUT sets all of it; what is left out is set to nothing."""

    url = TextField(max_length=MAX_URL_CHARS)
    description = TextField(max_length=MAX_DESCRIPTION_CHARS, required=False, allow_blank=True, default="")
    kinds = serializers.ListField(
        child=serializers.ChoiceField(choices=Alert.Kind.choices),
        required=False,
        default=list,
        max_length=len(Alert.Kind),
        help_text="Kinds of alerts; empty: all, also those that are still to come.",
    )
    disabled = SwitchField(required=False, default=False)


class WebhookShown(serializers.Serializer[Any]):
    id = serializers.CharField()
    url = serializers.CharField()
    description = serializers.CharField()
    kinds = serializers.ListField(child=serializers.CharField())
    disabled = serializers.BooleanField()
    disabled_reason = serializers.CharField()
    failing_since = serializers.DateTimeField(allow_null=True)
    created_at = serializers.DateTimeField()


class WebhookAnswer(serializers.Serializer[Any]):
    data = WebhookShown()  # type: ignore[assignment]  # The envelope's name is also one of DRF's own.


class WebhookSecretAnswer(WebhookAnswer):
    secret = serializers.CharField(help_text="Signs deliveries (Standard Webhooks). It is shown once.")


class RemovedWebhookAnswer(WebhookAnswer):
    deleted = serializers.BooleanField()


class WebhookList(PagedAnswer):
    data = WebhookShown(many=True)  # type: ignore[assignment]  # The envelope's name is also one of DRF's own.


class DeliveryShown(serializers.Serializer[Any]):
    id = serializers.CharField()
    event_id = serializers.CharField(help_text="The header webhook-id of every attempt.")
    event_type = serializers.CharField()
    state = serializers.ChoiceField(choices=WebhookDelivery.State.choices)
    created_at = serializers.DateTimeField()
    delivered_at = serializers.DateTimeField(allow_null=True)
    next_attempt_at = serializers.DateTimeField(allow_null=True, help_text="While it waits.")
    attempts = serializers.ListField(child=serializers.DictField())


class DeliveryAnswer(serializers.Serializer[Any]):
    data = DeliveryShown()  # type: ignore[assignment]  # The envelope's name is also one of DRF's own.


class DeliveryList(PagedAnswer):
    data = DeliveryShown(many=True)  # type: ignore[assignment]  # The envelope's name is also one of DRF's own.


class Replayed(serializers.Serializer[Any]):
    replayed = serializers.IntegerField()


class ReplayedAnswer(serializers.Serializer[Any]):
    data = Replayed()  # type: ignore[assignment]  # The envelope's name is also one of DRF's own.


class WebhooksView(ManagementView):
    needs = dict.fromkeys(("GET", "POST"), Permission.MANAGE_ALERTS)
    takes = PAGE

    @extend_schema(operation_id="list_webhooks", responses=WebhookList, parameters=PAGE_PARAMETERS)
    def get(self, request: Request) -> Response:
        """The endpoints of the organization, newest first."""
        kept = kept_endpoints(self.acting(request).organization)
        return Response(read_page(request, "webhooks").of(kept, lambda rows: [_show(row) for row in rows]))

    @extend_schema(operation_id="create_webhook", request=WebhookBody, responses={201: WebhookSecretAnswer})
    @once
    def post(self, request: Request) -> Response:
        """A new endpoint, and the secret that signs what is sent to it."""
        acting = self.acting(request)
        data = read_body(WebhookBody(data=request.data))
        disabled = data.pop("disabled")
        try:
            endpoint, secret = add_endpoint(acting.organization, created_by=acting.person, **data)
        except InvalidUrlError as error:
            raise ValidationError({"url": [str(error)]}) from None
        except TooManyEndpointsError:
            text = f"There are {MAX_ENDPOINTS_PER_ORGANIZATION} endpoints already. Remove one first."
            raise ConflictError(text, code="too_many_webhooks") from None
        if disabled:
            endpoint = _switch(acting, endpoint, disabled=True)
        return Response({"data": _show(endpoint), "secret": secret}, status=201)


class OneWebhookView(ManagementView):
    needs = dict.fromkeys(("GET", "PUT", "DELETE"), Permission.MANAGE_ALERTS)

    @extend_schema(operation_id="get_webhook", responses=WebhookAnswer)
    def get(self, request: Request, webhook_id: str) -> Response:
        """One endpoint."""
        return Response({"data": _show(_find(self.acting(request), webhook_id))})

    @extend_schema(operation_id="set_webhook", request=WebhookBody, responses=WebhookAnswer)
    def put(self, request: Request, webhook_id: str) -> Response:
        """Sets where events are sent, and which, and whether any are."""
        acting = self.acting(request)
        endpoint = _find(acting, webhook_id)
        data = read_body(WebhookBody(data=request.data))
        disabled = data.pop("disabled")
        try:
            change_endpoint(endpoint, **data)
        except InvalidUrlError as error:
            raise ValidationError({"url": [str(error)]}) from None
        return Response({"data": _show(_switch(acting, endpoint, disabled=disabled))})

    @extend_schema(operation_id="remove_webhook", request=None, responses=RemovedWebhookAnswer)
    def delete(self, request: Request, webhook_id: str) -> Response:
        """Sends nothing there any more."""
        endpoint = _find(self.acting(request), webhook_id)
        remove_endpoint(endpoint)
        return Response({"data": _show(endpoint), "deleted": True})


class TestWebhookView(ManagementView):
    needs = {"POST": Permission.MANAGE_ALERTS}

    @extend_schema(operation_id="test_webhook", request=None, responses={202: DeliveryAnswer})
    @once
    def post(self, request: Request, webhook_id: str) -> Response:
        """Sends a test event; what became of it is in its delivery, within seconds."""
        endpoint = _find(self.acting(request), webhook_id)
        if not endpoint.is_on:
            raise _is_disabled()
        try:
            return Response({"data": _show_delivery(queue_test(endpoint))}, status=202)
        except TooManyTestsError:
            raise TestsUsedUpError from None


class RotateWebhookView(ManagementView):
    needs = {"POST": Permission.MANAGE_ALERTS}

    @extend_schema(operation_id="rotate_webhook_secret", request=None, responses=WebhookSecretAnswer)
    @once
    def post(self, request: Request, webhook_id: str) -> Response:
        """A new secret. For a day deliveries are signed with both."""
        endpoint = _find(self.acting(request), webhook_id)
        return Response({"data": _show(endpoint), "secret": rotate_secret(endpoint)})


class ReplayMissedView(ManagementView):
    needs = {"POST": Permission.MANAGE_ALERTS}

    @extend_schema(operation_id="replay_missed_events", request=None, responses={202: ReplayedAnswer})
    @once
    def post(self, request: Request, webhook_id: str) -> Response:
        """Sends again all that the endpoint missed within 30 days, under the same ids."""
        endpoint = _find(self.acting(request), webhook_id)
        if not endpoint.is_on:
            raise _is_disabled()
        return Response({"data": {"replayed": replay_missed(endpoint)}}, status=202)


class DeliveriesView(ManagementView):
    needs = {"GET": Permission.MANAGE_ALERTS}
    takes = PAGE

    @extend_schema(operation_id="list_webhook_deliveries", responses=DeliveryList, parameters=PAGE_PARAMETERS)
    def get(self, request: Request, webhook_id: str) -> Response:
        """What was sent to an endpoint, newest first."""
        endpoint = _find(self.acting(request), webhook_id)
        page = read_page(request, "deliveries", places=DELIVERY_PLACE)
        rows = list_deliveries(endpoint, before=_read_place(page.place))
        return Response(page.cut(rows, _place_of, lambda kept: [_show_delivery(row) for row in kept]))


class OneDeliveryView(ManagementView):
    needs = {"GET": Permission.MANAGE_ALERTS}

    @extend_schema(operation_id="get_webhook_delivery", responses=DeliveryAnswer)
    def get(self, request: Request, webhook_id: str, delivery_id: str) -> Response:
        """One delivery with all its attempts."""
        return Response({"data": _show_delivery(_find_of(_find(self.acting(request), webhook_id), delivery_id))})


class ReplayView(ManagementView):
    needs = {"POST": Permission.MANAGE_ALERTS}

    @extend_schema(operation_id="replay_webhook_delivery", request=None, responses={202: DeliveryAnswer})
    @once
    def post(self, request: Request, webhook_id: str, delivery_id: str) -> Response:
        """Sends it again, under the same id."""
        delivery = _find_of(_find(self.acting(request), webhook_id), delivery_id)
        if not delivery.endpoint.is_on:
            raise _is_disabled()
        if not replay(delivery):
            raise ConflictError("It is on its way already.", code="delivery_is_waiting")
        delivery.refresh_from_db()
        return Response({"data": _show_delivery(delivery)}, status=202)


def _find(acting: Acting, text: str) -> WebhookEndpoint:
    return find_row(kept_endpoints(acting.organization).select_related("organization"), ID_PREFIX, text)


def _find_of(endpoint: WebhookEndpoint, text: str) -> WebhookDelivery:
    try:
        delivery_id = UUID(text)
    except ValueError:
        raise Http404 from None
    delivery = WebhookDelivery.objects.filter(endpoint=endpoint, pk=delivery_id).select_related("endpoint").first()
    if delivery is None:
        raise Http404
    return delivery


def _read_place(place: str | None) -> tuple[datetime, UUID] | None:
    if place is None:
        return None
    micros, _, delivery_id = place.partition(".")
    return EPOCH + timedelta(microseconds=int(micros)), UUID(delivery_id)


def _place_of(delivery: WebhookDelivery) -> str:
    return f"{(delivery.created_at - EPOCH) // timedelta(microseconds=1)}.{delivery.pk.hex}"


def _switch(acting: Acting, endpoint: WebhookEndpoint, *, disabled: bool) -> WebhookEndpoint:
    if disabled:
        switch_off(endpoint, reason=f"By {acting.name}."[:MAX_REASON_CHARS])
    else:
        switch_on(endpoint)
    endpoint.refresh_from_db()
    return endpoint


def _is_disabled() -> ConflictError:
    return ConflictError("This endpoint is disabled: enable it first.", code="webhook_is_disabled")


def _show(endpoint: WebhookEndpoint) -> dict[str, Any]:
    return {
        "id": f"{ID_PREFIX}{endpoint.pk}",
        "url": endpoint.url,
        "description": endpoint.description,
        "kinds": endpoint.kinds,
        "disabled": not endpoint.is_on,
        "disabled_reason": endpoint.switched_off_reason,
        "failing_since": endpoint.failing_since,
        "created_at": endpoint.created_at,
    }


def _show_delivery(delivery: WebhookDelivery) -> dict[str, Any]:
    is_waiting = delivery.state == WebhookDelivery.State.WAITING
    return {
        "id": str(delivery.pk),
        "event_id": delivery.event_id,
        "event_type": delivery.event_type,
        "state": delivery.state,
        "created_at": delivery.created_at,
        "delivered_at": delivery.delivered_at,
        "next_attempt_at": delivery.next_attempt_at if is_waiting else None,
        "attempts": delivery.attempts,
    }
