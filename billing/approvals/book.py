"""Asks for changes of money, and decides them. The only writer of approvals.

What an operator may do alone is applied at once, in the transaction that counts it. What waits is applied once, by
somebody else, under the lock of its row. Payment refunds ask their provider after the commit, under the same key, and
re-ratings are posted by a job (rerating_work.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.utils import timezone

from accounts.models import Organization, User
from billing.approvals.actors import actor_of
from billing.approvals.bounds import needs_second_person
from billing.approvals.kinds import CHANGES, REFUSALS, ChangeError
from billing.approvals.notices import APPROVE_PERMISSION, tell_who_may_decide
from billing.approvals.reratings import preview_rerating
from billing.ledger.book import IdempotencyConflictError
from billing.ledger.statements import posted_nanos
from billing.models import Approval, LedgerEntry, LedgerTransaction, PaymentRefund, TopUp
from billing.money import format_usd
from billing.payments.provider import PaymentProviderError, PaymentRefusedError
from billing.payments.refunds import InvalidPaymentRefundError, plan_refund, refund_top_up

EXPIRES_AFTER = timedelta(days=7)
MAX_WAITING = 1_000


class ApprovalError(ValueError):
    """It cannot be decided like this; the text says why."""


class NotPermittedError(ApprovalError):
    """The operator's role does not permit it."""


class SamePersonError(ApprovalError):
    """Whoever asked for a change does not approve it."""


class AlreadyDecidedError(ApprovalError):
    """It was decided before, or is too old to be."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What became of a request: `waits_because` is "" when it was applied at once."""

    approval: Approval
    is_new: bool
    waits_because: str = ""

    @property
    def transaction(self) -> LedgerTransaction | None:
        return self.approval.ledger_transaction


def ask(
    kind: Approval.Kind,
    *,
    organization: Organization | None,
    terms: Mapping[str, Any],
    amount_nanos: int,
    reason: str,
    asked_by: User,
    idempotency_key: str,
    shell_user: str = "",
) -> Asked:
    """Apply a change at once when the operator may make it alone, else let it wait. Once for the idempotency key.

    Raises NotPermittedError, one of kinds.REFUSALS, IdempotencyConflictError when the key was used for another change,
    and PaymentProviderError, after which the refund stands and is asked for again by itself.
    """
    if not reason.strip():
        raise ChangeError("It says why.")
    if not asked_by.has_perm(CHANGES[kind].permission):
        raise NotPermittedError(f"The role of {asked_by} does not permit: {kind.label.lower()}.")
    now = timezone.now()
    approval = Approval(
        kind=kind,
        organization=organization,
        terms=dict(terms),
        amount_nanos=amount_nanos,
        reason=reason.strip(),
        asked_by=asked_by,
        asked_at=now,
        shell_user=shell_user,
        expires_at=now + EXPIRES_AFTER,
        idempotency_key=idempotency_key,
    )
    with transaction.atomic():
        # The asker's row is the lock: two forms at once cannot both fit under one bound.
        User.objects.select_for_update(no_key=True).get(pk=asked_by.pk)
        known = Approval.objects.select_related("ledger_transaction").filter(idempotency_key=idempotency_key).first()
        if known is not None:
            return _same(known, approval)
        waits_because = needs_second_person(asked_by, approval)
        if waits_because:
            dry_run(approval)  # Nonsense does not wait for anybody.
            approval.save()
            tell_who_may_decide(approval)
            return Asked(approval, is_new=True, waits_because=waits_because)
        is_new = _apply(approval, decided_by=None)
        approval.save()
    finish(approval)
    return Asked(approval, is_new=is_new)


def approve(approval: Approval, *, by: User) -> Approval:
    """Apply what waits, once. Raises NotPermittedError, SamePersonError, AlreadyDecidedError, one of kinds.REFUSALS.

    Also PaymentProviderError, after which the refund stands and is asked for again by itself.
    """
    with transaction.atomic():
        locked = _lock_open(approval, by)
        if by.pk == locked.asked_by_id:
            raise SamePersonError("Somebody else approves what you asked for.")
        if not locked.asked_by.has_perm(CHANGES[locked.kind].permission):
            raise NotPermittedError("Whoever asked for it may not do so any more. Refuse it, and ask in your own name.")
        _apply(locked, decided_by=by)
        locked.save()
    finish(locked)
    return locked


def refuse(approval: Approval, *, by: User, reason: str) -> Approval:
    """Refuse what waits, with a reason; the asker withdraws. Raises NotPermittedError and AlreadyDecidedError."""
    if not reason.strip():
        raise ApprovalError("A refusal says why.")
    with transaction.atomic():
        is_own = by.pk == approval.asked_by_id
        locked = _lock_open(approval, by, is_own=is_own)
        locked.state = Approval.State.WITHDRAWN if is_own else Approval.State.REFUSED
        locked.decided_by, locked.decided_at, locked.decision = by, timezone.now(), reason.strip()[:500]
        locked.save()
    return locked


