"""The first page, and the way from there into an organization's console."""

from urllib.parse import urlencode

from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_http_methods, require_safe

from accounts.members import AddressNotConfirmedError
from accounts.models import Member, Role, User
from accounts.organizations import MAX_ORGANIZATIONS_PER_OWNER, TooManyOrganizationsError, create_own_organization
from billing.credit.top_ups import welcome_credit
from console.entrance import LAST_ORGANIZATION
from console.forms.organization import OrganizationForm
from pages.publishing import publish_or_tell

MAX_NAME_CHARS = 100
_EXAMPLE = {"base_url": settings.BASE_URL, "model_id": "anthropic/claude-sonnet-4.6"}


@require_safe
def landing(request: HttpRequest) -> HttpResponse:
    return render(request, "console/landing.html", _EXAMPLE)


@require_safe
def api_docs(request: HttpRequest) -> HttpResponse:
    return render(request, "console/api_docs.html", _EXAMPLE)


@login_required
@require_GET
def console(request: HttpRequest) -> HttpResponse:
    """Go to the organization that was open last, or to the first one, or to where one is made."""
    assert isinstance(request.user, User)  # noqa: S101  login_required has seen to it.
    memberships = Member.objects.filter(user=request.user).select_related("organization")
    member = memberships.filter(organization__slug=request.session.get(LAST_ORGANIZATION, "")).first()
    member = member or memberships.first()
    if member is None:
        return redirect("organization_new")
    return redirect("overview", slug=member.organization.slug)


@require_http_methods(["GET", "POST"])
def organization_new(request: HttpRequest) -> HttpResponse:
    """Make an organization that the person owns. Welcome credit is given to a person once."""
    if not isinstance(request.user, User):  # A name that was typed already comes along.
        name = request.POST.get("name", "")[:MAX_NAME_CHARS]
        return redirect_to_login(f"{request.path}?{urlencode({'name': name})}" if name else request.path)
    form = OrganizationForm(request.POST or None, initial={"name": request.GET.get("name", "")[:MAX_NAME_CHARS]})
    owned = Member.objects.filter(user=request.user, role=Role.OWNER).count()
    if request.method == "POST" and form.is_valid():
        try:
            organization = create_own_organization(request.user, name=form.cleaned_data["name"])
        except TooManyOrganizationsError:
            form.add_error(None, f"You own {MAX_ORGANIZATIONS_PER_OWNER} organizations already.")
        except AddressNotConfirmedError:
            form.add_error(None, f"Confirm {request.user.email} first: sign out, and sign in again for a new code.")
        else:
            welcome_credit(organization, person=request.user)
            publish_or_tell(request)
            return redirect("overview", slug=organization.slug)
    return render(request, "console/organization_new.html", {"form": form, "is_first": not owned})
