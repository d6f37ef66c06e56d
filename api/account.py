"""`GET /api/v1/credits` and `GET /api/v1/key`: the balance, and the key that asks."""

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from api.base import KeyedView
from api.fields import AmountField
from api.keys import KeyShown, show_key
from billing.admission.balances import read_admission_state
from billing.budgets.amounts import Holder
from billing.budgets.overrides import Scope, find_override
from billing.money import format_usd
from billing.usage.budgets import WHOLE_ORGANIZATION, Spent, read_spent
from billing.usage.key_activity import last_used


class UsageSoFar(serializers.Serializer[Any]):
    today = AmountField(help_text="Of requests since midnight UTC.")
    month = AmountField(help_text="Since the first of the month, UTC.")
    total = AmountField()


class Credits(serializers.Serializer[Any]):
    organization = serializers.CharField()
    currency = serializers.CharField()
    total_credits = AmountField(help_text="balance + total_usage: what total_usage is taken from.")
    total_usage = AmountField(help_text="What requests have cost, ever.")
    balance = AmountField(help_text="Posted, without credit that has expired.")
    credit_limit = AmountField(help_text="How far below zero the balance may go.")
    held = AmountField(help_text="Reserved by requests that run.")
    unsettled = AmountField(help_text="Cost of finished requests that is not posted yet.")
    available = AmountField(help_text="balance + credit_limit - unsettled - held: what a request may cost.")
    open_requests = serializers.IntegerField()
    usage = UsageSoFar()


class CreditsAnswer(serializers.Serializer[Any]):
    data = Credits()  # type: ignore[assignment]  # The envelope's name is also one of DRF's own.


class AskingKey(KeyShown):
    organization = serializers.CharField()
    is_management_key = serializers.BooleanField()
    role = serializers.CharField(allow_null=True, help_text="What a management key acts as.")


class AskingKeyAnswer(serializers.Serializer[Any]):
    data = AskingKey()  # type: ignore[assignment]  # The envelope's name is also one of DRF's own.


class CreditsView(KeyedView):
    @extend_schema(operation_id="get_credits", responses=CreditsAnswer)
    def get(self, request: Request) -> Response:
        """The balance of the key's organization as admission enforces it, and its usage so far."""
        organization = self.key_of(request).organization
        state = read_admission_state(organization)
        daily, _, monthly, total = read_spent(organization.pk).get(WHOLE_ORGANIZATION, Spent()).paid_nanos
        shown = {
            "organization": organization.slug,
            "currency": "USD",
            "total_credits": format_usd(state.credit_nanos + total),
            "total_usage": format_usd(total),
            "balance": format_usd(state.credit_nanos),
            "credit_limit": format_usd(state.limit_nanos),
            "held": format_usd(state.held_nanos),
            "unsettled": format_usd(state.unsettled_nanos),
            "available": format_usd(state.available_nanos),
            "open_requests": state.open_requests,
            "usage": {
                "today": format_usd(daily),
                "month": format_usd(monthly),
                "total": format_usd(total),
            },
        }
        return Response({"data": shown})


class KeyView(KeyedView):
    @extend_schema(operation_id="get_asking_key", responses=AskingKeyAnswer)
    def get(self, request: Request) -> Response:
        """The key that asks: its limits, its budgets with what is spent of them, its usage so far."""
        key = self.key_of(request)
        spent = read_spent(key.organization_id, key_ids=[key.pk]).get(key.pk, Spent())
        used = last_used(key.organization, [key.pk]).get(key.pk)
        override = find_override(key.organization_id, Holder(Scope.KEY, str(key.pk)))
        shown = {
            **show_key(key, spent, used, override),
            "organization": key.organization.slug,
            "is_management_key": key.is_management,
            "role": key.acting_role if key.is_management else None,
        }
        return Response({"data": shown})
