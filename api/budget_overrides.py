"""Overrides of budgets: other amounts for a while, with until when, who and why."""

from collections.abc import Callable
from typing import Any, TypeVar

from django.http import Http404
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.access import Permission
from accounts.models import Member, Organization
from api.budget_fields import AmountsBody, OverrideShown, amounts_of, show_override
from api.budget_holders import DEFAULT, END_USER_PREFIX, MEMBER_PREFIX, find_end_user, find_member, refuse
from api.budgets import END_USER_PARAMETER, MEMBER_PARAMETER
from api.fields import TextField, read_body
from api.keys import ID_PREFIX as KEY_PREFIX
from api.keys import find_api_key
from api.management import Acting, ManagementView
from api.paging import PAGE, PAGE_PARAMETERS, PagedAnswer, read_page
from billing.budgets.amounts import BudgetError, Holder
from billing.budgets.overrides import (
    MAX_REASON_CHARS,
    Scope,
    end_override,
    find_override,
    make_override,
    open_overrides,
)
from billing.models import BudgetOverride

View = TypeVar("View", bound=type)


class OverrideBody(AmountsBody):
    """Amounts that stand in for the budget; a period that is left out keeps its own. At least one is there."""

    until = serializers.DateTimeField(help_text="It ends by itself then; 92 days ahead at most.")
    reason = TextField(max_length=MAX_REASON_CHARS)


class OverrideAnswer(serializers.Serializer[Any]):
    data = OverrideShown()  # type: ignore[assignment]  # The envelope's name is also one of DRF's own.


class EndedOverrideAnswer(OverrideAnswer):
    deleted = serializers.BooleanField()


class ListedOverride(OverrideShown):
    scope = serializers.ChoiceField(choices=BudgetOverride.Scope.choices)
    id = serializers.CharField(
        allow_null=True, help_text="Of the key, the member or the end user; `default`; null: of the organization."
    )


class OverrideList(PagedAnswer):
    data = ListedOverride(many=True)  # type: ignore[assignment]  # The envelope's name is also one of DRF's own.


class OverridesView(ManagementView):
    needs = {"GET": Permission.MANAGE_ORGANIZATION}
    takes = PAGE

    @extend_schema(operation_id="list_budget_overrides", responses=OverrideList, parameters=PAGE_PARAMETERS)
    def get(self, request: Request) -> Response:
        """All overrides that stand now, those made last first."""
        organization = self.acting(request).organization
        page = read_page(request, "overrides")
        return Response(page.of(open_overrides(organization), lambda rows: _list(organization, rows)))


class OverrideView(ManagementView):
    """The one override of a budget; whoever inherits from it finds whose budget it is."""

    needs = dict.fromkeys(("GET", "PUT", "DELETE"), Permission.MANAGE_ORGANIZATION)

    def find(self, acting: Acting, **words: str) -> Holder:
        raise NotImplementedError

    def get(self, request: Request, **words: str) -> Response:
        """What overrides the budget now; 404 when nothing does."""
        acting = self.acting(request)
        return Response({"data": show_override(_stands(acting, self.find(acting, **words)))})

    def put(self, request: Request, **words: str) -> Response:
        """Lets other amounts stand in until a time. The same again changes nothing; another ends the one before."""
        acting = self.acting(request)
        holder = self.find(acting, **words)
        data = read_body(OverrideBody(data=request.data))
        try:
            made = make_override(
                acting.organization,
                holder=holder,
                amounts=amounts_of(data),
                until=data["until"],
                reason=data["reason"],
                actor=acting.name,
            )
        except BudgetError as error:
            raise refuse(error) from None
        return Response({"data": show_override(made)})

    def delete(self, request: Request, **words: str) -> Response:
        """Ends it before its time: the budget holds again."""
        acting = self.acting(request)
        holder = self.find(acting, **words)
        shown = show_override(_stands(acting, holder))
        end_override(acting.organization, holder=holder, actor=acting.name)
        return Response({"data": shown, "deleted": True})


def _described(whose: str, *parameters: Any) -> Callable[[View], View]:
    """Name the three calls of a view in the schema."""
    return extend_schema_view(
        get=extend_schema(operation_id=f"get_{whose}_override", responses=OverrideAnswer, parameters=[*parameters]),
        put=extend_schema(
            operation_id=f"set_{whose}_override",
            request=OverrideBody,
            responses=OverrideAnswer,
            parameters=[*parameters],
        ),
        delete=extend_schema(
            operation_id=f"end_{whose}_override",
            request=None,
            responses=EndedOverrideAnswer,
            parameters=[*parameters],
        ),
    )


@_described("budget")
class OrganizationOverrideView(OverrideView):
    def find(self, acting: Acting, **words: str) -> Holder:
        return Holder(Scope.ORGANIZATION)


@_described("key_budget")
class KeyOverrideView(OverrideView):
    def find(self, acting: Acting, **words: str) -> Holder:
        key = find_api_key(acting, words["key_id"])
        return Holder(Scope.KEY, str(key.pk))


@_described("member_budget", MEMBER_PARAMETER)
class MemberOverrideView(OverrideView):
    def find(self, acting: Acting, **words: str) -> Holder:
        return find_member(acting, words["member_id"]).holder


@_described("end_user_budget", END_USER_PARAMETER)
class EndUserOverrideView(OverrideView):
    def find(self, acting: Acting, **words: str) -> Holder:
        return find_end_user(acting, words["end_user"]).holder


def _stands(acting: Acting, holder: Holder) -> BudgetOverride:
    override = find_override(acting.organization.pk, holder)
    if override is None:
        raise Http404
    return override


def _list(organization: Organization, rows: Any) -> list[dict[str, Any]]:
    users = [int(row.holder) for row in rows if row.scope == Scope.MEMBER and row.holder]
    members = {member.user_id: member for member in Member.objects.filter(organization=organization, user__in=users)}
    return [{"scope": row.scope, "id": _shown_id(row, members), **show_override(row)} for row in rows]


def _shown_id(row: BudgetOverride, members: dict[int, Member]) -> str | None:
    if row.scope == Scope.ORGANIZATION:
        return None
    if row.scope == Scope.KEY:
        return f"{KEY_PREFIX}{row.holder}"
    if not row.holder:
        return DEFAULT
    if row.scope == Scope.END_USER:
        return f"{END_USER_PREFIX}{row.holder}"
    member = members.get(int(row.holder))
    return f"{MEMBER_PREFIX}{member.pk}" if member else None
