"""`/api/v1/alerts` and `/api/v1/alert-settings`: what an organization should know, and what it wants to be told of."""

from typing import Any

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.access import Permission
from accounts.models import Organization
from api.fields import AmountField, Body, SwitchField, UsdField, WholeField, read_body, read_flag
from api.management import ManagementView
from api.paging import PAGE, PAGE_PARAMETERS, PagedAnswer, read_page
from billing.alerts.choices import change_choices, read_choices, seen_by
from billing.models import Alert
from billing.webhooks.queue import alert_data

MIN_SPIKE_PERCENT, MAX_SPIKE_PERCENT = 110, 10_000
MAILED = ("owners", "admins", "billing", "key_makers")


class AlertKeyShown(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    name = serializers.CharField()
    prefix = serializers.CharField()
    last_four = serializers.CharField()


class AlertShown(serializers.Serializer[Any]):
    """The `data` of the event that webhooks get."""

    alert_id = serializers.CharField()
    kind = serializers.ChoiceField(choices=Alert.Kind.choices)
    organization = serializers.CharField()
    subject = serializers.CharField()
    key = AlertKeyShown(allow_null=True)
    raised_at = serializers.DateTimeField()
    cleared_at = serializers.DateTimeField(allow_null=True)
    details = serializers.DictField()


class AlertList(PagedAnswer):
    data = AlertShown(many=True)  # type: ignore[assignment]  # The envelope's name is also one of DRF's own.


class MailedBody(Body):
    owners = SwitchField(required=False, default=True)
    admins = SwitchField(required=False, default=False)
    billing = SwitchField(required=False, default=True)
    key_makers = SwitchField(required=False, default=True, help_text="The owner of the key, if it is about a key.")


class AlertSettingsBody(Body):
    """PUT sets all of it; what is left out is set to its default."""

    low_balance = UsdField(
        allow_null=True, required=False, default=None, help_text='null: three usual days. "0": never.'
    )
    budget_warning_percent = WholeField(min_value=1, max_value=99, required=False, default=80)
    spike_percent = WholeField(min_value=MIN_SPIKE_PERCENT, max_value=MAX_SPIKE_PERCENT, required=False, default=300)
    spike_minimum = UsdField(required=False, default=5_000_000_000, help_text='"5.00" unless told.')
    muted_kinds = serializers.ListField(
        child=serializers.ChoiceField(choices=Alert.Kind.choices),
        required=False,
        default=list,
        max_length=len(Alert.Kind),
    )
    mails = MailedBody(required=False)


class MailedShown(serializers.Serializer[Any]):
    owners = serializers.BooleanField()
    admins = serializers.BooleanField()
    billing = serializers.BooleanField()
    key_makers = serializers.BooleanField()


class AlertSettingsShown(serializers.Serializer[Any]):
    low_balance = AmountField(allow_null=True)
    budget_warning_percent = serializers.IntegerField()
    spike_percent = serializers.IntegerField()
    spike_minimum = AmountField()
    muted_kinds = serializers.ListField(child=serializers.CharField())
    mails = MailedShown()


class AlertSettingsAnswer(serializers.Serializer[Any]):
    data = AlertSettingsShown()  # type: ignore[assignment]  # The envelope's name is also one of DRF's own.


class AlertsView(ManagementView):
    needs = {"GET": Permission.SEE_USAGE}
    takes = PAGE | {"open"}

    @extend_schema(
        operation_id="list_alerts",
        responses=AlertList,
        parameters=[*PAGE_PARAMETERS, OpenApiParameter("open", bool, description="Only those that are not over.")],
    )
    def get(self, request: Request) -> Response:
        """The alerts that the role of the key may see, newest first."""
        acting = self.acting(request)
        alerts = seen_by(acting.role, acting.organization)
        if read_flag(request, "open"):
            alerts = alerts.filter(cleared_at=None)
        return Response(read_page(request, "alerts").of(alerts, lambda rows: [alert_data(alert) for alert in rows]))


class AlertSettingsView(ManagementView):
    needs = dict.fromkeys(("GET", "PUT"), Permission.MANAGE_ALERTS)

    @extend_schema(operation_id="get_alert_settings", responses=AlertSettingsAnswer)
    def get(self, request: Request) -> Response:
        """What the organization chose to be told of, and when."""
        return Response({"data": _show(self.acting(request).organization)})

    @extend_schema(operation_id="set_alert_settings", request=AlertSettingsBody, responses=AlertSettingsAnswer)
    def put(self, request: Request) -> Response:
        """Sets all of it. It takes effect within a minute."""
        organization = self.acting(request).organization
        data = read_body(AlertSettingsBody(data=request.data))
        mails = data.get("mails") or read_body(MailedBody(data={}))
        fields = {
            "low_balance_nanos": data["low_balance"],
            "budget_warning_percent": data["budget_warning_percent"],
            "spike_percent": data["spike_percent"],
            "spike_minimum_nanos": data["spike_minimum"],
            "muted_kinds": list(dict.fromkeys(data["muted_kinds"])),
            **{f"mails_{name}": mails[name] for name in MAILED},
        }
        change_choices(organization, fields=fields)
        return Response({"data": _show(organization)})


def _show(organization: Organization) -> dict[str, Any]:
    choices = read_choices(organization)
    usd = UsdField()
    return {
        "low_balance": None if choices.low_balance_nanos is None else usd.to_representation(choices.low_balance_nanos),
        "budget_warning_percent": choices.budget_warning_percent,
        "spike_percent": choices.spike_percent,
        "spike_minimum": usd.to_representation(choices.spike_minimum_nanos),
        "muted_kinds": choices.muted_kinds,
        "mails": {name: getattr(choices, f"mails_{name}") for name in MAILED},
    }
