"""Who changed what in the organization, newest first."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from accounts.access import Access, Permission
from console.entrance import console_page
from pages.audit_lines import lines_of_organization

LINES_PER_PAGE = 50
MAX_ID_DIGITS = 18


@require_safe
@console_page(Permission.MANAGE_ORGANIZATION)
def audit_log(request: HttpRequest, access: Access) -> HttpResponse:
    """Show a page of it; `before` is the last entry of the page before."""
    before = request.GET.get("before", "")
    before_id = int(before) if before.isdecimal() and before.isascii() and len(before) <= MAX_ID_DIGITS else None
    lines = lines_of_organization(access.organization.pk, before_id=before_id, limit=LINES_PER_PAGE + 1)
    shown, more = lines[:LINES_PER_PAGE], len(lines) > LINES_PER_PAGE
    context = {"lines": shown, "older": shown[-1].id if more else None, "is_first": before_id is None}
    return render(request, "console/audit_log.html", context)
