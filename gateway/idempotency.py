"""Idempotency-Key, opt-in: the same request again is answered with the first answer, and billed once.

A claim is a row under a unique key, made before anything is admitted. It is the one place where the warm path asks
Postgres, and only for clients that ask for it. Streams are not kept: what became of one, Postgres says once it has
ended. Then a second request is told that it was billed, or may be made where nothing was: an upstream may fail after
its client got a ping.
"""

import hashlib
import logging
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from accounts.sealing_by_key import SealBrokenError, make_sealing_key, seal, unseal
from billing.models import FailedRequest, UsageRecord
from gateway.database import DatabaseThreads, DatabaseUnavailableError
from gateway.errors import GatewayError, unavailable
from gateway.models import IdempotentAnswer

LIFETIME = timedelta(hours=24)
MAX_KEY_CHARS = 255
MAX_CLAIMS_PER_MINUTE = 6_000  # Of one API key; each costs Postgres a row.
MAX_KEPT_BYTES = 8 * 1024 * 1024
PURPOSE = b"crossmodel idempotent answer"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to answer this key for the first time. End it with keep(), keep_nothing() or give_up()."""

    database: DatabaseThreads
    organization_id: int
    row_id: int
    request_id: str
    sealing_key: bytes

    async def keep(self, answer: bytes) -> None:
        """Store the answer for a day. Postgres being away costs the client the repetition, never the answer."""
        if len(answer) > MAX_KEPT_BYTES:
            await self.keep_nothing()
            return
        sealed = seal(self.sealing_key, answer, purpose=PURPOSE)
        await self._end(state=IdempotentAnswer.State.ANSWERED, sealed_answer=sealed)

    async def keep_nothing(self) -> None:
        """Note that it was answered, without the answer: repetitions are refused."""
        await self._end(state=IdempotentAnswer.State.NOT_KEPT, sealed_answer=None)

    async def give_up(self) -> None:
        """Nothing was served or billed: the key may be used again."""
        try:
            await self.database.run_for(self.organization_id, _delete_claim, self.row_id, self.request_id)
        except DatabaseUnavailableError:
            logger.warning("The idempotency key of request %s could not be given back.", self.request_id)

    async def _end(self, **values: object) -> None:
        try:
            await self.database.run_for(self.organization_id, _update_claim, self.row_id, self.request_id, values)
        except DatabaseUnavailableError:
            logger.warning("The answer to request %s could not be kept.", self.request_id)


async def claim_key(
    database: DatabaseThreads,
    *,
    organization_id: int,
    key_id: int,
    api_key: str,
    idempotency_key: str,
    body_sha256: bytes,
    request_id: str,
) -> Claim | bytes:
    """Return a claim on the key, or the answer that was given before.

    Raises GatewayError 400 for a key that is none, 409 while the first request runs, when its answer was not kept, or
    when the body is another; 503 when Postgres cannot be asked.
    """
    if not 0 < len(idempotency_key) <= MAX_KEY_CHARS or not idempotency_key.isascii():
        raise GatewayError(
            400, "invalid_idempotency_key", f"Idempotency-Key: Input should be 1 to {MAX_KEY_CHARS} ASCII characters"
        )
    key_sha256 = hashlib.sha256(idempotency_key.encode()).digest()
    sealing_key = make_sealing_key(api_key, salt=key_sha256, purpose=PURPOSE)
    try:
        row, is_ours = await database.run_for(
            organization_id, _claim, key_id, key_sha256, body_sha256, UUID(request_id)
        )
    except DatabaseUnavailableError as error:
        raise unavailable("The idempotency key cannot be checked right now.", code="idempotency_unavailable") from error
    if is_ours:
        return Claim(database, organization_id, row.pk, request_id, sealing_key)
    return _read_answer(row, sealing_key, body_sha256)


def _claim(key_id: int, key_sha256: bytes, body_sha256: bytes, request_id: UUID) -> tuple[IdempotentAnswer, bool]:
    """Return the row of this key, and whether it was claimed by this call."""
    now = timezone.now()
    fresh = {"body_sha256": body_sha256, "request_id": request_id, "expires_at": now + LIFETIME}
    with transaction.atomic():
        row, is_new = IdempotentAnswer.objects.get_or_create(
            key_id=key_id, idempotency_sha256=key_sha256, defaults=fresh
        )
        if is_new:
            return row, True
        row = IdempotentAnswer.objects.select_for_update().get(pk=row.pk)
        if row.expires_at <= now or _was_released(row):
            row.body_sha256, row.request_id, row.expires_at = body_sha256, request_id, now + LIFETIME
            row.state, row.sealed_answer, row.created_at = IdempotentAnswer.State.RUNNING, None, now
            row.save()
            return row, True
        if row.state == IdempotentAnswer.State.RUNNING and UsageRecord.objects.filter(pk=row.request_id).exists():
            # Its gateway died after it was billed and before it was kept.
            row.state = IdempotentAnswer.State.NOT_KEPT
            row.save(update_fields=["state"])
        return row, False


def _was_released(row: IdempotentAnswer) -> bool:
    is_running = row.state == IdempotentAnswer.State.RUNNING
    return is_running and FailedRequest.objects.filter(pk=row.request_id).exists()


def _read_answer(row: IdempotentAnswer, sealing_key: bytes, body_sha256: bytes) -> bytes:
    if bytes(row.body_sha256) != body_sha256:
        raise GatewayError(
            409,
            "idempotency_key_reused",
            "This Idempotency-Key was used with another request body.",
            should_retry=False,
        )
    if row.state == IdempotentAnswer.State.RUNNING:
        raise GatewayError(
            409, "idempotency_in_progress", "The first request with this Idempotency-Key is still running.",
            retry_after_seconds=1,
        )  # fmt: skip
    if row.sealed_answer is None:
        raise GatewayError(
            409,
            "idempotency_answer_not_kept",
            "The first request with this Idempotency-Key was answered, but its answer was not stored.",
            should_retry=False,
        )
    try:
        return unseal(sealing_key, bytes(row.sealed_answer), purpose=PURPOSE)
    except SealBrokenError:
        raise GatewayError(500, "internal_error", "An internal error occurred.") from None


def _update_claim(row_id: int, request_id: str, values: dict[str, object]) -> None:
    IdempotentAnswer.objects.filter(pk=row_id, request_id=UUID(request_id)).update(**values)


def _delete_claim(row_id: int, request_id: str) -> None:
    IdempotentAnswer.objects.filter(
        pk=row_id, request_id=UUID(request_id), state=IdempotentAnswer.State.RUNNING
    ).delete()


def delete_expired_answers() -> int:
    """Forget answers past their day, and return how many that were."""
    return IdempotentAnswer.objects.filter(expires_at__lte=timezone.now()).delete()[0]
