"""`/api/v1/budgets`: what may be spent, by the organization, and by each of its members and end users."""

from collections.abc import Mapping
from typing import Any

from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_view
from rest_framework import serializers
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.access import Permission
from accounts.models import Organization
from accounts.organizations import change_organization
from api.budget_fields import BudgetsBody, BudgetsShown, amounts_of, budget_fields, nanos_of, show_budgets
from api.budget_holders import (
    Spending,
    budgets_seen,
    find_budget,
    find_end_user,
    find_member,
    refuse,
    show_budget_in_force,
    show_spender_budgets,
)
from api.fields import TextField, read_body
from api.management import Acting, ManagementView
from api.paging import PAGE, PAGE_PARAMETERS, PagedAnswer, read_page
from billing.budgets.amounts import BudgetError
from billing.budgets.choices import remove_spender_budget, set_end_user_budget, set_member_budget
from billing.budgets.overrides import Scope, overrides_of
from billing.budgets.spenders import END_USER, EVERYBODY, MEMBER, digest_of
from billing.models import SpenderBudget
from billing.usage.budgets import WHOLE_ORGANIZATION, Spent, read_spent
from billing.usage_event import MAX_END_USER_CHARS

CHANGES = dict.fromkeys(("PUT", "DELETE"), Permission.MANAGE_ORGANIZATION)
END_USER_PARAMETER = OpenApiParameter(
    "end_user",
    str,
    OpenApiParameter.PATH,
    description="What requests name the end user by, percent-encoded; or the id; or `default`: everybody without one.",
)
MEMBER_PARAMETER = OpenApiParameter(
    "member_id", str, OpenApiParameter.PATH, description="The id of a member; or `default`: everybody without one."
)


class EndUserBudgetsBody(BudgetsBody):
    end_user = TextField(
        required=False,
        max_length=MAX_END_USER_CHARS,
        help_text="What requests name the end user by: needed where the address has an id that is new here.",
    )


class BudgetsAnswer(serializers.Serializer[Any]):
    data = BudgetsShown()  # type: ignore[assignment]  # The envelope's name is also one of DRF's own.


class SpenderBudgetsShown(BudgetsShown):
    is_default = serializers.BooleanField(help_text="It is the default: who is asked about has none of their own.")
    changed_by = serializers.CharField()
    changed_at = serializers.DateTimeField()


class MemberBudgetsShown(SpenderBudgetsShown):
    id = serializers.CharField(help_text="Of the member; `default`: of every member without one of their own.")
    email = serializers.CharField(allow_null=True)


class EndUserBudgetsShown(SpenderBudgetsShown):
    id = serializers.CharField(help_text="enduser_ and the first 32 hex digits of the SHA-256 of end_user; `default`.")
    end_user = serializers.CharField(allow_null=True)


class MemberBudgetsAnswer(serializers.Serializer[Any]):
    data = MemberBudgetsShown()  # type: ignore[assignment]  # The envelope's name is also one of DRF's own.


class MemberBudgetsList(PagedAnswer):
    data = MemberBudgetsShown(many=True)  # type: ignore[assignment]  # The envelope's name is also one of DRF's own.


class RemovedMemberBudgetsAnswer(MemberBudgetsAnswer):
    deleted = serializers.BooleanField()


class EndUserBudgetsAnswer(serializers.Serializer[Any]):
    data = EndUserBudgetsShown()  # type: ignore[assignment]  # The envelope's name is also one of DRF's own.


class EndUserBudgetsList(PagedAnswer):
    data = EndUserBudgetsShown(many=True)  # type: ignore[assignment]  # The envelope's name is also one of DRF's own.


class RemovedEndUserBudgetsAnswer(EndUserBudgetsAnswer):
    deleted = serializers.BooleanField()


class BudgetsView(ManagementView):
    needs = {"GET": Permission.SEE_USAGE, "PUT": Permission.MANAGE_ORGANIZATION}

    @extend_schema(operation_id="get_budgets", responses=BudgetsAnswer)
    def get(self, request: Request) -> Response:
        """The budgets of the organization, and how much of each is spent."""
        return Response({"data": _show(self.acting(request).organization)})

    @extend_schema(operation_id="set_budgets", request=BudgetsBody, responses=BudgetsAnswer)
    def put(self, request: Request) -> Response:
        """Sets all budgets of the organization; one that is left out is none."""
        data = read_body(BudgetsBody(data=request.data))
        fields = budget_fields(data, is_whole=True)
        return Response({"data": _show(change_organization(self.acting(request).organization, fields=fields))})


class SpenderBudgetsView(ManagementView):
    """The budgets of a scope, page by page."""

    needs = {"GET": Permission.SEE_USAGE}
    takes = PAGE
    scope = ""
    cursors = ""  # What a cursor of this list is marked by: it opens no other.

    def get(self, request: Request) -> Response:
        """The budgets that are set, with the default."""
        acting = self.acting(request)
        page = read_page(request, self.cursors)
        rows = budgets_seen(acting, self.scope)
        return Response(page.of(rows, lambda found: show_spender_budgets(acting, found, self.scope)))


