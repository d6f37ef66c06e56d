"""Breaks of payments: what a provider and the ledger disagree about, once for its reference, until it is resolved."""

from django.utils import timezone

from billing.models import PaymentBreak, TopUp

MAX_DETAIL_CHARACTERS, MAX_REFERENCE_CHARACTERS, MAX_RESOLUTION_CHARACTERS = 500, 200, 500


def note_break(
    kind: PaymentBreak.Kind,
    provider: str,
    reference: str,
    detail: str,
    top_up: TopUp | None = None,
    amount_nanos: int = 0,
) -> bool:
    """Keep a break, once for its reference. Returns whether it is new."""
    _, is_new = PaymentBreak.objects.get_or_create(
        provider=provider,
        kind=kind,
        reference=reference[:MAX_REFERENCE_CHARACTERS],
        defaults={"top_up": top_up, "amount_nanos": amount_nanos, "detail": detail[:MAX_DETAIL_CHARACTERS]},
    )
    return is_new


def resolve_break(row: PaymentBreak, *, resolution: str, actor: str) -> bool:
    """Say how it was resolved. Returns False when it was resolved before."""
    if not resolution.strip():
        raise ValueError("A break is resolved by a note.")
    changed = PaymentBreak.objects.filter(pk=row.pk, resolved_at=None).update(
        resolved_at=timezone.now(), resolved_by=actor, resolution=resolution.strip()[:MAX_RESOLUTION_CHARACTERS]
    )
    return bool(changed)
