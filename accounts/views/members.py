"""Members: list, invite, change roles, remove."""

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_POST

from accounts.access import Access, Permission, console_page
from accounts.forms import InvitationForm, RoleForm
from accounts.invitations import TooManyInvitationsError, invite, open_invitations, withdraw_invitation
from accounts.members import AlreadyMemberError, LastOwnerError, change_role, remove_member
from accounts.models import Member, Role
from accounts.views.invitations import mail_invitation

MAX_MEMBERS_SHOWN = 1000


@require_http_methods(["GET", "POST"])
@console_page(Permission.MANAGE_MEMBERS)
def members(request: HttpRequest, access: Access) -> HttpResponse:
    """List members and open invitations; a POST invites somebody by e-mail."""
    form = InvitationForm(request.POST or None, roles=_grantable(access))
    if request.method == "POST" and form.is_valid() and _invite(request, access, form):
        return redirect("members", slug=access.organization.slug)
    found = access.organization.members.select_related("user")[:MAX_MEMBERS_SHOWN]
    context = {
        "form": form,
        "rows": [(member, _may_touch(access, member)) for member in found],
        "invitations": [
            (waiting, _may_withdraw(access, waiting.role)) for waiting in open_invitations(access.organization)
        ],
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


@require_POST
@console_page(Permission.MANAGE_MEMBERS)
def invitation_withdraw(request: HttpRequest, access: Access, invitation_id: int) -> HttpResponse:
    invitation = access.organization.invitations.filter(pk=invitation_id).first()
    if invitation is None:
        raise Http404
    if not _may_withdraw(access, invitation.role):
        raise PermissionDenied
    if withdraw_invitation(invitation):
        messages.success(request, f"The invitation of {invitation.email} is withdrawn.")
    return redirect("members", slug=access.organization.slug)


def _invite(request: HttpRequest, access: Access, form: InvitationForm) -> bool:
    try:
        invitation, token = invite(
            access.organization,
            email=form.cleaned_data["email"],
            role=Role(form.cleaned_data["role"]),
            invited_by=access.user,
        )
    except AlreadyMemberError:
        form.add_error("email", "Already a member. Change the role in the list below.")
        return False
    except TooManyInvitationsError as error:
        form.add_error(None, str(error))
        return False
    mail_invitation(request, invitation, token)
    messages.success(request, f"{invitation.email} is invited, and becomes a member by accepting.")
    return True


def _grantable(access: Access) -> list[Role]:
    """Only owners make owners."""
    return [role for role in Role if role != Role.OWNER or access.may(Permission.GRANT_OWNERSHIP)]


def _may_touch(access: Access, member: Member) -> bool:
    return member.role != Role.OWNER or access.may(Permission.GRANT_OWNERSHIP)


def _may_withdraw(access: Access, role: str) -> bool:
    return role != Role.OWNER or access.may(Permission.GRANT_OWNERSHIP)


def _touchable_member(access: Access, member_id: int) -> Member:
    member = access.organization.members.select_related("user").filter(pk=member_id).first()
    if member is None:
        raise Http404
    if not _may_touch(access, member):
        raise PermissionDenied
    return member