class SpenderBudgetView(ManagementView):
    """The budget of one spender, or the default; whoever inherits from it finds whose it is, and saves it."""

    needs = {"GET": Permission.SEE_USAGE, **CHANGES}
    body: type[BudgetsBody] = BudgetsBody

    def find(self, acting: Acting, **words: str) -> Spending:
        raise NotImplementedError

    def save(self, acting: Acting, spending: Spending, body: Mapping[str, Any], **values: Any) -> SpenderBudget:
        raise NotImplementedError

    def get(self, request: Request, **words: str) -> Response:
        """The budget that holds: their own, or the default, as `is_default` says; 404 where there is neither."""
        acting = self.acting(request)
        return Response({"data": show_budget_in_force(acting, self.find(acting, **words))})

    def put(self, request: Request, **words: str) -> Response:
        """Sets all of it; at least one period has an amount."""
        acting = self.acting(request)
        spending = self.find(acting, **words)
        data = read_body(self.body(data=request.data))
        values = {"amounts": amounts_of(data), "only_notifies": data.get("only_notifies", False), "actor": acting.name}
        try:
            budget = self.save(acting, spending, data, **values)
        except BudgetError as error:
            raise refuse(error) from None
        return Response({"data": show_spender_budgets(acting, [budget], spending.holder.scope)[0]})

    def delete(self, request: Request, **words: str) -> Response:
        """Takes it back, with what overrides it. Whoever had it has the default from then on; 404 where it is that."""
        acting = self.acting(request)
        budget = find_budget(acting, self.find(acting, **words))
        shown = show_spender_budgets(acting, [budget], budget.scope)[0]
        remove_spender_budget(budget, actor=acting.name)
        return Response({"data": shown, "deleted": True})


def _described(whose: str, *, body: Any, answer: Any, removed: Any, parameter: OpenApiParameter) -> Any:
    """Name the three calls of a view in the schema."""
    named = {"responses": answer, "parameters": [parameter]}
    return extend_schema_view(
        get=extend_schema(operation_id=f"get_{whose}_budget", **named),
        put=extend_schema(operation_id=f"set_{whose}_budget", request=body, **named),
        delete=extend_schema(
            operation_id=f"remove_{whose}_budget", request=None, responses=removed, parameters=[parameter]
        ),
    )


@extend_schema_view(
    get=extend_schema(operation_id="list_member_budgets", responses=MemberBudgetsList, parameters=PAGE_PARAMETERS)
)
class MemberBudgetsView(SpenderBudgetsView):
    """Who does not manage members sees their own."""

    scope, cursors = MEMBER, "member-budgets"


@extend_schema_view(
    get=extend_schema(operation_id="list_end_user_budgets", responses=EndUserBudgetsList, parameters=PAGE_PARAMETERS)
)
class EndUserBudgetsView(SpenderBudgetsView):
    scope, cursors = END_USER, "user-budgets"


@_described(
    "member",
    body=BudgetsBody,
    answer=MemberBudgetsAnswer,
    removed=RemovedMemberBudgetsAnswer,
    parameter=MEMBER_PARAMETER,
)
class OneMemberBudgetView(SpenderBudgetView):
    """It counts what the keys that the member owns spend."""

    def find(self, acting: Acting, **words: str) -> Spending:
        return find_member(acting, words["member_id"])

    def save(self, acting: Acting, spending: Spending, body: Mapping[str, Any], **values: Any) -> SpenderBudget:
        return set_member_budget(acting.organization, member=spending.member, **values)


@_described(
    "end_user",
    body=EndUserBudgetsBody,
    answer=EndUserBudgetsAnswer,
    removed=RemovedEndUserBudgetsAnswer,
    parameter=END_USER_PARAMETER,
)
class OneEndUserBudgetView(SpenderBudgetView):
    """The end user need not have asked for anything yet."""

    body = EndUserBudgetsBody

    def find(self, acting: Acting, **words: str) -> Spending:
        return find_end_user(acting, words["end_user"])

    def save(self, acting: Acting, spending: Spending, body: Mapping[str, Any], **values: Any) -> SpenderBudget:
        text = body.get("end_user", spending.text)
        if digest_of(text) != spending.holder.id:
            said = "This is not the end user of the address." if text else "Who this is must be said once."
            raise ValidationError({"end_user": [said]})
        return set_end_user_budget(acting.organization, end_user=text, **values)


def _show(organization: Organization) -> dict[str, Any]:
    spent = read_spent(organization.pk).get(WHOLE_ORGANIZATION, Spent())
    override = overrides_of(organization, Scope.ORGANIZATION).get(EVERYBODY)
    return show_budgets(organization, nanos_of(spent), override)
