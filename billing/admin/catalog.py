"""What is on sale. Prices are never edited: a new version is loaded and approved by somebody else."""

import re
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone

from accounts.admin_base import (
    OperatorAdmin,
    OperatorInline,
    QuestionForm,
    ReadOnlyAdmin,
    ReadOnlyInline,
    detail_action,
    is_superuser,
    operator_form,
)
from billing.catalog.file import BASE_URL, VARIABLE_NAME, expansion_problem
from billing.catalog.profiles import profile_problem
from billing.catalog.variables import forbidden_variables, may_name
from billing.models import (
    LanguageModel,
    LanguageModelAlias,
    OrganizationPriceFactor,
    PriceComponent,
    PriceVersion,
    Route,
    Upstream,
)
from billing.prices import ApprovalError, approve_price_version
from billing.pricing import FACTOR_ONE_PPM, InvalidPriceError
from billing.templatetags.amounts import picos_per_million, picos_usd


class LanguageModelForm(forms.ModelForm[LanguageModel]):
    """Takes what the catalog file takes."""

    def clean_expansion_tokens(self) -> dict[str, int]:
        bounds: dict[str, int] = self.cleaned_data["expansion_tokens"] or {}
        if problem := expansion_problem(bounds):
            raise ValidationError(problem)
        return bounds


class UpstreamForm(forms.ModelForm[Upstream]):
    """Takes what the catalog file takes."""

    def clean_base_url(self) -> str:
        base_url: str = self.cleaned_data["base_url"]
        if not re.fullmatch(BASE_URL, base_url):
            raise ValidationError("Enter an http(s) address or ${NAME}, without a password.")
        if forbidden := forbidden_variables(base_url):
            raise ValidationError(f"{forbidden[0]} may not be sent to an upstream (CROSSMODEL_UPSTREAM_VARIABLES).")
        return base_url

    def clean_credential_env(self) -> str:
        name: str = self.cleaned_data["credential_env"]
        if name and not re.fullmatch(VARIABLE_NAME, name):
            raise ValidationError("Name an environment variable, never the secret itself.")
        if name and not may_name(name):
            raise ValidationError("This variable may not be sent to an upstream (CROSSMODEL_UPSTREAM_VARIABLES).")
        return name

    def clean_profile(self) -> dict[str, Any]:
        profile = self.cleaned_data["profile"] or {}
        if not isinstance(profile, dict):
            raise ValidationError("Enter a JSON object.")
        if problem := profile_problem(profile):
            raise ValidationError(f"{problem}.")
        return profile


@admin.register(Upstream)
class UpstreamAdmin(OperatorAdmin):
    """`credential_env` names a variable of the gateway's environment; the credential itself is nowhere in here."""

    form = UpstreamForm
    list_display = ["name", "protocol", "base_url", "credential_env", "is_sandbox", "is_enabled"]
    list_filter = ["protocol", "is_enabled"]
    search_fields = ["name"]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return is_superuser(request)

    def get_readonly_fields(self, request: HttpRequest, obj: Upstream | None = None) -> list[str]:
        """Whoever chooses where a credential is sent, or which, has it: that is for superusers alone."""
        return (
            [] if is_superuser(request) else ["name", "protocol", "base_url", "credential_env", "profile", "is_sandbox"]
        )

    def has_delete_permission(self, request: HttpRequest, obj: Upstream | None = None) -> bool:
        """Never: price versions name it. Disable it instead."""
        return False


class AliasInline(OperatorInline):
    model = LanguageModelAlias


class RouteInline(OperatorInline):
    model = Route
    autocomplete_fields = ["upstream"]


@admin.register(LanguageModel)
class LanguageModelAdmin(OperatorAdmin):
    form = LanguageModelForm
    list_display = ["model_id", "display_name", "context_tokens", "max_output_tokens", "is_enabled"]
    list_filter = ["is_enabled"]
    search_fields = ["model_id", "display_name", "aliases__alias"]
    inlines = [AliasInline, RouteInline]

    def has_delete_permission(self, request: HttpRequest, obj: LanguageModel | None = None) -> bool:
        """Never: price versions and usage name it. Disable it instead."""
        return False


class PriceComponentInline(ReadOnlyInline):
    model = PriceComponent
    fields = ["component", "prompt_tokens_from", "price"]
    readonly_fields = ["price"]

    @admin.display(description="USD for a million (tokens) or for one")
    def price(self, component: PriceComponent) -> str:
        if component.component in (PriceComponent.Component.IMAGE, PriceComponent.Component.WEB_SEARCH):
            return picos_usd(component.picos_per_unit)
        return picos_per_million(component.picos_per_unit)


@admin.register(PriceVersion)
class PriceVersionAdmin(ReadOnlyAdmin):
    list_display = ["language_model", "seller", "effective_from", "state", "created_by", "approved_by"]
    list_filter = [("approved_at", admin.EmptyFieldListFilter), "upstream"]
    list_select_related = ["language_model", "upstream"]
    search_fields = ["language_model__model_id"]
    inlines = [PriceComponentInline]
    actions_detail = ["approve"]

    @admin.display(description="Seller", ordering="upstream__name")
    def seller(self, version: PriceVersion) -> str:
        return version.upstream.name if version.upstream else "Sale"

    @admin.display(description="State")
    def state(self, version: PriceVersion) -> str:
        if not version.approved_at:
            return "Draft"
        return "Scheduled" if version.effective_from > timezone.now() else "Approved"

    @detail_action("Approve", permission="billing.change_priceversion", url_path="approve")
    def approve(self, request: HttpRequest, object_id: str) -> HttpResponse:
        version = self.row_or_404(request, object_id)
        if request.method == "POST":
            try:
                approve_price_version(version, approved_by=str(request.user))
            except (ApprovalError, InvalidPriceError) as error:
                messages.error(request, str(error))
            else:
                self.log_change(request, version, "Approved")
                messages.success(request, f"{version} is approved.")
            return redirect(reverse("admin:billing_priceversion_change", args=[object_id]))
        return operator_form(
            self,
            request,
            row=version,
            title=f"Approve {version}?",
            text="It prices requests from its date on, or from now, whichever is later, and cannot be changed.",
            form=QuestionForm(),
            submit="Approve price",
        )


@admin.register(OrganizationPriceFactor)
class OrganizationPriceFactorAdmin(OperatorAdmin):
    """A dated markup or discount. Added, never edited: what was billed with it must stay explained."""

    list_display = ["organization", "factor", "effective_from", "effective_to", "reason", "created_by"]
    list_select_related = ["organization"]
    autocomplete_fields = ["organization"]
    fields = ["organization", "factor_ppm", "effective_from", "effective_to", "reason"]

    @admin.display(description="Factor", ordering="factor_ppm")
    def factor(self, row: OrganizationPriceFactor) -> str:
        return f"{row.factor_ppm / FACTOR_ONE_PPM:g}"

    def has_change_permission(self, request: HttpRequest, obj: OrganizationPriceFactor | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: OrganizationPriceFactor | None = None) -> bool:
        return False

    def save_model(self, request: HttpRequest, obj: OrganizationPriceFactor, form: Any, change: bool) -> None:
        obj.created_by = str(request.user)
        super().save_model(request, obj, form, change)
