"""Seals: what each ledger transaction was written with, authenticated by a key that the database holds only encrypted.

Whoever changes or makes up rows by SQL alone, past all triggers, cannot make the seal that belongs to them. A seal has
two halves: one of all that a transaction posts and says, one of its actor, which a person's number replaces once that
person is erased. The key is made when the first transaction is posted. It opens by DJANGO_SECRET_KEY, and is sealed
again by `manage.py reseal_secrets` when that is rotated.
"""

import hmac
import re
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from secrets import token_bytes

import orjson
from django.conf import settings

from accounts.sealing import LostSecretError, reseal, seal, unseal
from billing.bulk_rows import fetch_all
from billing.models import LedgerSealKey

PURPOSE = b"crossmodel ledger seal"
KEY_BYTES = 32
HALF_BYTES = 16
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
APPROVED_BY = ", approved by "  # Between two people who decided: the guards of erased people know it, too.
# Of two, each is erased by themselves; the half of the seal is of both.
ERASED_ACTOR = re.compile(rf"person [0-9]+({APPROVED_BY}.+)?|.+{APPROVED_BY}person [0-9]+")

# account, seq, amount, balance after; and lot, amount, remaining after.
EntryRow = tuple[int, int, int, int]
LotEntryRow = tuple[int, int, int]
# id, kind, origin, priority, expiry in microseconds since 1970.
LotRow = tuple[int, str, str, int, int | None]


@dataclass(frozen=True, slots=True)
class Sealed:
    """All that a seal is over."""

    transaction_id: int
    kind: str
    idempotency_key: str
    input_sha256: bytes
    organization_id: int | None
    actor: str
    reason: str
    created_at: datetime
    entries: Sequence[EntryRow]
    lot_entries: Sequence[LotEntryRow]
    lots: Sequence[LotRow]

    def text(self) -> bytes:
        return orjson.dumps(
            [
                self.transaction_id,
                self.kind,
                self.idempotency_key,
                self.input_sha256.hex(),
                self.organization_id,
                self.reason,
                microseconds(self.created_at),
                _rows_text(self.entries),
                _rows_text(self.lot_entries),
                [list(lot) for lot in sorted(self.lots)],
            ]
        )

    def actor_text(self) -> bytes:
        return f"{self.transaction_id} {self.actor}".encode()


def make_seal(key: bytes, sealed: Sealed) -> bytes:
    return _half(key, sealed.text()) + _half(key, sealed.actor_text())


def is_seal_of(keys: Sequence[bytes], seal_bytes: bytes, sealed: Sealed) -> bool:
    """Say whether one of the keys has sealed just this. The actor may have become the number of an erased person."""
    posted, actor = seal_bytes[:HALF_BYTES], seal_bytes[HALF_BYTES:]
    is_erased = ERASED_ACTOR.fullmatch(sealed.actor) is not None
    return any(
        hmac.compare_digest(posted, _half(key, sealed.text()))
        and (is_erased or hmac.compare_digest(actor, _half(key, sealed.actor_text())))
        for key in keys
    )


def sealing_key() -> bytes:
    """Return the newest key that opens; one is made where there is none. Postings never wait for a lost key."""
    keys = open_keys()
    if keys:
        return keys[-1]
    key = token_bytes(KEY_BYTES)
    fetch_all(
        """INSERT INTO billing_ledgersealkey (sealed_key, created_at, after_transaction_id)
            SELECT %s, clock_timestamp(), coalesce(max(id), 0) FROM billing_ledgertransaction""",
        [seal(b64encode(key).decode(), purpose=PURPOSE)],
    )
    return key


def open_keys() -> list[bytes]:
    """Return the keys that DJANGO_SECRET_KEY or one of its fallbacks opens, oldest first."""
    rows = fetch_all("SELECT sealed_key FROM billing_ledgersealkey ORDER BY id")
    secrets = (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)
    return [key for (text,) in rows if (key := _open(text, secrets)) is not None]


def reseal_keys(*, is_dry: bool = False) -> tuple[int, int]:
    """Encrypt keys anew by the signing key of today; return how many that were, and how many no key opens."""
    resealed = lost = 0
    for row in LedgerSealKey.objects.order_by("pk"):
        try:
            text = reseal(row.sealed_key, purpose=PURPOSE)
        except LostSecretError:
            lost += 1
            continue
        if text is None:
            continue
        resealed += 1
        if not is_dry:
            LedgerSealKey.objects.filter(pk=row.pk).update(sealed_key=text)
    return resealed, lost


def microseconds(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)


@lru_cache(maxsize=16)
def _open(text: str, secrets: tuple[str, ...]) -> bytes | None:
    """Return a key; None where no secret opens it. Remembered, because opening takes longer than sealing."""
    try:
        return b64decode(unseal(text, purpose=PURPOSE))
    except LostSecretError:
        return None


def _half(key: bytes, text: bytes) -> bytes:
    return hmac.digest(key, text, "sha256")[:HALF_BYTES]


def _rows_text(rows: Sequence[tuple[int, ...]]) -> str:
    return ",".join([":".join(map(str, row)) for row in sorted(rows)])
