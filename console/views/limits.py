"""Limits and budgets: what is in force, how near it is, what was refused lately; budgets and overrides to change."""

from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from accounts.access import Access, Permission
from accounts.keys import change_key
from accounts.organizations import change_organization
from billing.budgets.amounts import BudgetError
from billing.budgets.choices import remove_spender_budget, set_end_user_budget, set_member_budget
from billing.budgets.overrides import Scope, end_override, make_override
from billing.budgets.refused import latest_refusals, refusals_by_day
from billing.budgets.standing import HAS_LIMITS, LIMITS, MAX_LISTED, StandingReader
from billing.usage_event import MAX_END_USER_CHARS
from console.budget_page import BudgetPage, find_budget_page
from console.entrance import console_page
from console.forms.budgets import NOTIFY, REFUSE, BudgetForm, EndUserBudgetForm, OverrideForm
from pages.publishing import publish_or_tell

MAX_MEMBERS_READ = 1_000
REFUSALS_SHOWN = 20


@require_safe
@console_page(Permission.SEE_USAGE)
def limits(request: HttpRequest, access: Access) -> HttpResponse:
    """Show limits and budgets. A member without more permissions sees, of keys and members, only their own."""
    organization = access.organization
    reader = StandingReader(organization)
    keys = access.keys().filter(HAS_LIMITS, revoked_at=None, is_management=False).only("organization", "name", *LIMITS)
    members = organization.members.select_related("user").order_by("user__email")
    if not access.may(Permission.MANAGE_MEMBERS):
        members = members.filter(user=access.user)
    end_user = request.GET.get("end_user", "").strip()[:MAX_END_USER_CHARS]
    members_read = list(members[:MAX_MEMBERS_READ])
    refusals = latest_refusals(organization, limit=REFUSALS_SHOWN)
    refused_keys = organization.keys.filter(pk__in={refused.key_id for refused in refusals})
    context = {
        "organization_standing": reader.read_organization(),
        "keys": reader.read_keys(list(keys)),
        "members": reader.read_members(members_read),
        "all_members": members_read if access.may(Permission.MANAGE_ORGANIZATION) else [],
        "end_users": reader.read_end_users(end_user=end_user),
        "defaults": reader.read_defaults(),
        "end_user": end_user,
        "most": MAX_LISTED,
        "refused_days": refusals_by_day(organization, today=reader.today),
        "refusals": refusals,
        "key_names": dict(refused_keys.values_list("pk", "name")),
    }
    return render(request, "console/limits.html", {**context, "is_current": reader.is_current})


@require_http_methods(["GET", "POST"])
@console_page(Permission.MANAGE_ORGANIZATION)
def budget(request: HttpRequest, access: Access, scope: str, holder: str) -> HttpResponse:
    """Change the budgets of one holder; with `all` as its holder, the default of a scope."""
    page = _find(access, scope, holder)
    form = BudgetForm(request.POST or None, initial=_initial(page))
    if request.method == "POST" and form.is_valid():
        try:
            _save(access, page, form)
        except BudgetError as error:
            form.add_error(None, str(error))
        else:
            publish_or_tell(request, done=f"Budget of {page.label} saved.")
            return redirect("limits", slug=access.organization.slug)
    return _render(request, page, form, OverrideForm(), status=422 if request.method == "POST" else 200)


@require_http_methods(["GET", "POST"])
@console_page(Permission.MANAGE_ORGANIZATION)
def end_user_budget_new(request: HttpRequest, access: Access) -> HttpResponse:
    """Give an end user a budget of their own, by the id that clients send."""
    form = EndUserBudgetForm(
        request.POST or None, initial={"effect": REFUSE, "end_user": request.GET.get("end_user", "")}
    )
    if request.method == "POST" and form.is_valid():
        try:
            set_end_user_budget(
                access.organization,
                end_user=form.cleaned_data["end_user"],
                amounts=form.amounts,
                only_notifies=form.only_notifies,
                actor=access.user.email,
            )
        except BudgetError as error:
            form.add_error(None, str(error))
        else:
            publish_or_tell(request, done=f"Budget of {form.cleaned_data['end_user']} saved.")
            return redirect("limits", slug=access.organization.slug)
    status = 422 if request.method == "POST" else 200
    return render(request, "console/budget_end_user_new.html", {"form": form}, status=status)


