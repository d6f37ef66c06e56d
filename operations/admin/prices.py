"""Prices: versions beside what they replace, drafts from a list, approval by a second person. Never edited."""

import uuid
from datetime import UTC, datetime
from functools import partial
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from unfold.widgets import UnfoldAdminTextareaWidget, UnfoldAdminTextInputWidget

from billing.catalog.comparison import ComparedPrice, compare, find_replaced, sold_below_cost
from billing.catalog.file import InvalidCatalogError, parse_catalog
from billing.catalog.load import load_prices
from billing.catalog.notices import tell_who_may_approve
from billing.catalog.price_versions import (
    ApprovalError,
    PriceDraft,
    approve_price_version,
    discard_price_version,
    draft_price,
    may_discard,
    stored_tiers,
)
from billing.catalog.profiles import profile_problem
from billing.models import PriceComponent, PriceVersion
from billing.models.price import UNDECIDED
from billing.money import InvalidAmountError, parse_usd_per_million
from billing.pricing.cost import COMPONENTS, InvalidPriceError
from operations.admin.base import ReadOnlyAdmin, ask_first, detail_action, operator_form, usd_column
from operations.admin.rerating import propose_rerating
from operations.asking import operator_of
from pages.forms import Form
from pages.templatetags.amounts import picos_per_million, picos_usd

MAX_LIST_CHARACTERS = 500_000
PER_UNIT = (PriceComponent.Component.IMAGE, PriceComponent.Component.WEB_SEARCH)
ROW = "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>"


class PriceListForm(Form):
    """Sent once it shows what would be drafted; sent again unchanged it is done."""

    price_list = forms.CharField(
        max_length=MAX_LIST_CHARACTERS,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 20}),
        label="Price list",
        help_text="The text of a catalog file (docs/prices.md). Nothing but its prices is looked at.",
    )
    shown = forms.CharField(required=False, widget=forms.HiddenInput)


class SuccessorForm(Form):
    """One amount for each price of the version before; all begin as they are."""

    effective_on = forms.DateField(
        required=False,
        label="From",
        widget=UnfoldAdminTextInputWidget(attrs={"type": "date"}),
        help_text="The beginning of this day, UTC; empty, or past when it is approved: from then on.",
    )
    source = forms.CharField(
        max_length=300, widget=UnfoldAdminTextInputWidget, help_text="Where the amounts were taken from."
    )

    def __init__(self, *args: Any, version: PriceVersion, **options: Any) -> None:
        super().__init__(*args, **options)
        for row in sorted(version.components.all(), key=_place):
            unit = "one" if row.component in PER_UNIT else "a million"
            picos = row.picos_per_unit if unit == "one" else row.picos_per_unit * 1_000_000
            size = f", prompts from {row.prompt_tokens_from:,} tokens" if row.prompt_tokens_from else ""
            self.fields[f"price_{row.pk}"] = forms.CharField(
                max_length=30,
                label=f"{row.get_component_display()}{size}: USD for {unit}",
                initial=picos_usd(picos).removeprefix("$").replace(",", ""),
                widget=UnfoldAdminTextInputWidget(attrs={"inputmode": "decimal"}),
            )


class DiscardForm(Form):
    reason = forms.CharField(max_length=500, widget=UnfoldAdminTextInputWidget, help_text="Who drafted it reads it.")


class StateFilter(admin.SimpleListFilter):
    title, parameter_name = "state", "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, name.capitalize()) for name in ("draft", "scheduled", "approved", "discarded")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[PriceVersion]) -> QuerySet[PriceVersion]:
        approved = Q(approved_at__isnull=False)
        states = {
            "draft": Q(**UNDECIDED),
            "scheduled": approved & Q(effective_from__gt=timezone.now()),
            "approved": approved & Q(effective_from__lte=timezone.now()),
            "discarded": Q(discarded_at__isnull=False),
        }
        return queryset.filter(states.get(self.value() or "", Q()))


