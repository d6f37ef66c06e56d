"""The audit, to look at and to search. Postgres writes it; nobody edits it."""

from collections.abc import Iterator, Sequence
from functools import reduce
from operator import or_
from typing import Any, cast

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from accounts.models import ApiKey, AuditEntry, Organization, User
from operations.admin.base import ReadOnlyAdmin
from operations.admin.filters import known_values
from pages.audit_lines import NOUNS, AuditChange, AuditLine, describe

CHANGES_IN_A_LIST = 4
# What triggers write, and acts that change no row of their own.
ACTIONS = (
    "created",
    "changed",
    "deleted",
    "called for a test",
    "erased",
    "exported",
    "health reset",
    "looked at by support",
    "no longer looked at",
)
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
    list_filter = [SubjectFilter, known_values("action", "action", lambda: ACTIONS)]
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
        rows = ((change.name, change.before or "-", change.after or "-") for change in _line(entry).changes)
        cells = format_html_join(
            "",
            '<tr><th scope="row" class="pr-6 py-1 font-normal align-top">{}</th><td class="pr-6 align-top">{}</td>'
            '<td class="align-top">{}</td></tr>',
            rows,
        )
        head = '<tr><th scope="col" class="pr-6">Field</th><th scope="col" class="pr-6">Before</th>'
        head += '<th scope="col">After</th></tr>'
        return format_html(f'<table class="text-left">{head}{{}}</table>', cells) if cells else format_html("-")

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
    """Return the condition that holds for what the text means of an entry; each part of it has an index.

    What no entry has is left out: a condition that never holds, beside others, has Postgres read the whole audit.
    """
    found = [meaning for meaning in _possible_meanings(text) if AuditEntry.objects.filter(meaning).order_by().exists()]
    return reduce(or_, found) if found else Q(pk__in=[])


def _possible_meanings(text: str) -> Iterator[Q]:
    for person in User.objects.filter(email__iexact=text).values_list("pk", flat=True):
        yield Q(actor_id=person)
        yield Q(subject_table="accounts_user", subject_id=str(person))
    named = Organization.objects.filter(Q(slug__iexact=text) | Q(name__iexact=text))
    if organizations := [*named.values_list("pk", flat=True)[:MAX_MATCHES]]:
        yield Q(organization_id__in=organizations)
    yield Q(address=text) & ~Q(address="")
    # A command, a job or a page, as people write them.
    words = [text, f"manage.py {text}", f"job {text}", f"job billing.{text}", f"POST {text}", f"GET {text}"]
    yield Q(source__in=words) & ~Q(source="")
    yield Q(shell_user=text.removeprefix("shell:")) & ~Q(shell_user="")
    if text.startswith("cm-"):
        keys = [*ApiKey.objects.filter(prefix__startswith=text[:16]).values_list("pk", flat=True)[:MAX_MATCHES]]
        if keys:
            yield Q(key_id__in=keys)
            yield Q(subject_table="accounts_apikey", subject_id__in=[str(pk) for pk in keys])
