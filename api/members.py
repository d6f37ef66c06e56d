"""`/api/v1/members` and `/api/v1/invitations`: who belongs to an organization, and who is asked to."""

from typing import Any

from django.http import Http404
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.exceptions import PermissionDenied, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.access import Permission, grantable_roles
from accounts.invitations import OwnerInvitedError, TooManyInvitationsError, invite, withdraw_invitation
from accounts.members import AlreadyMemberError, LastOwnerError, NoKeysForThemError, change_role, remove_member
from accounts.models import Invitation, Member, Role, User
from api.answers import once
from api.errors import ConflictError
from api.fields import Body, find_row, read_body
from api.management import Acting, ManagementView
from api.paging import PAGE, PAGE_PARAMETERS, PagedAnswer, read_page
from pages.invitation_mail import mail_invitation

KEYS_GO_TO = [OpenApiParameter("keys_go_to", str, description="The id of a member who may have keys.")]


class RoleBody(Body):
    role = serializers.ChoiceField(choices=Role.choices)


class MemberBody(RoleBody):
    keys = serializers.ChoiceField(
        choices=["disable", "keep"],
        default="disable",
        help_text="What becomes of keys that the member owns, where the new role has none.",
    )


class InvitationBody(RoleBody):
    email = serializers.EmailField(max_length=254)


class MemberShown(serializers.Serializer[Any]):
    id = serializers.CharField()
    email = serializers.CharField()
    name = serializers.CharField()
    role = serializers.CharField()
    joined_at = serializers.DateTimeField()


class InvitationShown(serializers.Serializer[Any]):
    id = serializers.CharField()
    email = serializers.CharField()
    role = serializers.CharField()
    state = serializers.CharField(help_text="open, accepted, withdrawn or expired")
    invited_by = serializers.CharField()
    created_at = serializers.DateTimeField()
    expires_at = serializers.DateTimeField()


class MemberAnswer(serializers.Serializer[Any]):
    data = MemberShown()  # type: ignore[assignment]  # The envelope's name is also one of DRF's own.


class RemovedMemberAnswer(MemberAnswer):
    deleted = serializers.BooleanField()


class MemberList(PagedAnswer):
    data = MemberShown(many=True)  # type: ignore[assignment]  # The envelope's name is also one of DRF's own.


class InvitationAnswer(serializers.Serializer[Any]):
    data = InvitationShown()  # type: ignore[assignment]  # The envelope's name is also one of DRF's own.


class WithdrawnInvitationAnswer(InvitationAnswer):
    deleted = serializers.BooleanField()


class InvitationList(PagedAnswer):
    data = InvitationShown(many=True)  # type: ignore[assignment]  # The envelope's name is also one of DRF's own.


class MembersView(ManagementView):
    needs = {"GET": Permission.MANAGE_MEMBERS}
    takes = PAGE

    @extend_schema(operation_id="list_members", responses=MemberList, parameters=PAGE_PARAMETERS)
    def get(self, request: Request) -> Response:
        """The members, those who joined last first."""
        members = self.acting(request).organization.members.select_related("user")
        return Response(read_page(request, "members").of(members, lambda rows: [_show(member) for member in rows]))


class OneMemberView(ManagementView):
    needs = dict.fromkeys(("GET", "PUT", "DELETE"), Permission.MANAGE_MEMBERS)
    takes = frozenset({"keys_go_to"})

    @extend_schema(operation_id="get_member", responses=MemberAnswer)
    def get(self, request: Request, member_id: str) -> Response:
        """One member."""
        return Response({"data": _show(_find(self.acting(request), member_id))})

    @extend_schema(operation_id="set_member", request=MemberBody, responses=MemberAnswer, parameters=KEYS_GO_TO)
    def put(self, request: Request, member_id: str) -> Response:
        """Gives the member a role. Only an owner's key makes or changes owners.

        In a role without keys, those that the member owns are disabled, handed over to `keys_go_to`, or kept.
        """
        acting = self.acting(request)
        member = _find(acting, member_id)
        _require_grant(acting, member.role)
        body = read_body(MemberBody(data=request.data))
        role = Role(body["role"])
        _require_grant(acting, role)
        try:
            change_role(
                member,
                role=role,
                keys_go_to=_taker(acting, request),
                keeps_keys=body["keys"] == "keep",
                changed_by=acting.person,
            )
        except LastOwnerError:
            raise _last_owner() from None
        except NoKeysForThemError:
            raise _no_taker() from None
        member.role = role
        return Response({"data": _show(member)})

    @extend_schema(
        operation_id="remove_member",
        request=None,
        responses=RemovedMemberAnswer,
        parameters=KEYS_GO_TO,
    )
    def delete(self, request: Request, member_id: str) -> Response:
        """Ends the membership. Keys that the person owns are disabled, or handed over to `keys_go_to`."""
        acting = self.acting(request)
        member = _find(acting, member_id)
        _require_grant(acting, member.role)
        shown = _show(member)
        try:
            remove_member(member, keys_go_to=_taker(acting, request), removed_by=acting.person)
        except LastOwnerError:
            raise _last_owner() from None
        except NoKeysForThemError:
            raise _no_taker() from None
        return Response({"data": shown, "deleted": True})