@admin.register(PriceVersion)
class PriceVersionAdmin(ReadOnlyAdmin):
    list_display = ["language_model", "seller", "effective_from", "state", "created_by", "approved_by"]
    list_filter = [StateFilter, "upstream"]
    list_select_related = ["language_model", "upstream"]
    search_fields = ["language_model__model_id"]
    actions_detail = ["approve", "discard", "draft_successor", "rerate"]
    fields = ["language_model", "seller", "state", "effective_from", "minimum_charge", "beside", "warnings"]
    fields += [
        "source",
        "source_date",
        "created_by",
        "drafted_by",
        "created_at",
        "approved_by",
        "decided_by",
        "approved_at",
        "discarded_by",
        "discarded_at",
        "discard_reason",
    ]
    shown_once_set = ["drafted_by", "approved_by", "decided_by", "approved_at", "discarded_by", "discarded_at"]
    shown_once_set += ["discard_reason"]
    readonly_fields = ["seller", "state", "minimum_charge", "beside", "warnings", "created_at"]

    minimum_charge = usd_column("minimum_charge_nanos", "Minimum charge")

    @admin.display(description="Seller", ordering="upstream__name")
    def seller(self, version: PriceVersion) -> str:
        return version.upstream.name if version.upstream else "Sale"

    @admin.display(description="State")
    def state(self, version: PriceVersion) -> str:
        if version.is_draft:
            return "Draft"
        if not version.approved_at:
            return "Discarded"
        return "Scheduled" if version.effective_from > timezone.now() else "Approved"

    @admin.display(description="Beside what it replaces")
    def beside(self, version: PriceVersion) -> SafeString:
        replaced = find_replaced(version)
        rows = format_html_join("", ROW, (_cells(row) for row in compare(replaced, version)))
        before = format_html(
            "{}", f"From {replaced.effective_from:%Y-%m-%d %H:%M:%S} UTC" if replaced else "Before: nothing"
        )
        head = '<tr><th scope="col">Component</th><th scope="col">Prompts from</th><th scope="col">{}</th>'
        head += '<th scope="col">This version</th><th scope="col">Change</th></tr>'
        return format_html(f'<table class="w-full text-left">{head}{{}}</table>', before, rows)

    @admin.display(description="Look at")
    def warnings(self, version: PriceVersion) -> str:
        return "; ".join(sold_below_cost(version)) or "Nothing is sold below cost"

    def has_add_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("billing.add_priceversion")

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        """Drafts from a price list: first what differs, then, if the list is the same, the drafts."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        form = PriceListForm(request.POST or None)
        text, submit = (
            "What a provider's list, or ours, says otherwise than the prices in force becomes drafts.",
            "Compare",
        )
        if request.method == "POST" and form.is_valid():
            try:
                lines, is_done = _draft_from_list(request, form)
            except InvalidCatalogError as error:
                for problem in error.errors[:20]:
                    form.add_error("price_list", problem)
            else:
                if is_done:
                    return redirect(reverse("admin:billing_priceversion_changelist") + "?state=draft")
                text, submit = "\n".join(lines) or "Nothing differs.", "Make drafts" if lines else "Compare"
                mark = str(uuid.uuid5(uuid.NAMESPACE_OID, form.cleaned_data["price_list"]))
                form = PriceListForm(initial={**form.cleaned_data, "shown": mark if lines else ""})
        return operator_form(
            self, request, row=None, title="Compare with a price list", text=text, form=form, submit=submit
        )

    def offers(self, request: HttpRequest, row: PriceVersion, button: str) -> bool:
        if button == "approve":
            return row.is_draft and row.drafted_by_id != operator_of(request).pk
        if button == "discard":
            return row.is_draft and may_discard(row, operator_of(request))
        return button != "rerate" or row.approved_at is not None

    @detail_action("Draft a successor", permission="billing.add_priceversion", url_path="successor")
    def draft_successor(self, request: HttpRequest, object_id: str) -> HttpResponse:
        version: PriceVersion = self.row_or_404(request, object_id)
        form = SuccessorForm(request.POST or None, version=version)
        if request.method == "POST" and form.is_valid():
            draft = _draft_successor(request, version, form)
            if draft is not None:
                messages.success(request, "Drafted. Somebody else approves it.")
                return redirect(reverse("admin:billing_priceversion_change", args=[draft.pk]))
        return operator_form(
            self,
            request,
            row=version,
            title=f"Draft what follows {version}",
            text="Prices are never edited: this is a new version. It prices nothing before somebody else approves it.",
            form=form,
            submit="Make draft",
        )

    @detail_action("Price a past window again", permission="billing.adjust_balance", url_path="rerate")
    def rerate(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return propose_rerating(self, request, self.row_or_404(request, object_id))

    @detail_action("Approve", permission="billing.change_priceversion", url_path="approve")
    def approve(self, request: HttpRequest, object_id: str) -> HttpResponse:
        version = self.row_or_404(request, object_id)

        def do() -> None:
            try:
                approve_price_version(version, approved_by=str(request.user), decided_by=operator_of(request))
            except (ApprovalError, InvalidPriceError) as error:
                messages.error(request, str(error))
            else:
                self.log_change(request, version, "Approved")
                messages.success(request, f"{version} is approved.")

        title, text = f"Approve {version}?", partial(_what_approval_does, version)
        return ask_first(self, request, version, do, title=title, text=text, submit="Approve price")

    @detail_action("Discard", permission="billing.add_priceversion", url_path="discard")
    def discard(self, request: HttpRequest, object_id: str) -> HttpResponse:
        version = self.row_or_404(request, object_id)
        form = DiscardForm(request.POST or None)
        if request.method == "POST" and form.is_valid():
            reason = form.cleaned_data["reason"]
            try:
                discard_price_version(version, by=operator_of(request), reason=reason)
            except ApprovalError as error:
                messages.error(request, str(error))
            else:
                self.log_change(request, version, f"Discarded: {reason}")
                messages.success(request, f"{version} is discarded.")
            return redirect(reverse("admin:billing_priceversion_change", args=[object_id]))
        return operator_form(
            self,
            request,
            row=version,
            title=f"Discard {version}?",
            text=f"{version.created_by} drafted it. It prices nothing, is kept with your reason, and can never be"
            " approved; whoever wants these amounts after all drafts them anew.",
            form=form,
            submit="Discard draft",
            is_dangerous=True,
        )


def _what_approval_does(version: PriceVersion) -> str:
    text = "It prices requests from its date on, or from now, whichever is later, and cannot be changed."
    changed = [row for row in compare(find_replaced(version), version) if not row.is_same]
    differences = [" ".join(filter(None, (row.component, *_cells(row)[2:]))) for row in changed]
    return "\n".join([text, *differences, *sold_below_cost(version)])


def _place(row: PriceComponent) -> tuple[int, int]:
    """Order prices as their comparison does: input and output first."""
    return row.prompt_tokens_from, COMPONENTS.index(row.component)


def _cells(row: ComparedPrice) -> tuple[str, str, str, str, str]:
    change = row.change_percent
    word = "new" if row.before_picos is None else "gone" if row.after_picos is None else "none" if row.is_same else ""
    percent = word or (f"{change:+.2f} %" if change is not None else "from nothing")
    size = f"{row.prompt_tokens_from:,} tokens" if row.prompt_tokens_from else "0"
    return (row.component.replace("_", " "), size, _price(row, row.before_picos), _price(row, row.after_picos), percent)


def _price(row: ComparedPrice, picos: int | None) -> str:
    if picos is None:
        return "-"
    return f"{picos_usd(picos)} each" if row.component in PER_UNIT else f"{picos_per_million(picos)} a million"


def _draft_from_list(request: HttpRequest, form: PriceListForm) -> tuple[list[str], bool]:
    """Return what differs, and whether the drafts are made. Raises InvalidCatalogError."""
    text = form.cleaned_data["price_list"]
    catalog = parse_catalog(text, file_name="the list", check_profile=profile_problem)
    is_sure = form.cleaned_data["shown"] == str(uuid.uuid5(uuid.NAMESPACE_OID, text))
    changes = load_prices(catalog, actor=str(request.user), account=operator_of(request), dry_run=not is_sure)
    if is_sure:
        messages.success(request, f"{len(changes.drafts)} drafts wait for approval.")
    return changes.lines, is_sure


def _draft_successor(request: HttpRequest, version: PriceVersion, form: SuccessorForm) -> PriceVersion | None:
    values = form.cleaned_data
    tiers = {component: dict(rows) for component, rows in stored_tiers(version).items()}
    for row in version.components.all():
        name = f"price_{row.pk}"
        try:
            per_million = parse_usd_per_million(values[name])
        except InvalidAmountError as error:
            form.add_error(name, str(error))
            continue
        tiers[row.component][row.prompt_tokens_from] = per_million * (1_000_000 if row.component in PER_UNIT else 1)
    if form.errors:
        return None
    day = values["effective_on"]
    wanted = PriceDraft(
        effective_from=datetime(day.year, day.month, day.day, tzinfo=UTC) if day else timezone.now(),
        source=values["source"],
        source_date=timezone.now().date(),
        tiers={component: tuple(sorted(rows.items())) for component, rows in tiers.items()},
        minimum_charge_nanos=version.minimum_charge_nanos,
        upstream=version.upstream,
    )
    operator = operator_of(request)
    try:
        with transaction.atomic():
            draft = draft_price(version.language_model, wanted, created_by=str(operator), drafted_by=operator)
            tell_who_may_approve([draft])
            return draft
    except InvalidPriceError as error:
        form.add_error(None, str(error))
        return None
