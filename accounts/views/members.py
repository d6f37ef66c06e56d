"""Members: list, add somebody who has signed up, change roles, remove."""

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_POST

from accounts.access import Access, Permission, console_page
from accounts.forms import MemberForm, RoleForm
from accounts.members import (
    AlreadyMemberError,
    LastOwnerError,
    TooManyMembersError,
    add_member,
    change_role,
    remove_member,
)
from accounts.models import Member, Role, User

MAX_MEMBERS_SHOWN = 1000


@require_http_methods(["GET", "POST"])
@console_page(Permission.MANAGE_MEMBERS)
def members(request: HttpRequest, access: Access) -> HttpResponse:
    """List members; a POST adds one by e-mail."""
    form = MemberForm(request.POST or None, roles=_grantable(access))
    if request.method == "POST" and form.is_valid() and _add(request, access, form):
        return redirect("members", slug=access.organization.slug)
    found = access.organization.members.select_related("user")[:MAX_MEMBERS_SHOWN]
    context = {
        "form": form,
        "rows": [(member, _may_touch(access, member)) for member in found],
        "roles": _grantable(access),
        "count": len(found),
    }
    return render(request, "accounts/members.html", context, status=422 if request.method == "POST" else 200)


@require_POST
@console_page(Permission.MANAGE_MEMBERS)
def member_role(request: HttpRequest, access: Access, member_id: int) -> HttpResponse:
    member = _touchable_member(access, member_id)
    form = RoleForm(request.POST, roles=_grantable(access))
    if not form.is_valid():
        raise PermissionDenied
    try:
        change_role(member, role=Role(form.cleaned_data["role"]))
    except LastOwnerError:
        messages.error(request, "An organization keeps at least one owner. Make somebody else owner first.")
    else:
        messages.success(request, f"{member.user.email} is now {Role(form.cleaned_data['role']).label.lower()}.")
    return redirect("members", slug=access.organization.slug)


@require_POST
@console_page(Permission.MANAGE_MEMBERS)
def member_remove(request: HttpRequest, access: Access, member_id: int) -> HttpResponse:
    member = _touchable_member(access, member_id)
    try:
        remove_member(member)
    except LastOwnerError:
        messages.error(request, "An organization keeps at least one owner. Make somebody else owner first.")
    else:
        messages.success(request, f"{member.user.email} is no longer a member. Keys they made go on working.")
    if member.user_id == access.user.pk:
        return redirect("console")
    return redirect("members", slug=access.organization.slug)


def _add(request: HttpRequest, access: Access, form: MemberForm) -> bool:
    user = User.objects.filter(email__iexact=form.cleaned_data["email"], is_active=True).first()
    if user is None:
        form.add_error("email", "Nobody has signed up with this address yet. Ask them to, then add them here.")
        return False
    try:
        add_member(access.organization, user=user, role=Role(form.cleaned_data["role"]))
    except AlreadyMemberError:
        form.add_error("email", "Already a member. Change the role in the list below.")
        return False
    except TooManyMembersError:
        form.add_error(None, "The organization has as many members as it can have.")
        return False
    messages.success(request, f"{user.email} is a member now.")
    return True


def _grantable(access: Access) -> list[Role]:
    """Only owners make owners."""
    return [role for role in Role if role != Role.OWNER or access.may(Permission.GRANT_OWNERSHIP)]


def _may_touch(access: Access, member: Member) -> bool:
    return member.role != Role.OWNER or access.may(Permission.GRANT_OWNERSHIP)


def _touchable_member(access: Access, member_id: int) -> Member:
    member = access.organization.members.select_related("user").filter(pk=member_id).first()
    if member is None:
        raise Http404
    if not _may_touch(access, member):
        raise PermissionDenied
    return member
