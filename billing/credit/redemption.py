"""Makes, redeems and revokes codes. A redemption is one ledger transaction that opens one promotional credit lot."""

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime

from django.db.models import F, Q
from django.utils import timezone

from accounts.models import Organization
from billing.bulk_rows import fetch_all
from billing.credit.top_ups import MAX_TOP_UP_NANOS
from billing.ledger.book import DEFAULT_PRIORITY, PostedTransaction, Posting, post_transaction, system_account
from billing.ledger.burn_order import PROMOTIONAL
from billing.models import Approval, LedgerAccount, LedgerTransaction, Redemption, RedemptionCode
from billing.money import format_usd
from billing.shards import shard_of

MAX_CODES_AT_ONCE = 1_000
MAX_REDEMPTIONS_PER_CODE = 1_000_000
MAX_ATTEMPTS_PER_HOUR = 20  # Of an organization. With 75 secret bits behind the prefix, guessing is hopeless anyway.
MAX_TYPED_CHARACTERS = 100

# Crockford's base 32: no letter in it can be taken for a digit. 20 characters are 100 bits.
ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
GROUPS, GROUP_CHARACTERS = 4, 5
READ_ALIKE = str.maketrans({"O": "0", "I": "1", "L": "1", " ": "", "-": "", "\t": ""})


class RedemptionError(ValueError):
    """The code gives nothing; the text says why, for whoever typed it."""


class UnknownCodeError(RedemptionError):
    """There is no such code."""


class CodeRevokedError(RedemptionError):
    """The code was withdrawn."""


class CodeExpiredError(RedemptionError):
    """The time of the code, or of its credit, is over."""


class CodeUsedUpError(RedemptionError):
    """As many organizations as may have redeemed the code."""


class TooManyAttemptsError(RedemptionError):
    """The organization has tried MAX_ATTEMPTS_PER_HOUR codes within this hour."""


class InvalidCodeError(ValueError):
    """Codes cannot be made like this; the text says why."""


@dataclass(frozen=True, slots=True)
class NewCode:
    """`text` is the only copy of the code that there is."""

    code: RedemptionCode
    text: str


@dataclass(frozen=True, slots=True)
class Redeemed:
    """`posted.is_new` is False when the organization had redeemed the code before: nothing was posted now."""

    code: RedemptionCode
    posted: PostedTransaction


def create_codes(
    *,
    amount_nanos: int,
    reason: str,
    created_by: str,
    count: int = 1,
    max_redemptions: int = 1,
    expires_at: datetime | None = None,
    lot_expires_at: datetime | None = None,
    lot_priority: int = DEFAULT_PRIORITY,
    approval: Approval | None = None,
) -> list[NewCode]:
    """Make codes of `amount_nanos` each, which so many organizations may redeem once their approval is applied.

    Raises InvalidCodeError.
    """
    if not 0 < amount_nanos <= MAX_TOP_UP_NANOS:
        raise InvalidCodeError(f"The amount must be above 0 and at most {format_usd(MAX_TOP_UP_NANOS)} USD.")
    if not 0 < count <= MAX_CODES_AT_ONCE:
        raise InvalidCodeError(f"From 1 to {MAX_CODES_AT_ONCE} codes can be made at once.")
    if not 0 < max_redemptions <= MAX_REDEMPTIONS_PER_CODE:
        raise InvalidCodeError(f"A code may be redeemed from 1 to {MAX_REDEMPTIONS_PER_CODE} times.")
    if not reason.strip() or not created_by.strip():
        raise InvalidCodeError("A code says what it is for and who made it.")
    if any(moment is not None and moment <= timezone.now() for moment in (expires_at, lot_expires_at)):
        raise InvalidCodeError("A code, or its credit, would have expired before it is made.")
    texts = [_make_text() for _ in range(count)]
    codes = RedemptionCode.objects.bulk_create(
        RedemptionCode(
            code_sha256=_digest(text),
            prefix=text[:GROUP_CHARACTERS],
            amount_nanos=amount_nanos,
            max_redemptions=max_redemptions,
            expires_at=expires_at,
            lot_expires_at=lot_expires_at,
            lot_priority=lot_priority,
            reason=reason.strip(),
            approval=approval,
            created_by=created_by,
        )
        for text in texts
    )
    return [NewCode(code, text) for code, text in zip(codes, texts, strict=True)]


