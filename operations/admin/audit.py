"""The audit, to look at and to search. Postgres writes it; nobody edits it."""

from collections.abc import Sequence
from typing import Any, cast

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from accounts.models import ApiKey, AuditEntry, Organization, User
from operations.admin.base import ReadOnlyAdmin
from pages.audit_lines import NOUNS, AuditChange, AuditLine, describe

CHANGES_IN_A_LIST = 4
MAX_MATCHES = 100  # Of people, organizations and keys that a search's text may mean.


class SubjectFilter(admin.SimpleListFilter):
    title = "what"
    parameter_name = "what"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return sorted(NOUNS.items(), key=lambda item: item[1])

    def queryset(self, request: HttpRequest, queryset: QuerySet[AuditEntry]) -> QuerySet[AuditEntry]:
        return queryset.filter(subject_table=self.value()) if self.value() else queryset


class DescribedChangeList(ChangeList):
    """Puts the entries of a page into words together, in a constant number of queries."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        rows = cast(list[AuditEntry], list(self.result_list))
        for row, line in zip(rows, describe(rows), strict=True):
            row.line = line  # type: ignore[attr-defined]
        self.result_list = rows


@admin.register(AuditEntry)
class AuditEntryAdmin(ReadOnlyAdmin):
    list_display = ["time", "who", "what", "subject", "briefly", "origin", "address"]
    list_display_links = ["time"]
    list_filter = [SubjectFilter, "action"]
    search_fields = ["pk"]
    search_help_text = "A person's e-mail address, an organization, the start of a key, an address, a command or a job."
    ordering = ["-id"]
    fields = ["time", "who", "what", "subject", "what_changed", "origin", "address", "database_user"]
    readonly_fields = fields

    def get_changelist(self, request: HttpRequest, **options: Any) -> type[ChangeList]:
        return DescribedChangeList

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[AuditEntry], search_term: str
    ) -> tuple[QuerySet[AuditEntry], bool]:
        """Look the text up by indexes, as what it may mean: who, whose, which key, from where."""
        text = search_term.replace("\x00", "").strip()
        return (queryset.filter(_meanings(text)) if text else queryset), False

    @admin.display(description="Time", ordering="id")
    def time(self, entry: AuditEntry) -> str:
        return f"{entry.at:%Y-%m-%d %H:%M:%S} UTC"

    @admin.display(description="Who")
    def who(self, entry: AuditEntry) -> str:
        return _line(entry).who

    @admin.display(description="What")
    def what(self, entry: AuditEntry) -> str:
        return _line(entry).what

    @admin.display(description="Which")
    def subject(self, entry: AuditEntry) -> str:
        return _line(entry).subject

    @admin.display(description="Before and after")
    def what_changed(self, entry: AuditEntry) -> SafeString:
        return _list(_line(entry).changes)

    @admin.display(description="Before and after")
    def briefly(self, entry: AuditEntry) -> SafeString:
        changes = _line(entry).changes
        more = len(changes) - CHANGES_IN_A_LIST
        return format_html("{}{}", _list(changes[:CHANGES_IN_A_LIST]), f"and {more} more" if more > 0 else "")

    @admin.display(description="From")
    def origin(self, entry: AuditEntry) -> str:
        return _line(entry).origin


def _line(entry: AuditEntry) -> AuditLine:
    line: AuditLine | None = getattr(entry, "line", None)
    return line if line is not None else describe([entry])[0]


def _list(changes: Sequence[AuditChange]) -> SafeString:
    rows = (
        (change.name, f"{change.before} → {change.after or 'nothing'}" if change.before else change.after)
        for change in changes
    )
    return format_html("<ul>{}</ul>", format_html_join("", "<li>{}: {}</li>", rows))


def _meanings(text: str) -> Q:
    people = [*User.objects.filter(email__iexact=text).values_list("pk", flat=True)]
    named = Organization.objects.filter(Q(slug__iexact=text) | Q(name__iexact=text))
    organizations = [*named.values_list("pk", flat=True)[:MAX_MATCHES]]
    wanted = Q(actor_id__in=people) | Q(organization_id__in=organizations) | Q(address=text)
    wanted |= Q(source__iendswith=text) | Q(shell_user=text.removeprefix("shell:"))
    wanted |= Q(subject_table="accounts_user", subject_id__in=[str(pk) for pk in people])
    if text.startswith("cm-"):
        keys = [*ApiKey.objects.filter(prefix__startswith=text[:16]).values_list("pk", flat=True)[:MAX_MATCHES]]
        wanted |= Q(key_id__in=keys) | Q(subject_table="accounts_apikey", subject_id__in=[str(pk) for pk in keys])
    return wanted
