"""Money coming in, and credit given away. Each is one ledger transaction that opens one credit lot."""

from datetime import UTC, datetime

from django.conf import settings
from django.utils import timezone

from accounts.models import Member, Organization, Role, User
from billing.ledger.book import (
    DEFAULT_PRIORITY,
    IdempotencyConflictError,
    PostedTransaction,
    Posting,
    post_transaction,
    system_account,
)
from billing.ledger.burn_order import PAID
from billing.models import CreditLot, LedgerAccount, LedgerTransaction
from billing.money import format_usd, parse_usd
from billing.shards import shard_of

MAX_TOP_UP_NANOS = 10**16  # 10,000,000 USD at once; more is a typing error.
MANUAL_PROVIDER = "manual"
MAX_ORIGIN_CHARACTERS = 200
WELCOME_ORIGIN = "welcome"
SYSTEM_ACTOR = "system"


class InvalidTopUpError(ValueError):
    """The amount or the expiry makes no sense; the text says why."""


def grant_credit(
    organization: Organization,
    *,
    amount_nanos: int,
    kind: CreditLot.Kind,
    reason: str,
    actor: str,
    idempotency_key: str,
    expires_at: datetime | None = None,
    priority: int = DEFAULT_PRIORITY,
    origin: str = "",
) -> PostedTransaction:
    """Give promotional credit, or book paid credit whose money came in by hand. What is owed is cleared first.

    The same key with the same amount, kind, expiry and priority posts once.
    Raises InvalidTopUpError, and IdempotencyConflictError when the key was used for something else.
    """
    return _open_lot(
        organization,
        amount_nanos=amount_nanos,
        kind=kind,
        reason=reason,
        actor=actor,
        idempotency_key=idempotency_key,
        expires_at=expires_at,
        priority=priority,
        origin=origin or reason,
        payment_provider=MANUAL_PROVIDER,
    )


def record_payment(
    organization: Organization,
    *,
    payment_provider: str,
    payment_id: str,
    amount_nanos: int,
    discount_nanos: int = 0,
    reason: str = "",
    actor: str = SYSTEM_ACTOR,
) -> PostedTransaction:
    """Book a payment as paid credit, once for the id of it, however often it is reported.

    `discount_nanos` of the amount never came in as money, and is booked as promotion expense.
    Raises InvalidTopUpError, and IdempotencyConflictError when the id comes again with another amount or organization.
    """
    return _open_lot(
        organization,
        amount_nanos=amount_nanos,
        kind=CreditLot.Kind.PAID,
        reason=reason or f"Payment {payment_id}",
        actor=actor,
        idempotency_key=payment_key(payment_provider, payment_id),
        expires_at=None,
        priority=DEFAULT_PRIORITY,
        origin=reason or f"{payment_provider} {payment_id}",
        payment_provider=payment_provider,
        discount_nanos=discount_nanos,
    )


def payment_key(payment_provider: str, payment_id: str) -> str:
    return f"payment:{payment_provider}:{payment_id}"


def welcome_credit(organization: Organization, *, person: User) -> PostedTransaction | None:
    """Post the welcome credit of the settings as a promotional lot, once for a person, whatever they own.

    None when the settings give none, or the person has had it for another organization.
    """
    amount_nanos = parse_usd(settings.WELCOME_CREDIT_USD)
    if not amount_nanos:
        return None
    key = f"welcome:person:{person.pk}"
    earlier = LedgerTransaction.objects.filter(idempotency_key__in=[key, *_keys_by_organization(person)]).first()
    if earlier is not None:  # Once, also when the settings have changed since.
        return PostedTransaction(earlier, is_new=False) if earlier.organization_id == organization.pk else None
    try:
        return grant_credit(
            organization,
            amount_nanos=amount_nanos,
            kind=CreditLot.Kind.PROMOTIONAL,
            reason="Welcome credit",
            actor=SYSTEM_ACTOR,
            idempotency_key=key,
            origin=WELCOME_ORIGIN,
        )
    except IdempotencyConflictError:
        return None  # The same person has just had it for an organization that was made at the same time.


def _keys_by_organization(person: User) -> list[str]:
    """Return the keys of welcome credit as they were before it was kept by person."""
    owned = Member.objects.filter(user=person, role=Role.OWNER).values_list("organization_id", flat=True)
    return [f"welcome:{organization_id}" for organization_id in owned]


def lot_inputs(
    amount_nanos: int, kind: str, *, expires_at: datetime | None, priority: int, payment_provider: str
) -> dict[str, object]:
    """Return what decides the effect of given credit, as its transaction's digest holds it; check_ledger compares."""
    return {
        "amount_nanos": amount_nanos,
        "kind": str(kind),
        "expires_at": expires_at.astimezone(UTC).isoformat() if expires_at else None,
        "priority": priority,
        "payment_provider": payment_provider,
    }


def _open_lot(
    organization: Organization,
    *,
    amount_nanos: int,
    kind: CreditLot.Kind,
    reason: str,
    actor: str,
    idempotency_key: str,
    expires_at: datetime | None,
    priority: int,
    origin: str,
    payment_provider: str,
    discount_nanos: int = 0,
) -> PostedTransaction:
    if not 0 < amount_nanos <= MAX_TOP_UP_NANOS:
        raise InvalidTopUpError(
            f"The amount must be above 0 and at most {format_usd(MAX_TOP_UP_NANOS)} USD; it is"
            f" {format_usd(amount_nanos)} USD."
        )
    if not 0 <= discount_nanos <= amount_nanos:
        raise InvalidTopUpError(f"A discount of {format_usd(discount_nanos)} USD is more than the amount.")
    is_paid = kind == PAID
    source = system_account(
        LedgerAccount.Kind.CASH if is_paid else LedgerAccount.Kind.PROMOTION_EXPENSE,
        shard_of(organization.pk),
        payment_provider=payment_provider if is_paid else "",
    )
    expense = system_account(LedgerAccount.Kind.PROMOTION_EXPENSE, shard_of(organization.pk))

    def compose(posting: Posting) -> None:
        # Judged here and not before: a retry that comes after the expiry is answered with what was posted.
        if expires_at is not None and expires_at <= timezone.now():
            raise InvalidTopUpError(
                f"The credit would have expired before it is given: {expires_at:%Y-%m-%d %H:%M} UTC."
            )
        posting.open_lot(
            kind, amount_nanos, origin=origin[:MAX_ORIGIN_CHARACTERS], priority=priority, expires_at=expires_at
        )
        posting.add(source, -(amount_nanos - discount_nanos))
        if discount_nanos:
            posting.add(expense, -discount_nanos)

    return post_transaction(
        organization,
        kind=LedgerTransaction.Kind.TOP_UP if is_paid else LedgerTransaction.Kind.PROMOTION,
        idempotency_key=idempotency_key,
        inputs=lot_inputs(
            amount_nanos, kind, expires_at=expires_at, priority=priority, payment_provider=source.payment_provider
        ),
        actor=actor,
        reason=reason,
        system=[source, expense] if discount_nanos else [source],
        compose=compose,
    )
