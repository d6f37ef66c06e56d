"""The whole story of one request, for operators: what is known of it in every table, whoever's it is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db.models import Q

from accounts.models import ApiKey, Organization
from billing.models import (
    FailedRequest,
    LedgerTransaction,
    RefusedRequest,
    ReratedRequest,
    UsageCorrection,
    UsageQuarantine,
    UsageRecord,
)
from billing.usage.receipts import FailedReceipt, Receipt, find_receipt
from billing.usage.refusals import find_refusal

MAX_POSTINGS = 50
MAX_QUARANTINED = 1_000  # Open and resolved events that are looked through for the id.


@dataclass(frozen=True, slots=True)
class RequestStory:
    """Exactly one of `billed`, `failed` and `refused` is there, or none where only the quarantine knows the request."""

    request_id: UUID
    organization: Organization | None
    key: ApiKey | None
    billed: Receipt | None
    failed: FailedReceipt | None
    refused: RefusedRequest | None
    quarantined: Sequence[UsageQuarantine]
    postings: Sequence[LedgerTransaction]  # Oldest first, with their entries and accounts.

    @property
    def record(self) -> UsageRecord | FailedRequest | None:
        receipt = self.billed or self.failed
        return receipt.record if receipt is not None else None

    @property
    def attempts(self) -> Sequence[dict[str, Any]]:
        receipt = self.billed or self.failed
        return receipt.attempts if receipt is not None else ()

    @property
    def ending(self) -> str:
        """How it ended, in a few words."""
        if self.refused is not None:
            return f"refused, HTTP {self.refused.status}, {self.refused.error_code}"
        if self.failed is not None:
            return f"failed, nothing billed: {self.failed.record.error_code}"
        if self.billed is not None:
            return f"billed, usage {self.billed.record.get_usage_source_display().lower()}"
        return "in quarantine"


def tell_story(request_id: UUID) -> RequestStory | None:
    """Return what is known of a request, or None when nothing is: it runs yet, waits for settlement, or never was."""
    organization_id = _organization_of(request_id)
    quarantined = _find_quarantined(request_id)
    if organization_id is None and not quarantined:
        return None
    organization = Organization.objects.filter(pk=organization_id).first() if organization_id else None
    receipt = find_receipt(organization, request_id) if organization else None
    refused = find_refusal(organization.pk, request_id) if organization and receipt is None else None
    record = receipt.record if receipt is not None else refused
    return RequestStory(
        request_id=request_id,
        organization=organization or (quarantined[0].organization if quarantined else None),
        key=ApiKey.objects.filter(pk=record.key_id).first() if record is not None else None,
        billed=receipt if isinstance(receipt, Receipt) else None,
        failed=receipt if isinstance(receipt, FailedReceipt) else None,
        refused=refused,
        quarantined=quarantined,
        postings=_find_postings(receipt.record) if isinstance(receipt, Receipt) else (),
    )


def _organization_of(request_id: UUID) -> int | None:
    for table in (UsageRecord, FailedRequest, RefusedRequest):
        found = table.objects.filter(request_id=request_id).values_list("organization_id", flat=True).first()
        if found is not None:
            return int(found)
    return None


def _find_quarantined(request_id: UUID) -> list[UsageQuarantine]:
    rows = UsageQuarantine.objects.select_related("organization")[:MAX_QUARANTINED]
    return [row for row in rows if request_id.hex.encode() in bytes(row.raw_event)]


def _find_postings(record: UsageRecord) -> list[LedgerTransaction]:
    """Return the transactions that moved money for the request: its debit, corrections, re-ratings and refunds."""
    correction = UsageCorrection.objects.filter(pk=record.request_id).first()
    ids = {record.ledger_transaction_id, correction.ledger_transaction_id if correction else None} - {None}
    refunds = Q()
    for charge_id in ids:
        refunds |= Q(idempotency_key__startswith=f"refund:{charge_id}:{record.request_id.hex}:")
    reratings = ReratedRequest.objects.filter(request_id=record.request_id)
    rerated = Q(pk__in=list(reratings.values_list("ledger_transaction_id", flat=True)))
    wanted = Q(pk__in=ids) | rerated | refunds if ids else rerated
    found = LedgerTransaction.objects.filter(wanted, organization_id=record.organization_id)
    return list(found.order_by("id").prefetch_related("entries__account__organization")[:MAX_POSTINGS])