@require_POST
@console_page(Permission.MANAGE_ORGANIZATION)
def budget_remove(request: HttpRequest, access: Access, scope: str, holder: str) -> HttpResponse:
    """Take the budget of a member or an end user back, or a default."""
    page = _find(access, scope, holder)
    if page.budget is None:
        messages.info(request, f"There is no budget of {page.label}.")
    else:
        remove_spender_budget(page.budget, actor=access.user.email)
        publish_or_tell(request, done=f"Budget of {page.label} removed.", what_waits="Removed.")
    return redirect("limits", slug=access.organization.slug)


@require_POST
@console_page(Permission.MANAGE_ORGANIZATION)
def budget_override(request: HttpRequest, access: Access, scope: str, holder: str) -> HttpResponse:
    """Let other amounts stand in for a budget until a time."""
    page = _find(access, scope, holder)
    form = OverrideForm(request.POST)
    if form.is_valid():
        try:
            make_override(
                access.organization,
                holder=page.holder,
                amounts=form.amounts,
                until=form.cleaned_data["until"],
                reason=form.cleaned_data["reason"],
                actor=access.user.email,
            )
        except BudgetError as error:
            form.add_error(None, str(error))
        else:
            publish_or_tell(request, done=f"The budget of {page.label} is overridden for a while.")
            return redirect("budget", slug=access.organization.slug, scope=scope, holder=holder)
    return _render(request, page, BudgetForm(initial=_initial(page)), form, status=422)


@require_POST
@console_page(Permission.MANAGE_ORGANIZATION)
def budget_override_end(request: HttpRequest, access: Access, scope: str, holder: str) -> HttpResponse:
    """End an override before its time."""
    page = _find(access, scope, holder)
    if end_override(access.organization, holder=page.holder, actor=access.user.email):
        publish_or_tell(request, done=f"The budget of {page.label} holds again.")
    else:
        messages.info(request, "There is no override any more.")
    return redirect("budget", slug=access.organization.slug, scope=scope, holder=holder)


def _find(access: Access, scope: str, holder: str) -> BudgetPage:
    page = find_budget_page(access.organization, scope, holder)
    if page is None:
        raise Http404
    return page


def _initial(page: BudgetPage) -> dict[str, Any]:
    limits = page.limits
    if limits is None:
        return {"effect": REFUSE}
    names = ("daily_budget_nanos", "weekly_budget_nanos", "monthly_budget_nanos")
    return {
        **{name: getattr(limits, name) for name in names},
        "effect": NOTIFY if limits.budgets_only_notify else REFUSE,
    }


def _save(access: Access, page: BudgetPage, form: BudgetForm) -> None:
    """Raises BudgetError."""
    values: dict[str, Any] = {"amounts": form.amounts, "only_notifies": form.only_notifies, "actor": access.user.email}
    fields = {**form.amounts.as_fields(), "budgets_only_notify": form.only_notifies}
    if page.holder.scope == Scope.ORGANIZATION:
        change_organization(access.organization, fields=fields)
    elif page.key is not None:
        change_key(page.key, fields=fields)
    elif page.holder.scope == Scope.MEMBER:
        set_member_budget(access.organization, member=page.member, **values)
    else:
        set_end_user_budget(access.organization, end_user=page.end_user, **values)


def _render(
    request: HttpRequest, page: BudgetPage, form: BudgetForm, override_form: OverrideForm, *, status: int
) -> HttpResponse:
    context = {"page": page, "form": form, "override_form": override_form}
    return render(request, "console/budget.html", context, status=status)
