"""Language models: names, limits and routes. What a change would take away is said before it is kept."""

from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.messages.storage import default_storage
from django.core.exceptions import ValidationError
from django.db import transaction
from django.http import HttpRequest, HttpResponse

from billing.catalog.file import expansion_problem
from billing.catalog.serving import lost_since, servable_models
from billing.models import LanguageModel, LanguageModelAlias, Route
from operations.admin.base import OperatorAdmin, OperatorInline, count_column, operator_form
from pages.forms import ModelForm

SURE = "is_sure"


class LanguageModelForm(ModelForm[LanguageModel]):
    """Takes what the catalog file takes."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if self.instance.pk and "model_id" in self.fields:
            self.fields["model_id"].disabled = True
            self.fields["model_id"].help_text = "Stays: clients, prices and records name it. Another name is an alias."

    def clean_expansion_tokens(self) -> dict[str, int]:
        bounds: dict[str, int] = self.cleaned_data["expansion_tokens"] or {}
        if problem := expansion_problem(bounds):
            raise ValidationError(problem)
        return bounds


class AliasInline(OperatorInline):
    model = LanguageModelAlias


class RouteInline(OperatorInline):
    model = Route
    autocomplete_fields = ["upstream"]


@admin.register(LanguageModel)
class LanguageModelAdmin(OperatorAdmin):
    form = LanguageModelForm
    list_display = ["model_id", "display_name", "context", "max_output", "is_enabled"]
    list_filter = ["is_enabled"]
    search_fields = ["model_id", "display_name", "aliases__alias"]
    inlines = [AliasInline, RouteInline]
    context = count_column("context_tokens", "Context tokens")
    max_output = count_column("max_output_tokens", "Max output tokens")

    def has_delete_permission(self, request: HttpRequest, obj: LanguageModel | None = None) -> bool:
        """Never: price versions and usage name it. Disable it instead."""
        return False

    def changeform_view(self, request: HttpRequest, *arguments: Any, **options: Any) -> HttpResponse:
        """Keep a change that takes models away only when the operator has been told, and is sure."""
        if request.method != "POST" or SURE in request.POST:
            return self._changeform(request, *arguments, **options)
        with transaction.atomic():
            before = servable_models()
            response = self._changeform(request, *arguments, **options)
            lost = lost_since(before) if response.status_code == 302 else []
            if not lost:
                return response
            transaction.set_rollback(True)
        request._messages = default_storage(request)  # type: ignore[attr-defined]  # It says that it was changed.
        names = "\n".join(f"- {model}" for model in lost)
        return operator_form(
            self,
            request,
            row=None,
            title="No provider would serve these models any more",
            text=f"Nothing is saved yet. After this change these could no longer be called:\n{names}",
            form=_again(request),
            submit="Save all the same",
            is_dangerous=True,
        )

    def _changeform(self, request: HttpRequest, *arguments: Any, **options: Any) -> HttpResponse:
        response: HttpResponse = super().changeform_view(request, *arguments, **options)
        return response


def _again(request: HttpRequest) -> forms.Form:
    """Return what was sent, to be sent again by somebody who is sure."""
    form = forms.Form()
    for name, value in [*request.POST.items(), (SURE, "1")]:
        if name not in ("csrfmiddlewaretoken", "confirm"):
            form.fields[name] = forms.CharField(widget=forms.HiddenInput, initial=value, required=False)
    return form
