"""Nobody works in the admin with a password alone: staff set up a second factor first."""

from collections.abc import Callable

from allauth.mfa.utils import is_mfa_enabled
from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.shortcuts import redirect

ADMIN = "/admin/"
OPEN = ("/admin/login/", "/admin/logout/")


class StaffSecondFactorMiddleware:
    """Leads operators without a second factor to where they set it up. Whoever has one was asked at sign-in."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if settings.STAFF_SECOND_FACTOR and request.path.startswith(ADMIN) and request.path not in OPEN:
            user = request.user
            if user.is_authenticated and user.is_staff and not is_mfa_enabled(user):
                messages.warning(request, "Operators need a second factor. Set one up, then open the admin again.")
                return redirect("mfa_index")
        return self.get_response(request)
