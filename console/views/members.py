"""Members: list, invite, change roles, remove."""

from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_POST

from accounts.access import Access, Permission, may
from accounts.invitations import (
    OwnerInvitedError,
    TooManyInvitationsError,
    invite,
    open_invitations,
    withdraw_invitation,
)
from accounts.members import (
    AlreadyMemberError,
    LastOwnerError,
    NoKeysForThemError,
    change_role,
    is_last_owner,
    key_takers,
    keys_beyond,
    remove_member,
)
from accounts.models import ApiKey, Invitation, Member, Role, User
from console.entrance import console_page
from console.forms.members import InvitationForm, KeysForm, RoleForm
from pages.invitation_mail import mail_invitation
from pages.publishing import publish_or_tell

MEMBERS_PER_PAGE = 100
MAX_KEYS_NAMED = 20


@require_http_methods(["GET", "POST"])
@console_page(Permission.MANAGE_MEMBERS)
def members(request: HttpRequest, access: Access) -> HttpResponse:
    """List members and open invitations; a POST invites somebody by e-mail."""
    form = InvitationForm(request.POST or None, roles=_grantable(access))
    if request.method == "POST" and form.is_valid() and _invite(request, access, form):
        return redirect("members", slug=access.organization.slug)
    page = Paginator(access.organization.members.select_related("user"), MEMBERS_PER_PAGE).get_page(
        request.GET.get("page")
    )
    context = {
        "form": form,
        "page": page,
        "rows": [(member, _may_touch(access, member)) for member in page],
        "invitations": [
            (waiting, _may_withdraw(access, waiting.role)) for waiting in open_invitations(access.organization)
        ],
        "roles": _grantable(access),
        "count": page.paginator.count,
    }
    return render(request, "console/members.html", context, status=422 if request.method == "POST" else 200)


@require_POST
@console_page(Permission.MANAGE_MEMBERS)
def member_role(request: HttpRequest, access: Access, member_id: int) -> HttpResponse:
    """Give another role. Where keys would end with it, say so and ask first."""
    member = _touchable_member(access, member_id)
    form = RoleForm(request.POST, roles=_grantable(access))
    if not form.is_valid():
        raise PermissionDenied
    role = Role(form.cleaned_data["role"])
    has_no_keys = not may(role, Permission.MANAGE_KEYS)
    takers = [user for user in key_takers(access.organization) if user.pk != member.user_id] if has_no_keys else []
    is_confirmed = "confirmed" in request.POST
    keys = KeysForm(request.POST if is_confirmed else None, takers=takers, may_keep=has_no_keys)
    ending = keys_beyond(member, role)
    asks_first = not is_confirmed and ending.exists() and (role == Role.OWNER or not is_last_owner(member))
    if asks_first or (is_confirmed and not keys.is_valid()):
        context = {"member": member, "role": role, "form": keys, "has_no_keys": has_no_keys, **_named(ending)}
        return render(request, "console/member_role.html", context, status=422 if is_confirmed else 200)
    return _change_role(request, access, member, role, keys if is_confirmed else None)


@require_http_methods(["GET", "POST"])
@console_page(Permission.MANAGE_MEMBERS)
def member_remove(request: HttpRequest, access: Access, member_id: int) -> HttpResponse:
    """Say what happens to the person's keys, and ask; then remove."""
    member = _touchable_member(access, member_id)
    takers = [user for user in key_takers(access.organization) if user.pk != member.user_id]
    form = KeysForm(request.POST if request.method == "POST" else None, takers=takers)
    if request.method == "POST" and form.is_valid():
        return _remove(request, access, member, keys_go_to=form.chosen)
    context = {"member": member, "form": form, **_live_keys_of(access, member)}
    return render(request, "console/member_remove.html", context, status=422 if request.method == "POST" else 200)


@require_http_methods(["GET", "POST"])
@console_page(Permission.SEE_USAGE)
def member_leave(request: HttpRequest, access: Access) -> HttpResponse:
    """Say what one loses, and ask; then leave."""
    if request.method == "POST":
        return _remove(request, access, access.member, keys_go_to=None)
    return render(request, "console/member_leave.html", _live_keys_of(access, access.member))


