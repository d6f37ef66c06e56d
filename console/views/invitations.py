"""An invitation as the invited person meets it: by mail, then on a page that asks for a yes."""

from allauth.account.adapter import get_adapter
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from accounts.invitations import (
    InvitationGoneError,
    accept_invitation,
    find_invitation,
)
from accounts.members import AddressNotConfirmedError, AlreadyMemberError, TooManyMembersError, has_confirmed
from accounts.models import Invitation, User


@never_cache
@require_http_methods(["GET", "POST"])
def invitation(request: HttpRequest, token: str) -> HttpResponse:
    """Show who invites whom as what; a POST of the invited person accepts."""
    found = find_invitation(token)
    if found is None:
        return render(request, "console/invitation_gone.html", status=404)
    if not isinstance(request.user, User):
        # Whoever has the token reads the mail of the address: an account made from here needs no second proof.
        get_adapter().stash_verified_email(request, found.email)
    elif request.method == "POST" and _accept(request, found, request.user):
        return redirect("overview", slug=found.organization.slug)
    is_theirs = isinstance(request.user, User) and has_confirmed(request.user, found.email)
    context = {"invitation": found, "role": found.get_role_display().lower(), "is_theirs": is_theirs}
    return render(request, "console/invitation.html", context, status=422 if request.method == "POST" else 200)


def _accept(request: HttpRequest, invitation: Invitation, user: User) -> bool:
    try:
        accept_invitation(invitation, user=user)
    except AddressNotConfirmedError:
        messages.error(request, f"Sign in with {invitation.email} to accept.")
    except InvitationGoneError:
        messages.error(request, "The invitation has ended in the meantime.")
    except TooManyMembersError:
        messages.error(request, "The organization has as many members as it can have.")
    except AlreadyMemberError:
        messages.info(request, f"You are a member of {invitation.organization} already.")
        return True
    else:
        messages.success(request, f"You are a member of {invitation.organization} now.")
        return True
    return False
