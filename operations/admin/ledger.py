"""The ledger, to look at. Nothing here can be added, changed or deleted: corrections are new transactions."""

from django.contrib import admin

from billing.models import CreditLot, CreditLotEntry, LedgerAccount, LedgerEntry, LedgerTransaction
from operations.admin.base import ReadOnlyAdmin, ReadOnlyInline, usd_column


class EntryInline(ReadOnlyInline):
    model = LedgerEntry
    fields = ["account", "seq", "amount", "balance_after"]
    readonly_fields = ["amount", "balance_after"]
    amount = usd_column("amount_nanos", "Amount")
    balance_after = usd_column("balance_after_nanos", "Balance after")

    def get_queryset(self, request):  # type: ignore[no-untyped-def]  # of unfold's untyped class
        return super().get_queryset(request).select_related("account__organization")


class LotEntryInline(ReadOnlyInline):
    model = CreditLotEntry
    fields = ["transaction", "amount", "remaining_after"]
    readonly_fields = ["amount", "remaining_after"]
    amount = usd_column("amount_nanos", "Amount")
    remaining_after = usd_column("remaining_after_nanos", "Remaining after")
    per_page = 50


@admin.register(LedgerTransaction)
class LedgerTransactionAdmin(ReadOnlyAdmin):
    list_display = ["id", "kind", "organization", "actor", "reason", "created_at"]
    list_filter = ["kind"]
    list_select_related = ["organization"]
    search_fields = ["=idempotency_key", "=organization__slug"]
    ordering = ["-id"]
    inlines = [EntryInline]


@admin.register(LedgerAccount)
class LedgerAccountAdmin(ReadOnlyAdmin):
    list_display = ["id", "organization", "kind", "shard", "payment_provider", "balance", "last_seq"]
    list_filter = ["kind"]
    list_select_related = ["organization"]
    search_fields = ["=organization__slug"]
    balance = usd_column("balance_nanos", "Balance")


@admin.register(LedgerEntry)
class LedgerEntryAdmin(ReadOnlyAdmin):
    list_display = ["id", "account", "seq", "amount", "balance_after", "transaction"]
    list_select_related = ["account__organization", "transaction"]
    search_fields = ["=account__organization__slug", "=transaction__id"]
    ordering = ["-id"]
    amount = usd_column("amount_nanos", "Amount")
    balance_after = usd_column("balance_after_nanos", "Balance after")


@admin.register(CreditLot)
class CreditLotAdmin(ReadOnlyAdmin):
    list_display = ["id", "organization", "kind", "origin", "amount", "remaining", "expires_at", "created_at"]
    list_filter = ["kind"]
    list_select_related = ["organization"]
    search_fields = ["=organization__slug"]
    ordering = ["-id"]
    inlines = [LotEntryInline]
    amount = usd_column("amount_nanos", "Amount")
    remaining = usd_column("remaining_nanos", "Remaining")
