"""Usage and quarantine, to look at; an operator who has dealt with a quarantined event marks it resolved."""

from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse

from accounts.admin_base import QuestionForm, ReadOnlyAdmin, detail_action, operator_form, usd_column
from billing.models import FailedRequest, UsageQuarantine, UsageRecord
from billing.quarantine import resolve_quarantine


@admin.register(UsageRecord)
class UsageRecordAdmin(ReadOnlyAdmin):
    list_display = [
        "request_id",
        "organization_id",
        "key_id",
        "model_id",
        "input_tokens",
        "output_tokens",
        "cost",
        "upstream_cost",
        "usage_source",
        "admitted_at",
    ]
    search_fields = ["=request_id", "=organization_id"]
    ordering = ["-request_id"]
    sortable_by = ()  # Only the request id has an index that a page could follow.
    cost = usd_column("cost_nanos", "Cost")
    upstream_cost = usd_column("upstream_cost_nanos", "Upstream cost")


@admin.register(FailedRequest)
class FailedRequestAdmin(ReadOnlyAdmin):
    list_display = ["request_id", "organization_id", "key_id", "model_id", "error_code", "upstream_cost", "admitted_at"]
    search_fields = ["=request_id", "=organization_id"]
    ordering = ["-request_id"]
    sortable_by = ()
    upstream_cost = usd_column("upstream_cost_nanos", "Upstream cost")


@admin.register(UsageQuarantine)
class UsageQuarantineAdmin(ReadOnlyAdmin):
    list_display = ["id", "organization", "shard", "stream_id", "reason", "created_at", "resolved_at"]
    list_filter = [("resolved_at", admin.EmptyFieldListFilter)]
    list_select_related = ["organization"]
    ordering = ["-id"]
    fields = [
        "organization",
        "shard",
        "stream_id",
        "event",
        "reason",
        "created_at",
        "resolved_at",
        "resolved_by",
    ]
    readonly_fields = ["event"]
    actions_detail = ["resolve"]

    @admin.display(description="Event")
    def event(self, row: UsageQuarantine) -> str:
        return bytes(row.raw_event).decode("utf-8", "backslashreplace")

    @detail_action("Mark resolved", permission="billing.change_usagequarantine", url_path="resolve")
    def resolve(self, request: HttpRequest, object_id: str) -> HttpResponse:
        row = UsageQuarantine.objects.get(pk=object_id)
        if request.method == "POST":
            if resolve_quarantine(row, resolved_by=str(request.user)):
                self.log_change(request, row, "Resolved")
                messages.success(request, "Marked resolved.")
            else:
                messages.info(request, "It was resolved before.")
            return redirect(reverse("admin:billing_usagequarantine_change", args=[object_id]))
        return operator_form(
            self,
            request,
            row=row,
            title="Mark as resolved?",
            text="The event stays here, and nobody is charged for it by this.",
            form=QuestionForm(),
            submit="Mark resolved",
        )
