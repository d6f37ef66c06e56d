"""Payments against the provider's list of a day: what was paid and not credited, credited and not paid, or differs."""

from collections.abc import Iterator
from datetime import date, datetime, timedelta
from typing import Protocol

from billing.models import PaymentBreak, TopUp
from billing.money import say_usd
from billing.payments.provider import CheckoutPaid
from billing.reconciliation.breaks import PAYMENT_BREAK_PREFIX, Difference
from billing.usage.report import start_of_day

# A payment near midnight may be of the next day in the provider's list.
MARGIN = timedelta(hours=6)


class ListsPayments(Protocol):
    """What is needed of a payment provider: see billing.payments.provider.PaymentProvider."""

    name: str

    def list_payments(self, start: datetime, end: datetime) -> Iterator[CheckoutPaid]: ...


def compare_payments(provider: ListsPayments, day: date) -> tuple[int, list[Difference]]:
    """Return how many payments were compared, and which differ. Raises PaymentProviderError when it cannot be asked."""
    begins, ends = start_of_day(day), start_of_day(day + timedelta(days=1))
    listed = list(provider.list_payments(begins - MARGIN, ends + MARGIN))
    theirs = [paid for paid in listed if begins <= paid.occurred_at < ends]
    ours = TopUp.objects.filter(provider=provider.name, state__in=TopUp.CREDITED_STATES)
    by_reference = {order.reference: order for order in ours.filter(reference__in=[paid.reference for paid in listed])}
    found = [_differs(paid, by_reference.get(paid.reference)) for paid in theirs]
    known = {paid.reference for paid in listed}
    credited = ours.filter(paid_at__gte=begins, paid_at__lt=ends)
    missing = [_not_listed(order) for order in credited if order.reference not in known]
    differences = [*(difference for difference in found if difference is not None), *missing]
    return len(theirs) + len(missing), differences


def open_payment_breaks() -> list[Difference]:
    """Return what payments themselves found and nobody has resolved yet, so that one list has all of it."""
    rows = PaymentBreak.objects.filter(resolved_at=None).select_related("top_up").order_by("id")
    return [
        Difference(
            f"{PAYMENT_BREAK_PREFIX}{row.pk}",
            f"{row.get_kind_display()}: {row.detail}",
            row.amount_nanos,
            row.top_up.organization_id if row.top_up else None,
        )
        for row in rows
    ]


def _differs(paid: CheckoutPaid, order: TopUp | None) -> Difference | None:
    subject = f"{paid.provider}:{paid.payment_id or paid.checkout_id or paid.reference}"
    if order is None:
        return Difference(
            subject,
            f"{paid.provider} has {say_usd(paid.paid_nanos)} of payment {paid.payment_id or '?'} for order"
            f" {paid.reference}, and we credited nothing for it.",
            -paid.paid_nanos,
            TopUp.objects.filter(reference=paid.reference).values_list("organization_id", flat=True).first(),
        )
    off = (order.paid_nanos or 0) - paid.paid_nanos
    if not off:
        return None
    return Difference(
        subject,
        f"{order} says that {say_usd(order.paid_nanos or 0)} was paid; {paid.provider} says"
        f" {say_usd(paid.paid_nanos)}.",
        off,
        order.organization_id,
    )


def _not_listed(order: TopUp) -> Difference:
    paid = order.paid_nanos or 0
    return Difference(
        f"{order.provider}:{order.payment_id or order.reference}",
        f"{order} was credited for {say_usd(paid)}, and {order.provider} lists no such payment.",
        paid,
        order.organization_id,
    )