def redeem(organization: Organization, *, code: str, actor: str) -> Redeemed:
    """Give the credit of a code to an organization, once, however often and from wherever it is asked at a time.

    A code is never redeemed by more organizations than it allows. Raises UnknownCodeError, CodeRevokedError,
    CodeExpiredError, CodeUsedUpError, and TooManyAttemptsError before the code is looked at.
    """
    _take_attempt(organization)
    found = find_code(code)
    if found is None:
        raise UnknownCodeError("There is no such code. Check that it is typed as you received it.")
    if found.approval is not None and found.approval.state != Approval.State.APPLIED:
        raise UnknownCodeError("This code is not released yet.")
    expense = system_account(LedgerAccount.Kind.PROMOTION_EXPENSE, shard_of(organization.pk))

    def compose(posting: Posting) -> None:
        # The code's row is locked last, after the organization's balance and accounts: never the other way round.
        _use_up(found, now=posting.book.now)
        posting.open_lot(
            PROMOTIONAL,
            found.amount_nanos,
            origin=f"Code {found.prefix}: {found.reason}",
            priority=found.lot_priority,
            expires_at=found.lot_expires_at,
        )
        posting.add(expense, -found.amount_nanos)
        Redemption.objects.create(
            code=found, organization=organization, ledger_transaction_id=posting.transaction_id, redeemed_by=actor
        )

    posted = post_transaction(
        organization,
        kind=LedgerTransaction.Kind.PROMOTION,
        idempotency_key=f"redemption:{found.pk}:{organization.pk}",
        inputs={"code": found.pk},
        actor=actor,
        reason=f"Code {found.prefix}: {found.reason}",
        system=[expense],
        compose=compose,
    )
    return Redeemed(found, posted)


def find_code(text: str) -> RedemptionCode | None:
    """Return the code that somebody typed, whether or not it can be redeemed."""
    return RedemptionCode.objects.select_related("approval").filter(code_sha256=_digest(text)).first()


def revoke_code(code: RedemptionCode, *, revoked_by: str) -> bool:
    """Let nobody redeem a code any more; credit that it gave stays. Returns False when it was revoked before."""
    changed = RedemptionCode.objects.filter(pk=code.pk, revoked_at=None).update(
        revoked_at=timezone.now(), revoked_by=revoked_by
    )
    return bool(changed)


def _use_up(code: RedemptionCode, *, now: datetime) -> None:
    alive = (Q(expires_at=None) | Q(expires_at__gt=now)) & (Q(lot_expires_at=None) | Q(lot_expires_at__gt=now))
    used = RedemptionCode.objects.filter(
        alive, pk=code.pk, revoked_at=None, redemption_count__lt=F("max_redemptions")
    ).update(redemption_count=F("redemption_count") + 1)
    if used:
        return
    code.refresh_from_db()
    if code.revoked_at is not None:
        raise CodeRevokedError("This code was withdrawn.")
    for moment, what in ((code.expires_at, "This code"), (code.lot_expires_at, "The credit of this code")):
        if moment is not None and moment <= now:
            raise CodeExpiredError(f"{what} expired on {moment:%Y-%m-%d} at {moment:%H:%M} UTC.")
    raise CodeUsedUpError("This code was redeemed as often as it allows.")


def _take_attempt(organization: Organization) -> None:
    """Count one attempt, whether or not the code turns out to be right."""
    taken = fetch_all(
        """INSERT INTO billing_redemptionattempts AS counted (organization_id, hour, attempts)
            VALUES (%s, date_trunc('hour', clock_timestamp(), 'UTC'), 1)
            ON CONFLICT (organization_id) DO UPDATE SET hour = EXCLUDED.hour,
                attempts = CASE WHEN counted.hour = EXCLUDED.hour THEN counted.attempts + 1 ELSE 1 END
            WHERE counted.hour <> EXCLUDED.hour OR counted.attempts < %s RETURNING attempts""",
        [organization.pk, MAX_ATTEMPTS_PER_HOUR],
    )
    if not taken:
        raise TooManyAttemptsError(
            f"{MAX_ATTEMPTS_PER_HOUR} codes were tried in this hour. Try again in the next hour."
        )


def _make_text() -> str:
    return "-".join("".join(secrets.choice(ALPHABET) for _ in range(GROUP_CHARACTERS)) for _ in range(GROUPS))


def _digest(text: str) -> bytes:
    """Return the SHA-256 of a code as it was meant: capitals, without dashes, with letters that look like digits."""
    return hashlib.sha256(text[:MAX_TYPED_CHARACTERS].upper().translate(READ_ALIKE).encode()).digest()
