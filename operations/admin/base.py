"""What the admin pages of every app share. Money and limits are never saved past the domain modules."""

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, TypeVar

from django import forms
from django.contrib import admin
from django.contrib.admin.checks import ModelAdminChecks
from django.contrib.admin.utils import lookup_spawns_duplicates, unquote
from django.contrib.admin.views.main import ERROR_FLAG
from django.core.exceptions import PermissionDenied
from django.db import DataError
from django.db.models import Model, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.functional import cached_property
from unfold.admin import ModelAdmin, TabularInline
from unfold.decorators import action
from unfold.paginator import InfinitePaginator as UnfoldInfinitePaginator
from unfold.widgets import UnfoldAdminTextInputWidget

from accounts.models import Organization
from billing.money import say_usd
from operations.admin.choosing import ChoosingMixin
from operations.admin.searching import EXACT, search
from pages.fields import UsdField
from pages.forms import Form, LinesMixin
from pages.templatetags.amounts import duration_or_dash

SAVE_AS_NEW = "_saveasnew"
MAX_PAGES = 200  # Of a list that is not counted.

F = TypeVar("F", bound=Callable[..., Any])
R = TypeVar("R", bound=HttpResponseBase)


class OperatorAdmin(ChoosingMixin, ModelAdmin):  # type: ignore[misc]  # unfold ships no types
    list_per_page = 50
    list_filter_submit = False
    warn_unsaved_form = True
    # Of so many of the newest rows a word is looked for within texts, where no other word is found by an index.
    searched_newest: int | None = None
    # Unfold's own checks look permissions up in the database, which has no tables yet when the first `migrate` checks.
    checks_class = ModelAdminChecks

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        for name in self.readonly_fields:
            if callable(getattr(type(self), name, None)):
                setattr(self, name, shown_once(getattr(self, name), name))
        self._read_as = {}
        for field in self.model._meta.fields:
            ending, column = next((each for each in IN_WORDS.items() if field.name.endswith(each[0])), ("", None))
            if column is not None:
                shown = self._read_as[field.name] = field.name.removesuffix(ending)
                if not hasattr(self, shown):
                    setattr(self, shown, shown_once(_of_row(column, field.name), shown))

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Who only looks sees amounts as money and durations in seconds. In a form, its fields see to that."""
        fieldsets = super().get_fieldsets(request, obj)
        if obj is None or self.has_change_permission(request, obj):
            return fieldsets
        return [
            (
                title,
                {**options, "fields": list(dict.fromkeys(self._read_as.get(name, name) for name in options["fields"]))},
            )
            for title, options in fieldsets
        ]

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        fields = self.get_search_fields(request)
        has_many = any(lookup_spawns_duplicates(self.opts, field) for field in fields if not field.startswith(EXACT))
        found = search(queryset, fields, search_term, newest=self.searched_newest)
        return found, has_many and bool(search_term.strip())

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest | None = None) -> bool:
        """Let addresses filter by what a list offers, and by nothing else: what no page shows could be guessed with it.

        Django lets every column of a table through, digests and sealed secrets among them.
        """
        for entry in self.list_filter:
            name = getattr(entry, "parameter_name", None)
            column = entry[0] if isinstance(entry, tuple) else entry
            if lookup == name or lookup.partition("__")[0] == column:
                return bool(super().lookup_allowed(lookup, value, request))
        return False

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """A value that no column can hold is answered as Django answers what no filter knows: by the list as it is."""
        if any("\x00" in value for _, values in request.GET.lists() for value in values):
            return redirect(f"{request.path}?{ERROR_FLAG}=1")
        response: HttpResponse = super().changelist_view(request, extra_context)
        return response

    def require_view(self, request: HttpRequest) -> None:
        """Raise PermissionDenied for whoever may not look at the rows of this table."""
        if not self.has_view_or_change_permission(request):
            raise PermissionDenied

    def changeform_view(
        self, request: HttpRequest, object_id: str | None = None, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """Refuse what would lead from the page of a row to Django's own form for a new one, past ours."""
        if SAVE_AS_NEW in request.POST:
            raise PermissionDenied
        response: HttpResponse = super().changeform_view(request, object_id, form_url, extra_context)
        return response

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **options: Any) -> Any:
        return held_to_lines(super().get_form(request, obj, change, **options))

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        """Read a row once for a page: its buttons look at it, too. What changes it reads it again."""
        if request.method not in ("GET", "HEAD"):
            return super().get_object(request, object_id, from_field)
        known = vars(request).setdefault("_rows", {})
        key = (self.model, object_id, from_field)
        if key not in known:
            known[key] = super().get_object(request, object_id, from_field)
        return known[key]

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        """The buttons of a row: of those that the operator may use, what its state leaves to do."""
        actions = super().get_actions_detail(request, object_id)
        row = self.get_object(request, unquote(str(object_id))) if actions else None
        if row is None:
            return []
        begins = f"{self.opts.app_label}_{self.opts.model_name}_"
        return [action for action in actions if self.offers(request, row, action.action_name.removeprefix(begins))]

    def offers(self, request: HttpRequest, row: Any, button: str) -> bool:
        """Say whether a button makes sense for a row as it is now."""
        return True

    def row_or_404(self, request: HttpRequest, object_id: str) -> Any:
        """Return the row that a button's address names. Whatever else stands there, and what is not there, is a 404."""
        try:
            row = self.get_object(request, unquote(object_id))
        except (ValueError, OverflowError, DataError):
            row = None
        if row is None:
            raise Http404
        return row