class InvitationsView(ManagementView):
    needs = dict.fromkeys(("GET", "POST"), Permission.MANAGE_MEMBERS)
    takes = PAGE

    @extend_schema(operation_id="list_invitations", responses=InvitationList, parameters=PAGE_PARAMETERS)
    def get(self, request: Request) -> Response:
        """All invitations, newest first."""
        found = Invitation.objects.filter(organization=self.acting(request).organization).select_related("invited_by")
        page = read_page(request, "invitations")
        return Response(page.of(found, lambda rows: [_show_invitation(row) for row in rows]))

    @extend_schema(operation_id="invite", request=InvitationBody, responses={201: InvitationAnswer})
    @once
    def post(self, request: Request) -> Response:
        """Invites an address by mail, in the name of the member whose key it is. It replaces an open one."""
        acting = self.acting(request)
        data = read_body(InvitationBody(data=request.data))
        role = Role(data["role"])
        _require_grant(acting, role)
        if acting.person is None:
            raise ConflictError(
                "Whose key this is has left, so nobody invites. Use a key of a member.", code="nobody_invites"
            )
        try:
            invitation, token = invite(
                acting.organization,
                email=data["email"],
                role=role,
                invited_by=acting.person,
                may_make_owners=acting.may(Permission.GRANT_OWNERSHIP),
            )
        except OwnerInvitedError:
            raise _owners_only() from None
        except AlreadyMemberError:
            raise ConflictError("This is a member already.", code="already_member") from None
        except TooManyInvitationsError as error:
            raise ConflictError(str(error), code="too_many_invitations") from None
        mail_invitation(request._request, invitation, token)
        return Response({"data": _show_invitation(invitation)}, status=201)


class OneInvitationView(ManagementView):
    needs = dict.fromkeys(("GET", "DELETE"), Permission.MANAGE_MEMBERS)

    @extend_schema(operation_id="get_invitation", responses=InvitationAnswer)
    def get(self, request: Request, invitation_id: str) -> Response:
        """One invitation."""
        return Response({"data": _show_invitation(_find_invitation(self.acting(request), invitation_id))})

    @extend_schema(operation_id="withdraw_invitation", request=None, responses=WithdrawnInvitationAnswer)
    def delete(self, request: Request, invitation_id: str) -> Response:
        """Withdraws an open invitation. One that has ended stays as it was."""
        acting = self.acting(request)
        invitation = _find_invitation(acting, invitation_id)
        _require_grant(acting, invitation.role)
        withdraw_invitation(invitation)
        invitation.refresh_from_db()
        return Response({"data": _show_invitation(invitation), "deleted": invitation.withdrawn_at is not None})


def _find(acting: Acting, text: str) -> Member:
    return find_row(acting.organization.members.select_related("user"), "member_", text)


def _taker(acting: Acting, request: Request) -> User | None:
    """Return who gets the keys of a removed member, if anybody. Raises ValidationError."""
    text = request.query_params.get("keys_go_to")
    if text is None:
        return None
    try:
        return _find(acting, text).user
    except Http404:
        raise _no_taker() from None


def _no_taker() -> ValidationError:
    return ValidationError({"keys_go_to": ["This is no other member who may have keys."]})


def _find_invitation(acting: Acting, text: str) -> Invitation:
    found = Invitation.objects.filter(organization=acting.organization).select_related("invited_by")
    return find_row(found, "invitation_", text)


def _require_grant(acting: Acting, role: str) -> None:
    """Raise PermissionDenied when the acting role may not give or touch this role: only owners make owners."""
    if role not in grantable_roles(acting.role):
        raise _owners_only()


def _owners_only() -> PermissionDenied:
    return PermissionDenied("Only an owner's key makes, changes or removes owners.", code="permission_required")


def _last_owner() -> ConflictError:
    return ConflictError("An organization keeps at least one owner.", code="last_owner")


def _show(member: Member) -> dict[str, Any]:
    return {
        "id": f"member_{member.pk}",
        "email": member.user.email,
        "name": member.user.name,
        "role": member.role,
        "joined_at": member.joined_at,
    }


def _show_invitation(invitation: Invitation) -> dict[str, Any]:
    return {
        "id": f"invitation_{invitation.pk}",
        "email": invitation.email,
        "role": invitation.role,
        "state": invitation.state,
        "invited_by": invitation.invited_by.email,
        "created_at": invitation.created_at,
        "expires_at": invitation.expires_at,
    }