@require_POST
@console_page(Permission.MANAGE_MEMBERS)
def invitation_resend(request: HttpRequest, access: Access, invitation_id: int) -> HttpResponse:
    """Send another link, which works for as long as a first one; the link before ends."""
    invitation = _invitation(access, invitation_id)
    try:
        again, token = invite(
            access.organization,
            email=invitation.email,
            role=Role(invitation.role),
            invited_by=access.user,
            may_make_owners=access.may(Permission.GRANT_OWNERSHIP),
        )
    except OwnerInvitedError:  # By somebody else, a moment ago.
        raise PermissionDenied from None
    except AlreadyMemberError:
        messages.info(request, f"{invitation.email} is a member already.")
    except TooManyInvitationsError as error:
        messages.error(request, str(error))
    else:
        mail_invitation(request, again, token)
        messages.success(request, f"{again.email} is invited again. The link that was sent before has ended.")
    return redirect("members", slug=access.organization.slug)


@require_POST
@console_page(Permission.MANAGE_MEMBERS)
def invitation_withdraw(request: HttpRequest, access: Access, invitation_id: int) -> HttpResponse:
    invitation = _invitation(access, invitation_id)
    if withdraw_invitation(invitation):
        messages.success(request, f"The invitation of {invitation.email} is withdrawn.")
    return redirect("members", slug=access.organization.slug)


def _change_role(
    request: HttpRequest, access: Access, member: Member, role: Role, keys: KeysForm | None
) -> HttpResponse:
    goes_to, keeps = (keys.chosen, keys.keeps) if keys else (None, False)
    try:
        ended = change_role(member, role=role, keys_go_to=goes_to, keeps_keys=keeps, changed_by=access.user)
    except LastOwnerError:
        messages.error(request, "An organization keeps at least one owner. Make somebody else owner first.")
    except NoKeysForThemError:
        messages.error(
            request, f"{member.user.email} keeps their role: who should have the keys may have none any more."
        )
    else:
        who = f"{member.user.email} is now {role.label.lower()}."
        what = f"went to {goes_to.email}" if goes_to else "of theirs will be refused until enabled"
        gone = f" {ended} {'key' if ended == 1 else 'keys'} {what}." if ended else ""
        publish_or_tell(request, done=who + gone, what_waits=who)
    return redirect("members", slug=access.organization.slug)


def _remove(request: HttpRequest, access: Access, member: Member, *, keys_go_to: User | None) -> HttpResponse:
    is_oneself = member.user_id == access.user.pk
    try:
        owned = remove_member(member, keys_go_to=keys_go_to, removed_by=access.user)
    except LastOwnerError:
        messages.error(request, "An organization keeps at least one owner. Make somebody else owner first.")
        return redirect("overview" if is_oneself else "members", slug=access.organization.slug)
    who = f"You have left {access.organization.name}." if is_oneself else f"{member.user.email} is no longer a member."
    keys = f" {owned} {'key' if owned == 1 else 'keys'} " if owned else ""
    if owned:
        gone = f"went to {keys_go_to.email}; management keys among them are disabled." if keys_go_to else ""
        keys += gone or "of theirs will be refused until they are enabled."
    publish_or_tell(request, done=who + keys, what_waits=who)
    return redirect("console") if is_oneself else redirect("members", slug=access.organization.slug)


def _live_keys_of(access: Access, member: Member) -> dict[str, Any]:
    """Return how many keys a member owns, and the first of them by name."""
    return _named(access.organization.keys.filter(owner=member.user_id, revoked_at=None))


def _named(keys: QuerySet[ApiKey]) -> dict[str, Any]:
    owned = keys.count()
    return {"keys": list(keys[:MAX_KEYS_NAMED]), "owned": owned, "unnamed": max(0, owned - MAX_KEYS_NAMED)}


def _invitation(access: Access, invitation_id: int) -> Invitation:
    """Return an open invitation that the person may withdraw or send again."""
    invitation = access.organization.invitations.filter(pk=invitation_id, accepted_at=None, withdrawn_at=None).first()
    if invitation is None:
        raise Http404
    if not _may_withdraw(access, invitation.role):
        raise PermissionDenied
    return invitation


def _invite(request: HttpRequest, access: Access, form: InvitationForm) -> bool:
    try:
        invitation, token = invite(
            access.organization,
            email=form.cleaned_data["email"],
            role=Role(form.cleaned_data["role"]),
            invited_by=access.user,
            may_make_owners=access.may(Permission.GRANT_OWNERSHIP),
        )
    except AlreadyMemberError:
        form.add_error("email", "Already a member. Change the role in the list below.")
        return False
    except OwnerInvitedError:
        form.add_error("email", "Invited as an owner already, which only an owner can change.")
        return False
    except TooManyInvitationsError as error:
        form.add_error(None, str(error))
        return False
    mail_invitation(request, invitation, token)
    messages.success(request, f"{invitation.email} is invited, and becomes a member after accepting.")
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
