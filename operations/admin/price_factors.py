"""Markups and discounts of organizations. Added, never edited: what was billed with one must stay explained."""

import uuid
from decimal import Decimal
from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from unfold.widgets import UnfoldAdminTextInputWidget

from billing.models import Approval, OrganizationPriceFactor
from billing.pricing.cost import FACTOR_ONE_PPM, MAX_FACTOR_PPM
from billing.usage.report import start_of_day
from operations.admin.base import OrganizationField, ReadOnlyAdmin, operator_form
from operations.asking import ask_or_tell
from pages.forms import Form

MAX_FACTOR = MAX_FACTOR_PPM // FACTOR_ONE_PPM


class PriceFactorForm(Form):
    organization = OrganizationField()
    factor = forms.DecimalField(
        min_value=Decimal(0),
        max_value=Decimal(MAX_FACTOR),
        decimal_places=6,
        widget=UnfoldAdminTextInputWidget(attrs={"inputmode": "decimal"}),
        help_text="1 is the published price, 0.9 is 10 % off.",
    )
    from_day = forms.DateField(
        required=False,
        label="From",
        widget=UnfoldAdminTextInputWidget(attrs={"type": "date"}),
        help_text="The beginning of this day, UTC. Empty, or past when it is applied: from then on.",
    )
    to_day = forms.DateField(
        required=False,
        label="To",
        widget=UnfoldAdminTextInputWidget(attrs={"type": "date"}),
        help_text="The beginning of this day, UTC. Empty: until another one begins.",
    )
    reason = forms.CharField(max_length=300, widget=UnfoldAdminTextInputWidget)
    form_id = forms.UUIDField(widget=forms.HiddenInput)


@admin.register(OrganizationPriceFactor)
class OrganizationPriceFactorAdmin(ReadOnlyAdmin):
    list_display = ["organization", "factor", "effective_from", "effective_to", "reason", "created_by"]
    list_select_related = ["organization"]
    search_fields = ["=organization__slug"]
    fields = ["organization", "factor", "effective_from", "effective_to", "reason", "created_by", "created_at"]
    readonly_fields = ["factor", "created_at"]
    ordering = ["-id"]

    @admin.display(description="Factor", ordering="factor_ppm")
    def factor(self, row: OrganizationPriceFactor) -> str:
        return f"{row.factor_ppm / FACTOR_ONE_PPM:g}"

    def has_add_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("billing.add_organizationpricefactor")

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        if not self.has_add_permission(request):
            raise PermissionDenied
        form = PriceFactorForm(
            request.POST or None,
            initial={"form_id": uuid.uuid4(), "organization": request.GET.get("organization", "")},
        )
        if request.method == "POST" and form.is_valid() and _add(request, form):
            return redirect(reverse("admin:billing_organizationpricefactor_changelist"))
        return operator_form(
            self,
            request,
            row=None,
            title="Add a price factor",
            text="From 0.9 to 1.1 you may add it alone, if your role moves money; everything else waits for a second"
            " person.",
            form=form,
            submit="Add price factor",
        )


def _add(request: HttpRequest, form: PriceFactorForm) -> bool:
    values = form.cleaned_data
    to_day = values["to_day"]
    from_day = values["from_day"]
    return ask_or_tell(
        request,
        form,
        Approval.Kind.PRICE_FACTOR,
        organization=values["organization"],
        terms={
            "factor_ppm": int(values["factor"] * FACTOR_ONE_PPM),
            "effective_from": start_of_day(from_day).isoformat() if from_day else None,
            "effective_to": start_of_day(to_day).isoformat() if to_day else None,
        },
        amount_nanos=0,
        done="The price factor is added.",
    )
