"""`/api/v1/keys`: the keys of an organization, made, read, changed, rotated and revoked by a management key."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.utils import timezone
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.access import Permission
from accounts.key_secrets import MAX_OVERLAP, rotate_secret
from accounts.keys import (
    MAX_LIVE_KEYS_PER_ORGANIZATION,
    DisabledByAnotherError,
    KeyAlreadyRevokedError,
    NotAMemberError,
    TooManyKeysError,
    change_key,
    create_key,
    disable_key,
    enable_key,
    revoke_key,
)
from accounts.models import ApiKey, User
from api.answers import once
from api.budget_fields import PERIODS, BudgetsBody, BudgetsShown, budget_fields, nanos_of, show_budgets, show_tightest
from api.errors import ConflictError
from api.fields import (
    MAX_LIST_ITEMS,
    AmountField,
    Body,
    NetworkField,
    SwitchField,
    TextField,
    WholeField,
    find_row,
    read_body,
    read_flag,
)
from api.key_limit import LimitField, read_key_limit
from api.management import Acting, ManagementView
from api.paging import PAGE, PAGE_PARAMETERS, PagedAnswer, read_page
from billing.budgets.overrides import Scope, overrides_of
from billing.catalog.names import UnknownModelsError, find_model_ids, model_ids_by_name
from billing.models import BudgetOverride
from billing.money import format_usd
from billing.usage.budgets import Spent, read_spent
from billing.usage.key_activity import last_used

LIMIT_FIELDS = ("requests_per_minute", "input_tokens_per_minute", "output_tokens_per_minute", "concurrent_requests")
MAX_RATE = 10**12  # A minute; far above any real limit, far below what a bigint or Lua's numbers hold.
MAX_REQUESTS, MAX_CONCURRENT = 2**31 - 1, 100_000
MAX_NAME_CHARS, MAX_MODEL_CHARS, MAX_NETWORK_CHARS, MAX_EMAIL_CHARS = 100, 100, 50, 254
MAX_OVERLAP_SECONDS = int(MAX_OVERLAP.total_seconds())
DEFAULT_OVERLAP_SECONDS = 24 * 3600
ID_PREFIX = "apikey_"


class LimitsBody(Body):
    requests_per_minute = WholeField(allow_null=True, required=False, min_value=1, max_value=MAX_REQUESTS)
    input_tokens_per_minute = WholeField(allow_null=True, required=False, min_value=1, max_value=MAX_RATE)
    output_tokens_per_minute = WholeField(allow_null=True, required=False, min_value=1, max_value=MAX_RATE)
    concurrent_requests = WholeField(allow_null=True, required=False, min_value=1, max_value=MAX_CONCURRENT)


class KeyBody(Body):
    """What a key may be. PUT sets all of it, what is left out to nothing; PATCH and POST set what is there."""

    name = TextField(max_length=MAX_NAME_CHARS)
    owner = TextField(
        allow_null=True,
        required=False,
        max_length=MAX_EMAIL_CHARS,
        help_text="The e-mail address of the member whose key it is. Left out it stays, also by PUT; of a new key it is"
        " the person who made the management key.",
    )
    disabled = SwitchField(required=False)
    expires_at = serializers.DateTimeField(allow_null=True, required=False)
    limits = LimitsBody(required=False)
    budgets = BudgetsBody(required=False)
    limit = LimitField(
        allow_null=True,
        required=False,
        help_text="OpenRouter's name for the one budget that a key has: US dollars. null: none. Not beside budgets.",
    )
    limit_reset = serializers.ChoiceField(
        PERIODS,
        allow_null=True,
        required=False,
        help_text="Of which period limit is. A limit needs one: what never begins anew is not kept here.",
    )
    include_byok_in_limit = SwitchField(
        required=False, help_text="Taken and not kept: no key brings a provider's own key along, so none is counted."
    )
    allowed_models = serializers.ListField(
        child=TextField(max_length=MAX_MODEL_CHARS), required=False, max_length=MAX_LIST_ITEMS, help_text="Empty: all."
    )
    allowed_networks = serializers.ListField(
        child=NetworkField(max_length=MAX_NETWORK_CHARS),
        required=False,
        max_length=MAX_LIST_ITEMS // 2,
        help_text="CIDR; empty: everywhere.",
    )


class RotationBody(Body):
    overlap_seconds = WholeField(
        required=False,
        min_value=0,
        max_value=MAX_OVERLAP_SECONDS,
        default=DEFAULT_OVERLAP_SECONDS,
        help_text="How long the secret before goes on working beside the new one. 0: it ends at once.",
    )


class LimitsShown(serializers.Serializer[Any]):
    requests_per_minute = serializers.IntegerField(allow_null=True)
    input_tokens_per_minute = serializers.IntegerField(allow_null=True)
    output_tokens_per_minute = serializers.IntegerField(allow_null=True)
    concurrent_requests = serializers.IntegerField(allow_null=True)


class KeyShown(serializers.Serializer[Any]):
    id = serializers.CharField(help_text="Stays the same when the key is rotated.")
    hash = serializers.CharField(help_text="The same as id, under OpenRouter's name.")
    name = serializers.CharField()
    label = serializers.CharField(  # type: ignore[assignment]  # OpenRouter's name, and DRF's for another thing
        help_text="The secret's beginning and end."
    )
    disabled = serializers.BooleanField()
    limits = LimitsShown()
    budgets = BudgetsShown()
    limit = AmountField(allow_null=True, help_text="The budget in force with the least left; null without any.")
    limit_remaining = AmountField(allow_null=True, help_text="What is left of it.")
    limit_reset = serializers.CharField(allow_null=True, help_text="Which it is: daily, weekly or monthly.")
    include_byok_in_limit = serializers.BooleanField(help_text="Always false: there is nothing of the kind to count.")
    usage = AmountField(help_text="Ever.")
    usage_daily = AmountField()
    usage_weekly = AmountField()
    usage_monthly = AmountField()
    allowed_models = serializers.ListField(child=serializers.CharField())
    allowed_networks = serializers.ListField(child=serializers.CharField())
    owner = serializers.CharField(allow_null=True, help_text="The e-mail address of the member whose key it is.")
    created_by = serializers.CharField(allow_null=True, help_text="The person's e-mail address.")
    created_at = serializers.DateTimeField()
    expires_at = serializers.DateTimeField(allow_null=True)
    last_used_at = serializers.DateTimeField(allow_null=True, help_text="When its latest billed request came in.")
    revoked_at = serializers.DateTimeField(allow_null=True)


class KeyAnswer(serializers.Serializer[Any]):
    data = KeyShown()  # type: ignore[assignment]  # The envelope's name is also one of DRF's own.


class NewKeyAnswer(KeyAnswer):
    key = serializers.CharField(help_text="The secret. It is shown once, and kept nowhere.")


class RevokedKeyAnswer(KeyAnswer):
    deleted = serializers.BooleanField()


class KeyList(PagedAnswer):
    data = KeyShown(many=True)  # type: ignore[assignment]  # The envelope's name is also one of DRF's own.


class KeysView(ManagementView):
    needs = {"GET": Permission.MANAGE_KEYS, "POST": Permission.MANAGE_KEYS}
    takes = PAGE | {"include_revoked", "include_disabled"}

    @extend_schema(
        operation_id="list_keys",
        responses=KeyList,
        parameters=[
            *PAGE_PARAMETERS,
            OpenApiParameter("include_revoked", bool, description="false unless told"),
            OpenApiParameter("include_disabled", bool, description="true unless told"),
        ],
    )
    def get(self, request: Request) -> Response:
        """The keys that call models, newest first."""
        acting = self.acting(request)
        keys = acting.keys().select_related("created_by", "owner")
        if not read_flag(request, "include_revoked"):
            keys = keys.filter(revoked_at=None)
        if not read_flag(request, "include_disabled", default=True):
            keys = keys.filter(disabled_at=None)
        return Response(read_page(request, "keys").of(keys, lambda rows: show_keys(acting, rows)))

    @extend_schema(operation_id="create_key", request=KeyBody, responses={201: NewKeyAnswer})
    @once
    def post(self, request: Request) -> Response:
        """A new key. Its secret is in this answer, and in no other."""
        acting = self.acting(request)
        data = read_body(KeyBody(data=request.data))
        fields = _fields_of(data, ApiKey(), is_whole=True) | _owner_of(acting, data)
        name, owner = fields.pop("name"), fields.pop("owner", acting.person)
        try:
            key, text = create_key(acting.organization, name=name, created_by=acting.person, owner=owner, fields=fields)
        except TooManyKeysError:
            raise ConflictError(
                f"There are {MAX_LIVE_KEYS_PER_ORGANIZATION} live keys already. Revoke one first.", code="too_many_keys"
            ) from None
        except NotAMemberError:
            raise ConflictError("Whose key this would be is no member any more.", code="not_a_member") from None
        if data.get("disabled"):
            disable_key(key, disabled_by=acting.person)
        return Response({"data": show_keys(acting, [key])[0], "key": text}, status=201)


class OneKeyView(ManagementView):
    needs = dict.fromkeys(("GET", "PUT", "PATCH", "DELETE"), Permission.MANAGE_KEYS)

    @extend_schema(operation_id="get_key", responses=KeyAnswer)
    def get(self, request: Request, key_id: str) -> Response:
        """One key, also a revoked one."""
        acting = self.acting(request)
        return Response({"data": show_keys(acting, [find_api_key(acting, key_id)])[0]})

    @extend_schema(operation_id="set_key", request=KeyBody, responses=KeyAnswer)
    def put(self, request: Request, key_id: str) -> Response:
        """Sets all that a key may be; what is left out is set to nothing."""
        return self._change(request, key_id, is_whole=True)

    @extend_schema(operation_id="change_key", request=KeyBody, responses=KeyAnswer)
    def patch(self, request: Request, key_id: str) -> Response:
        """Sets what is there; the rest stays."""
        return self._change(request, key_id, is_whole=False)

    @extend_schema(operation_id="revoke_key", request=None, responses=RevokedKeyAnswer)
    def delete(self, request: Request, key_id: str) -> Response:
        """Revokes the key. Again, it changes nothing."""
        acting = self.acting(request)
        key = find_api_key(acting, key_id)
        try:
            key = revoke_key(key, revoked_by=acting.person)
        except KeyAlreadyRevokedError:
            key.refresh_from_db()
        return Response({"data": show_keys(acting, [key])[0], "deleted": True})

    def _change(self, request: Request, key_id: str, *, is_whole: bool) -> Response:
        acting = self.acting(request)
        key = find_api_key(acting, key_id)
        if key.is_revoked:
            raise ConflictError("This key is revoked, and stays so.", code="key_is_revoked")
        data = read_body(KeyBody(data=request.data, partial=not is_whole))
        fields = _fields_of(data, key, is_whole=is_whole) | _owner_of(acting, data)
        with transaction.atomic():
            if fields:
                key = change_key(key, fields=fields)
            _switch(acting, key, data.get("disabled", False if is_whole else None))
        return Response({"data": show_keys(acting, [key])[0]})


def _switch(acting: Acting, key: ApiKey, disabled: bool | None) -> None:
    """Disable the key, or enable it, by the rule that holds for pages. Raises PermissionDenied."""
    if disabled:
        disable_key(key, disabled_by=acting.person)
    elif disabled is not None:
        try:
            enable_key(key, enabled_by=acting.person, manages_all=acting.may(Permission.MANAGE_ALL_KEYS))
        except DisabledByAnotherError:
            acting.require(Permission.MANAGE_ALL_KEYS)


class RotateKeyView(ManagementView):
    needs = {"POST": Permission.MANAGE_KEYS}

    @extend_schema(operation_id="rotate_key", request=RotationBody, responses=NewKeyAnswer)
    @once
    def post(self, request: Request, key_id: str) -> Response:
        """A new secret for the key. The one before works for `overlap_seconds` more, a day unless told."""
        acting = self.acting(request)
        key = find_api_key(acting, key_id)
        overlap = timedelta(seconds=read_body(RotationBody(data=request.data))["overlap_seconds"])
        try:
            key, text = rotate_secret(key, overlap=overlap)
        except KeyAlreadyRevokedError:
            raise ConflictError("This key is revoked, and stays so.", code="key_is_revoked") from None
        return Response({"data": show_keys(acting, [key])[0], "key": text})


def show_keys(acting: Acting, keys: Sequence[ApiKey]) -> list[dict[str, Any]]:
    """Return keys as the API shows them; what is told of all of them takes a query each."""
    ids = [key.pk for key in keys]
    spent, used = read_spent(acting.organization.pk, key_ids=ids), last_used(acting.organization, ids)
    overrides = overrides_of(acting.organization, Scope.KEY)
    return [show_key(key, spent.get(key.pk, Spent()), used.get(key.pk), overrides.get(str(key.pk))) for key in keys]


def show_key(
    key: ApiKey, spent: Spent, last_used_at: datetime | None, override: BudgetOverride | None
) -> dict[str, Any]:
    daily, weekly, monthly, total = spent.paid_nanos
    return {
        "id": f"{ID_PREFIX}{key.pk}",
        "hash": f"{ID_PREFIX}{key.pk}",
        "name": key.name,
        "label": f"{key.prefix}…{key.last_four}",
        "disabled": key.is_disabled,
        "limits": {name: getattr(key, name) for name in LIMIT_FIELDS},
        "budgets": show_budgets(key, nanos_of(spent), override),
        **show_tightest(key, nanos_of(spent), override),
        "include_byok_in_limit": False,
        "usage": format_usd(total),
        "usage_daily": format_usd(daily),
        "usage_weekly": format_usd(weekly),
        "usage_monthly": format_usd(monthly),
        "allowed_models": key.allowed_models,
        "allowed_networks": key.allowed_networks,
        "owner": key.owner.email if key.owner else None,
        "created_by": key.created_by.email if key.created_by else None,
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "last_used_at": last_used_at,
        "revoked_at": key.revoked_at,
    }


def _fields_of(data: Mapping[str, Any], key: ApiKey, *, is_whole: bool) -> dict[str, Any]:
    """Return the columns that a body sets. Raises ValidationError for unknown models and a moment that has passed."""
    fields: dict[str, Any] = {"name": data["name"]} if "name" in data else {}
    if is_whole or "limits" in data:
        limits = data.get("limits", {})
        fields |= {name: limits.get(name) for name in LIMIT_FIELDS if is_whole or name in limits}
    if is_whole or "budgets" in data:
        fields |= budget_fields(data.get("budgets", {}), is_whole=is_whole)
    limit = read_key_limit(data, key, is_whole=is_whole)
    if limit is not None:
        fields |= limit.as_fields()
    if is_whole or "expires_at" in data:
        moment = fields["expires_at"] = data.get("expires_at")
        if moment is not None and moment != key.expires_at and moment <= timezone.now():
            raise ValidationError({"expires_at": ["This moment has passed. To end a key at once, revoke it."]})
    if is_whole or "allowed_networks" in data:
        fields["allowed_networks"] = list(dict.fromkeys(data.get("allowed_networks", [])))
    if is_whole or "allowed_models" in data:
        names = data.get("allowed_models", [])
        try:
            fields["allowed_models"] = (
                find_model_ids(names, by_name=model_ids_by_name(), kept=key.allowed_models) if names else []
            )
        except UnknownModelsError as error:
            raise ValidationError({"allowed_models": [str(error)]}) from None
    return fields


def _owner_of(acting: Acting, data: Mapping[str, Any]) -> dict[str, User | None]:
    """Return whose key it shall be, where that is said. Raises ValidationError, and PermissionDenied as a page would.

    Who manages only their own keys gives none away.
    """
    if "owner" not in data:
        return {}
    email = data["owner"]
    if not acting.may(Permission.MANAGE_ALL_KEYS):
        if acting.person is None or (email or "").lower() != acting.person.email.lower():
            acting.require(Permission.MANAGE_ALL_KEYS)
        return {"owner": acting.person}
    if email is None:
        return {"owner": None}
    member = acting.organization.members.select_related("user").filter(user__email__iexact=email).first()
    if member is None:
        raise ValidationError({"owner": ["This is the address of no member."]})
    return {"owner": member.user}


def find_api_key(acting: Acting, text: str) -> ApiKey:
    """Return the key with this id, as far as the acting key may see it. Raises Http404 alike for all others."""
    return find_row(acting.keys().select_related("created_by", "owner"), ID_PREFIX, text)