def shown_once(show: Callable[[Any], Any], name: str) -> Callable[[Any], Any]:
    """Return a read-only field that is worked out once for a row: templates ask for it five times."""

    @wraps(show)
    def remembered(row: Any) -> Any:
        known = vars(row).setdefault("_shown", {})
        if name not in known:
            known[name] = show(row)
        return known[name]

    return remembered


class InfinitePaginator(UnfoldInfinitePaginator):  # type: ignore[misc]  # unfold ships no types
    """Pages that are not counted. Postgres reads all rows before a page, so there is a last one: search instead.

    Unfold's templates know by the name of the class that there is no number of results to show.
    """

    @cached_property
    def count(self) -> int:
        return int(self.per_page) * MAX_PAGES


class ManyRowsAdmin(OperatorAdmin):
    """Counting millions of rows would take longer than anybody waits, so pages are not numbered."""

    show_full_result_count = False
    paginator = InfinitePaginator


class ReadOnlyAdmin(ManyRowsAdmin):
    """Rows to look at."""

    actions = None
    warn_unsaved_form = False
    shown_once_set: Sequence[str] = ()  # What becomes of a row: columns that say nothing before it has.

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        fieldsets = super().get_fieldsets(request, obj)
        unset = {name for name in self.shown_once_set if obj is not None and getattr(obj, name) in (None, "")}
        return [
            (title, {**options, "fields": [name for name in options["fields"] if name not in unset]})
            for title, options in fieldsets
        ]

    def changeform_view(
        self, request: HttpRequest, object_id: str | None = None, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """Nothing is added by a form of columns: where rows can be added, the page has a form of its own."""
        if object_id is None:
            raise PermissionDenied
        return super().changeform_view(request, object_id, form_url, extra_context)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


class OperatorInline(ChoosingMixin, TabularInline):  # type: ignore[misc]  # unfold ships no types
    extra = 0
    hide_title = True  # Of each row: its columns say the same.

    def get_formset(self, request: HttpRequest, obj: Model | None = None, **options: Any) -> Any:
        """Say at each field what it is: in a table its label stands at the top, where a screen reader is not."""
        formset = super().get_formset(request, obj, **options)
        formset.form = held_to_lines(formset.form)
        for field in formset.form.base_fields.values():
            field.widget.attrs.setdefault("aria-label", str(field.label or ""))
        return formset

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Read what the rows name together with them, not row by row."""
        relations = {field.name for field in self.model._meta.fields if field.is_relation}
        shown = [name for name in self.fields or () if name in relations]
        rows: QuerySet[Any] = super().get_queryset(request)
        return rows.select_related(*shown) if shown else rows


class ReadOnlyInline(OperatorInline):
    can_delete = False

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


class QuestionForm(Form):
    """No fields: only a yes. See ask_first()."""


class OrganizationField(forms.CharField):
    """Takes the slug of an organization: a list to choose from would hold them all. Cleans to the organization."""

    def __init__(self) -> None:
        super().__init__(label="Organization", widget=UnfoldAdminTextInputWidget, help_text="Its slug.", max_length=60)

    def clean(self, value: Any) -> Any:
        slug = super().clean(value)
        organization = Organization.objects.filter(slug=slug).first()
        if organization is None:
            raise forms.ValidationError("No organization has this slug.")
        return organization


def held_to_lines(form: Any) -> Any:
    """Return a form of Django's or unfold's by the rule of our own: a field of one line takes one."""
    return form if issubclass(form, LinesMixin) else type(form)(form.__name__, (LinesMixin, form), {})


def is_superuser(request: HttpRequest) -> bool:
    """Say whether the operator may do what no list of permissions gives."""
    return bool(request.user.is_active and request.user.is_superuser)


def admin_usd_field(label: str, *, required: bool = False) -> UsdField:
    """An amount of US dollars with the admin's looks; cleans to nano-dollars."""
    return UsdField(required=required, label=label, widget=UnfoldAdminTextInputWidget(attrs={"inputmode": "decimal"}))


def usd_column(field: str, description: str) -> Callable[[Any, Any], str]:
    """A column of exact US dollars from a field of nano-dollars."""

    @admin.display(description=description, ordering=field)
    def column(self: Any, row: Any) -> str:
        nanos = getattr(row, field)
        return "" if nanos is None else say_usd(nanos)

    return column


def duration_column(field: str, description: str) -> Callable[[Any, Any], str]:
    """A column of a duration from a field of milliseconds."""

    @admin.display(description=description, ordering=field)
    def column(self: Any, row: Any) -> str:
        return duration_or_dash(getattr(row, field))

    return column


def count_column(field: str, description: str) -> Callable[[Any, Any], str]:
    """A column of a large number, with its thousands apart."""

    @admin.display(description=description, ordering=field)
    def column(self: Any, row: Any) -> str:
        return f"{getattr(row, field):,}"

    return column


# What people read instead of the numbers that a column with such a name holds.
IN_WORDS: dict[str, Callable[[str, str], Callable[[Any, Any], str]]] = {
    "_nanos": usd_column,
    "_ms": duration_column,
}


def _of_row(make: Callable[[str, str], Callable[[Any, Any], str]], field: str) -> Callable[[Any], str]:
    """Return the column as a function of a row, as an instance of an admin page has it."""
    words = field.rpartition("_")[0].replace("_", " ")
    column = make(field, words[:1].upper() + words[1:])

    @wraps(column)
    def show(row: Any) -> str:
        return column(None, row)

    return show


def detail_action(description: str, *, permission: str, url_path: str) -> Callable[[F], F]:
    """A button on the page of one row, for operators with `permission`."""
    decorate: Callable[[F], F] = action(description=description, permissions=[permission], url_path=url_path)
    return decorate


def operator_form(
    model_admin: ModelAdmin,
    request: HttpRequest,
    *,
    row: Model | None,
    title: str,
    text: str,
    form: forms.Form,
    submit: str,
    is_dangerous: bool = False,
    back_url: str = "",
) -> HttpResponse:
    """Render a form (or, without fields, a question) about one row, or for new ones, inside the admin.

    "Cancel" leads to the row, or to the list of rows, or to `back_url`.
    """
    context = {
        **model_admin.admin_site.each_context(request),
        "opts": model_admin.opts,
        "original": row,
        "title": title,
        "text": text,
        "form": form,
        "submit_label": submit,
        "is_dangerous": is_dangerous,
        "back_url": back_url,
    }
    return render(
        request, "operations/operator_form.html", context, status=422 if form.is_bound and not form.is_valid() else 200
    )


def ask_first(
    model_admin: ModelAdmin,
    request: HttpRequest,
    row: Model,
    do: Callable[[], R | None],
    *,
    title: str,
    text: str | Callable[[], str],
    submit: str,
    is_dangerous: bool = False,
) -> R | HttpResponse:
    """Ask whether it shall be done; do it once the answer is yes, and lead back to the row.

    `do` tells the operator what came of it, and may answer with something else than the row. `text` may be worked out
    only where it is asked.
    """
    if request.method == "POST":
        opts = row._meta
        back = reverse(f"admin:{opts.app_label}_{opts.model_name}_change", args=[row.pk])
        return do() or redirect(back)
    return operator_form(
        model_admin,
        request,
        row=row,
        title=title,
        text=text if isinstance(text, str) else text(),
        form=QuestionForm(),
        submit=submit,
        is_dangerous=is_dangerous,
    )