def waiting(*, now: datetime | None = None) -> Sequence[Approval]:
    """Return what waits for a second person, oldest first."""
    rows = Approval.objects.filter(state=Approval.State.WAITING, expires_at__gt=now or timezone.now())
    return list(rows.select_related("organization", "asked_by").order_by("id")[:MAX_WAITING])


def expire_old(*, now: datetime) -> int:
    """Mark what waited too long. It could not be approved any more since then; returns how many there were."""
    late = Approval.objects.filter(state=Approval.State.WAITING, expires_at__lte=now)
    return late.update(state=Approval.State.EXPIRED, decided_at=now)


def dry_run(approval: Approval) -> list[LedgerEntry]:
    """Return the entries that it would post now, and post nothing. Raises one of kinds.REFUSALS.

    A payment refund's entries come with its provider's answer: see billing.payments.refunds.plan_refund().
    """
    with transaction.atomic():
        posted = CHANGES[approval.kind].apply(approval, str(approval.asked_by))
        entries = list(posted.transaction.entries.select_related("account").order_by("id")) if posted else []
        transaction.set_rollback(True)
    return entries


def preview(approval: Approval) -> list[str]:
    """Return what it would post now, line by line, in words. Raises one of kinds.REFUSALS."""
    if approval.kind == Approval.Kind.RERATING:
        return preview_rerating(approval.terms)
    if approval.kind == Approval.Kind.PAYMENT_REFUND:
        top_up = TopUp.objects.get(pk=approval.terms["top_up_id"])
        plan = plan_refund(top_up, amount_nanos=approval.terms["amount_nanos"])
        lines = [f"{name.replace('_', ' ')}: {format_usd(nanos)} USD" for name, nanos in plan.postings]
        after = f"The balance would be {format_usd(plan.balance_after_nanos)} USD."
        return [*filter(None, [plan.warning]), *lines, after]
    entries = dry_run(approval)
    lines = [f"{entry.account.get_kind_display()}: {format_usd(entry.amount_nanos)} USD" for entry in entries]
    if entries and approval.organization is not None:
        own = sum(entry.amount_nanos for entry in entries if entry.account.organization_id is not None)
        after_nanos = posted_nanos(approval.organization) + own
        lines.append(f"The balance would be {format_usd(after_nanos)} USD.")
    return lines


def finish(approval: Approval) -> None:
    """Ask the payment provider, after the commit. Safe to repeat. Raises what refund_top_up() raises."""
    if approval.state != Approval.State.APPLIED or approval.kind != Approval.Kind.PAYMENT_REFUND:
        return
    try:
        refund_top_up(
            TopUp.objects.get(pk=approval.terms["top_up_id"]),
            amount_nanos=approval.terms["amount_nanos"],
            reason=approval.reason,
            actor=actor_of(approval),
            idempotency_key=approval.idempotency_key,
            even_if_disputed=approval.terms["even_if_disputed"],
        )
    except (InvalidPaymentRefundError, PaymentRefusedError) as error:
        if not PaymentRefund.objects.filter(idempotency_key=approval.idempotency_key, done_at__isnull=False).exists():
            approval.state, approval.decision = Approval.State.REFUSED, str(error)[:500]
            approval.save(update_fields=["state", "decision"])
        raise


def _apply(approval: Approval, *, decided_by: User | None) -> bool:
    """Make the change, and say whether it was not there before."""
    approval.decided_by = decided_by
    posted = CHANGES[approval.kind].apply(approval, actor_of(approval))
    approval.state, approval.decided_at = Approval.State.APPLIED, timezone.now()
    approval.ledger_transaction = posted.transaction if posted else None
    return posted.is_new if posted else True


def _lock_open(approval: Approval, by: User, *, is_own: bool = False) -> Approval:
    if not is_own and not by.has_perm(APPROVE_PERMISSION):
        raise NotPermittedError("Your role does not decide what others ask for.")
    locked = (
        Approval.objects.select_for_update(of=("self",)).select_related("organization", "asked_by").get(pk=approval.pk)
    )
    if not locked.is_open:
        word = "expired" if locked.state == Approval.State.WAITING else locked.get_state_display().lower()
        raise AlreadyDecidedError(f"It is {word} by now.")
    return locked


def _same(known: Approval, asked: Approval) -> Asked:
    # Terms decide the effect. The amount follows from them, and of "all that is left" another follows once it is done.
    same = ("kind", "organization_id", "terms", "asked_by_id")
    if any(getattr(known, name) != getattr(asked, name) for name in same):
        raise IdempotencyConflictError("This key was used before, for something else.")
    is_waiting = known.state == Approval.State.WAITING
    return Asked(known, is_new=False, waits_because="It waits for a second person." if is_waiting else "")


__all__ = [
    "REFUSALS",
    "AlreadyDecidedError",
    "ApprovalError",
    "Asked",
    "NotPermittedError",
    "PaymentProviderError",
    "SamePersonError",
    "approve",
    "ask",
    "dry_run",
    "expire_old",
    "finish",
    "preview",
    "refuse",
    "waiting",
]
