"""The receipt of one request: its arithmetic, written out so that anybody can do it again.

Read by the console's receipt page and by the API. What was paid is the recorded cost; the lines are computed afresh
from the price version that the record names, and both are shown, so that a difference could not hide.
"""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from accounts.models import ApiKey, Organization
from billing.catalog.price_versions import price_table
from billing.corrections.refunds import refunded_nanos
from billing.corrections.rerating import current_costs
from billing.models import (
    FailedRequest,
    LedgerTransaction,
    PriceComponent,
    PriceVersion,
    RequestDetail,
    UsageCorrection,
    UsageRecord,
)
from billing.money import PICOS_PER_NANO
from billing.pricing import cost


@dataclass(frozen=True, slots=True)
class ReceiptLine:
    """`picos` is `count` times `picos_per_unit`, in pico-dollars. `count` is in tokens, images or searches."""

    component: str
    label: str
    count: int
    picos_per_unit: int
    picos: int


@dataclass(frozen=True, slots=True)
class Receipt:
    """A billed request. `recomputed_nanos` is None when its price version cannot be read any more.

    The record and its lines say what was charged at the time. `correction` is the truth about an orphan, with lines of
    its own; `rerated_nanos` is what the request costs since it was corrected or re-rated, None when it was neither;
    `refunded_nanos` is what refunds gave back.
    """

    record: UsageRecord
    price_version: PriceVersion | None
    lines: tuple[ReceiptLine, ...]
    recomputed_nanos: int | None
    key: ApiKey | None
    detail: RequestDetail | None
    ledger_transaction: LedgerTransaction | None
    rerated_nanos: int | None
    refunded_nanos: int
    correction: UsageCorrection | None = None
    corrected_lines: tuple[ReceiptLine, ...] = ()

    @property
    def current_nanos(self) -> int:
        """What the organization pays for the request, after every correction."""
        paid_nanos = self.record.cost_nanos if self.rerated_nanos is None else self.rerated_nanos
        return paid_nanos - self.refunded_nanos

    @property
    def can_be_refunded(self) -> bool:
        return self.current_nanos > 0

    @property
    def is_corrected(self) -> bool:
        return self.rerated_nanos is not None or self.refunded_nanos != 0

    @property
    def subtotal_picos(self) -> int:
        return sum(line.picos for line in self.lines)

    @property
    def minimum_charge_nanos(self) -> int:
        """The minimum charge where it applied, else 0."""
        minimum = self.price_version.minimum_charge_nanos if self.price_version else 0
        return minimum if self.lines and minimum * PICOS_PER_NANO > self.subtotal_picos else 0

    @property
    def has_factor(self) -> bool:
        return self.record.factor_ppm != cost.FACTOR_ONE_PPM

    @property
    def agrees(self) -> bool:
        return self.recomputed_nanos == self.record.cost_nanos

    @property
    def attempts(self) -> list[dict[str, Any]]:
        return list(self.record.attempts)


@dataclass(frozen=True, slots=True)
class FailedReceipt:
    """A request that was admitted and not served: nothing was billed."""

    record: FailedRequest
    key: ApiKey | None
    detail: RequestDetail | None

    @property
    def attempts(self) -> list[dict[str, Any]]:
        return list(self.record.attempts)


def find_receipt(organization: Organization, request_id: UUID) -> Receipt | FailedReceipt | None:
    """Return the receipt of a settled request of this organization, or None: unknown, another's, or not settled yet."""
    record = UsageRecord.objects.filter(organization_id=organization.pk, request_id=request_id).first()
    if record is not None:
        return _write_receipt(organization, record)
    failed = FailedRequest.objects.filter(organization_id=organization.pk, request_id=request_id).first()
    if failed is None:
        return None
    return FailedReceipt(
        record=failed, key=_find_key(organization, failed.key_id), detail=_find_detail(organization, request_id)
    )


def _write_receipt(organization: Organization, record: UsageRecord) -> Receipt:
    version = PriceVersion.objects.filter(pk=record.price_version_id).prefetch_related("components").first()
    usage = cost.Usage.of(record)
    correction = UsageCorrection.objects.filter(pk=record.request_id, organization_id=organization.pk).first()
    lines: tuple[ReceiptLine, ...] = ()
    corrected_lines: tuple[ReceiptLine, ...] = ()
    recomputed_nanos = None
    if version is not None:
        table = price_table(version)
        try:
            lines = _write_lines(usage, table)
            recomputed_nanos = cost.cost_nanos(usage, table, record.factor_ppm)
            if correction is not None:
                corrected_lines = _write_lines(cost.Usage.of(correction), table)
        except cost.PricingError:
            lines = ()
    return Receipt(
        record=record,
        price_version=version,
        lines=lines,
        recomputed_nanos=recomputed_nanos,
        key=_find_key(organization, record.key_id),
        detail=_find_detail(organization, record.request_id),
        ledger_transaction=LedgerTransaction.objects.filter(
            organization=organization, pk=record.ledger_transaction_id
        ).first()
        if record.ledger_transaction_id
        else None,
        rerated_nanos=current_costs([record.request_id]).get(record.request_id),
        refunded_nanos=refunded_nanos(record),
        correction=correction,
        corrected_lines=corrected_lines,
    )


def _write_lines(usage: cost.Usage, table: cost.PriceTable) -> tuple[ReceiptLine, ...]:
    lines = []
    for component, count in zip(cost.COMPONENTS, usage.counts, strict=True):
        if not count:
            continue
        picos_per_unit = table.picos_per_unit(component, prompt_tokens=usage.prompt_tokens)
        label = str(PriceComponent.Component(component).label)
        lines.append(ReceiptLine(component, label, count, picos_per_unit, count * picos_per_unit))
    return tuple(lines)


def _find_key(organization: Organization, key_id: int) -> ApiKey | None:
    return ApiKey.objects.filter(organization=organization, pk=key_id).first()


def _find_detail(organization: Organization, request_id: UUID) -> RequestDetail | None:
    return RequestDetail.objects.filter(organization_id=organization.pk, request_id=request_id).first()
