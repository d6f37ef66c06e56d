"""`/api/v1/budgets`: what may be spent, by the organization, and by each of its members and end users."""

from typing import Any

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.access import Permission
from accounts.models import Organization
from accounts.organizations import change_organization
from api.budget_fields import BudgetsBody, BudgetsShown, amounts_of, budget_fields, nanos_of, show_budgets
from api.budget_holders import (
    budgets_seen,
    find_budget,
    find_end_user,
    find_member,
    refuse,
    show_spender_budgets,
)
from api.fields import TextField, read_body
from api.management import ManagementView
from api.paging import PAGE, PAGE_PARAMETERS, PagedAnswer, read_page
from billing.budgets.amounts import BudgetError
from billing.budgets.choices import remove_spender_budget, set_end_user_budget, set_member_budget
from billing.budgets.overrides import Scope, overrides_of
from billing.budgets.spenders import END_USER, EVERYBODY, MEMBER, digest_of
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


class MemberBudgetsView(ManagementView):
    needs = {"GET": Permission.SEE_USAGE}
    takes = PAGE

    @extend_schema(operation_id="list_member_budgets", responses=MemberBudgetsList, parameters=PAGE_PARAMETERS)
    def get(self, request: Request) -> Response:
        """The budgets of members, with the default. Who does not manage members sees their own."""
        acting = self.acting(request)
        page = read_page(request, "member-budgets")
        return Response(page.of(budgets_seen(acting, MEMBER), lambda rows: show_spender_budgets(acting, rows, MEMBER)))


@extend_schema(parameters=[MEMBER_PARAMETER])
class OneMemberBudgetView(ManagementView):
    needs = {"GET": Permission.SEE_USAGE, **CHANGES}

    @extend_schema(operation_id="get_member_budget", responses=MemberBudgetsAnswer)
    def get(self, request: Request, member_id: str) -> Response:
        """The budget of one member, if they have one of their own."""
        acting = self.acting(request)
        budget = find_budget(acting, find_member(acting, member_id))
        return Response({"data": show_spender_budgets(acting, [budget], MEMBER)[0]})

    @extend_schema(operation_id="set_member_budget", request=BudgetsBody, responses=MemberBudgetsAnswer)
    def put(self, request: Request, member_id: str) -> Response:
        """Sets all of it; at least one period has an amount. It counts what the member's keys spend."""
        acting = self.acting(request)
        spending = find_member(acting, member_id)
        data = read_body(BudgetsBody(data=request.data))
        try:
            budget = set_member_budget(
                acting.organization,
                member=spending.member,
                amounts=amounts_of(data),
                only_notifies=data.get("only_notifies", False),
                actor=acting.name,
            )
        except BudgetError as error:
            raise refuse(error) from None
        return Response({"data": show_spender_budgets(acting, [budget], MEMBER)[0]})

    @extend_schema(operation_id="remove_member_budget", request=None, responses=RemovedMemberBudgetsAnswer)
    def delete(self, request: Request, member_id: str) -> Response:
        """Takes it back, with what overrides it. Whoever had it has the default from then on."""
        acting = self.acting(request)
        budget = find_budget(acting, find_member(acting, member_id))
        shown = show_spender_budgets(acting, [budget], MEMBER)[0]
        remove_spender_budget(budget, actor=acting.name)
        return Response({"data": shown, "deleted": True})


class EndUserBudgetsView(ManagementView):
    needs = {"GET": Permission.SEE_USAGE}
    takes = PAGE

    @extend_schema(operation_id="list_end_user_budgets", responses=EndUserBudgetsList, parameters=PAGE_PARAMETERS)
    def get(self, request: Request) -> Response:
        """The budgets of end users, with the default."""
        acting = self.acting(request)
        page = read_page(request, "user-budgets")
        rows = budgets_seen(acting, END_USER)
        return Response(page.of(rows, lambda found: show_spender_budgets(acting, found, END_USER)))


@extend_schema(parameters=[END_USER_PARAMETER])
class OneEndUserBudgetView(ManagementView):
    needs = {"GET": Permission.SEE_USAGE, **CHANGES}

    @extend_schema(operation_id="get_end_user_budget", responses=EndUserBudgetsAnswer)
    def get(self, request: Request, end_user: str) -> Response:
        """The budget of one end user, if they have one of their own."""
        acting = self.acting(request)
        budget = find_budget(acting, find_end_user(acting, end_user))
        return Response({"data": show_spender_budgets(acting, [budget], END_USER)[0]})

    @extend_schema(operation_id="set_end_user_budget", request=EndUserBudgetsBody, responses=EndUserBudgetsAnswer)
    def put(self, request: Request, end_user: str) -> Response:
        """Sets all of it; at least one period has an amount. The end user need not have asked for anything yet."""
        acting = self.acting(request)
        spending = find_end_user(acting, end_user)
        data = read_body(EndUserBudgetsBody(data=request.data))
        text = data.get("end_user", spending.text)
        if digest_of(text) != spending.holder.id:
            said = "This is not the end user of the address." if text else "Who this is must be said once."
            raise ValidationError({"end_user": [said]})
        try:
            budget = set_end_user_budget(
                acting.organization,
                end_user=EVERYBODY if spending.is_default else text,
                amounts=amounts_of(data),
                only_notifies=data.get("only_notifies", False),
                actor=acting.name,
            )
        except BudgetError as error:
            raise refuse(error) from None
        return Response({"data": show_spender_budgets(acting, [budget], END_USER)[0]})

    @extend_schema(operation_id="remove_end_user_budget", request=None, responses=RemovedEndUserBudgetsAnswer)
    def delete(self, request: Request, end_user: str) -> Response:
        """Takes it back, with what overrides it. Whoever had it has the default from then on."""
        acting = self.acting(request)
        budget = find_budget(acting, find_end_user(acting, end_user))
        shown = show_spender_budgets(acting, [budget], END_USER)[0]
        remove_spender_budget(budget, actor=acting.name)
        return Response({"data": shown, "deleted": True})


def _show(organization: Organization) -> dict[str, Any]:
    spent = read_spent(organization.pk).get(WHOLE_ORGANIZATION, Spent())
    override = overrides_of(organization, Scope.ORGANIZATION).get(EVERYBODY)
    return show_budgets(organization, nanos_of(spent), override)
