"""What was typed before a session ended, shown to whoever signed in again."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_safe

from accounts.access import Access, Permission
from console.entrance import console_page
from console.kept_forms import take_kept_form


@require_safe
@console_page(Permission.SEE_USAGE)
def kept_form(request: HttpRequest, access: Access) -> HttpResponse:
    """Show it, to be sent or forgotten. Whether one may send it is for its own page to say."""
    overview = reverse("overview", kwargs={"slug": access.organization.slug})
    kept = take_kept_form(request, below=overview)
    if kept is None:
        return redirect(overview)
    return render(request, "console/kept_form.html", {"kept": kept})
