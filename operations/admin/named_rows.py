"""Lists of rows that name an organization and a key by their numbers alone: people read names, and search by them."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from accounts.models import ApiKey, Organization
from accounts.organizations import find_organization
from billing.models import FailedRequest, UsageRecord
from operations.admin.base import ReadOnlyAdmin

if TYPE_CHECKING:
    Base = ReadOnlyAdmin
else:
    Base = object

Row = UsageRecord | FailedRequest


class NamedChangeList(ChangeList):
    """Reads the names of a page together, in two queries."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        rows = cast(list[Row], list(self.result_list))
        name_rows(rows)
        self.result_list = rows


def name_rows(rows: Iterable[Row]) -> None:
    """Give each row the organization and the key whose numbers it has, None where they are gone."""
    rows = list(rows)
    organizations = Organization.objects.in_bulk({row.organization_id for row in rows})
    keys = ApiKey.objects.in_bulk({row.key_id for row in rows})
    for row in rows:
        row.named = (organizations.get(row.organization_id), keys.get(row.key_id))  # type: ignore[union-attr]


class RequestRows(Base):
    """What the lists of billed and of failed requests share. A row's page is the whole story of its request."""

    search_fields = ["=request_id", "=organization_id"]
    search_help_text = "The id of a request in any form, or the slug of an organization."
    ordering = ["-request_id"]
    sortable_by = ()  # Only the request id has an index that a page could follow.

    def get_changelist(self, request: HttpRequest, **options: Any) -> type[ChangeList]:
        return NamedChangeList

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        organization = find_organization(search_term.replace("\x00", "").strip().lower())
        if organization is not None:
            return queryset.filter(organization_id=organization.pk), False
        return super().get_search_results(request, queryset, search_term)

    def change_view(self, request: HttpRequest, object_id: str, *arguments: Any, **options: Any) -> HttpResponse:
        self.require_view(request)
        if request.method not in ("GET", "HEAD"):
            raise PermissionDenied
        row: Row = self.row_or_404(request, object_id)
        return redirect(reverse("operations_request", args=[row.request_id.hex]))

    @admin.display(description="Organization")
    def organization(self, row: Row) -> SafeString | str:
        found = row.named[0]  # type: ignore[union-attr]
        if found is None:
            return f"#{row.organization_id}"
        return format_html('<a href="{}">{}</a>', reverse("admin:accounts_organization_change", args=[found.pk]), found)

    @admin.display(description="Key")
    def key(self, row: Row) -> str:
        found = row.named[1]  # type: ignore[union-attr]
        return f"{found.name} …{found.last_four}" if found else f"#{row.key_id}"
