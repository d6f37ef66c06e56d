"""What was typed into a page that had expired: shown to whoever signed in again, or to be sent once more."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_safe

from accounts.access import Access, Permission
from console.entrance import console_page
from console.kept_forms import read_kept_form, whole_form

EXPIRED = 403  # Of the statuses: Django's own for a form without a valid token.


@require_safe
@console_page(Permission.SEE_USAGE)
def kept_form(request: HttpRequest, access: Access) -> HttpResponse:
    """Show it, to be sent or forgotten. Whether one may send it is for its own page to say."""
    overview = reverse("overview", kwargs={"slug": access.organization.slug})
    kept = read_kept_form(request, below=overview)
    if kept is None:
        return redirect(overview)
    return render(request, "console/kept_form.html", {"kept": kept})


def page_expired(request: HttpRequest, reason: str = "") -> HttpResponse:
    """Show what was sent with a token that is none any more: somebody signed in or out in another tab meanwhile.

    It is offered to be sent again only when a page of ours sent it: another site's form is never put into one's mouth.
    """
    is_ours = request.headers.get("Origin") == f"{request.scheme}://{request.get_host()}"
    values = {"kept": whole_form(request) if is_ours else None, "is_ours": is_ours, "address": request.path}
    return render(request, "403_csrf.html", values, status=EXPIRED)
