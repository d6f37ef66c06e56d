"""Idempotency-Key: the same call again is answered with the first answer, and its work is done once.

The key is claimed, the work done and the answer kept in one transaction. So two calls at once wait for each other at
the unique key, and a process that dies in the middle leaves neither the work nor the claim. What failed is not kept:
the same call may be made again.
"""

import hashlib
from collections.abc import Callable
from datetime import timedelta
from functools import wraps
from typing import Any

import orjson
from django.db import IntegrityError, OperationalError, connection, transaction
from django.utils import timezone
from rest_framework.exceptions import APIException
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.models import ApiKey
from accounts.request_credentials import read_key_text
from accounts.sealing_by_key import SealBrokenError, make_sealing_key, seal, unseal
from api.models import ManagementAnswer

LIFETIME = timedelta(hours=24)
MAX_KEY_CHARS = 255
MAX_ANSWERS_PER_ORGANIZATION = 10_000  # Kept at the same time.
MAX_EXPIRED_PER_CALL = 100  # Forgotten on the way, of all organizations.
MAX_WAIT_SECONDS = 5  # For the same call, which is running.
PURPOSE = b"crossmodel management answer"
REPLAYED = {"idempotent-replayed": "true"}

Handler = Callable[..., Response]


class InvalidIdempotencyKeyError(APIException):
    status_code = 400
    default_code = "invalid_idempotency_key"
    default_detail = f"Idempotency-Key: 1 to {MAX_KEY_CHARS} ASCII characters."


class KeyReusedError(APIException):
    status_code = 409
    default_code = "idempotency_key_reused"
    default_detail = "This Idempotency-Key was used for another call."


class StillRunningError(APIException):
    status_code = 409
    default_code = "idempotency_in_progress"
    default_detail = "The first call with this Idempotency-Key is still running."


class AnswerNotKeptError(APIException):
    status_code = 409
    default_code = "idempotency_answer_not_kept"
    default_detail = "The first call with this Idempotency-Key was made with another secret of this key."


class TooManyAnswersError(APIException):
    status_code = 429
    default_code = "too_many_idempotency_keys"
    default_detail = f"The organization has used {MAX_ANSWERS_PER_ORGANIZATION:,} idempotency keys within a day."


def once(handler: Handler) -> Handler:
    """Do the work of a POST once for each Idempotency-Key that comes with it; without one, each time it is asked."""

    @wraps(handler)
    def answer(view: Any, request: Request, *args: Any, **kwargs: Any) -> Response:
        name = request.META.get("HTTP_IDEMPOTENCY_KEY")
        if name is None:
            return handler(view, request, *args, **kwargs)
        if not 0 < len(name) <= MAX_KEY_CHARS or not name.isascii():
            raise InvalidIdempotencyKeyError
        return _answer_once(view.key_of(request), request, name, lambda: handler(view, request, *args, **kwargs))

    return answer


def _answer_once(key: ApiKey, request: Request, name: str, work: Callable[[], Response]) -> Response:
    name_sha256 = hashlib.sha256(name.encode()).digest()
    sealing_key = make_sealing_key(read_key_text(request.META), salt=name_sha256, purpose=PURPOSE)
    call_sha256 = _digest_call(request)
    with transaction.atomic():
        _forget(key)
        row = _claim(key, name_sha256, call_sha256)
        if row is not None:
            answer = work()
            row.status, row.sealed_answer = answer.status_code, seal(sealing_key, _encode(answer), purpose=PURPOSE)
            row.save(update_fields=["status", "sealed_answer"])
            return answer
    kept = ManagementAnswer.objects.filter(key=key, idempotency_sha256=name_sha256).first()
    if kept is None or kept.sealed_answer is None:
        raise StillRunningError
    if bytes(kept.call_sha256) != call_sha256:
        raise KeyReusedError
    try:
        content = unseal(sealing_key, bytes(kept.sealed_answer), purpose=PURPOSE)
    except SealBrokenError:
        raise AnswerNotKeptError from None
    return Response(orjson.loads(content), status=kept.status, headers=REPLAYED)


def _claim(key: ApiKey, name_sha256: bytes, call_sha256: bytes) -> ManagementAnswer | None:
    """Return the row of this name, made by this call; None when another call has made it, and has ended."""
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(f"SET LOCAL lock_timeout = '{MAX_WAIT_SECONDS}s'")
            return ManagementAnswer.objects.create(
                organization_id=key.organization_id,
                key=key,
                idempotency_sha256=name_sha256,
                call_sha256=call_sha256,
                expires_at=timezone.now() + LIFETIME,
            )
    except IntegrityError:
        return None
    except OperationalError as error:
        if getattr(error.__cause__, "sqlstate", "") == "55P03":  # lock_not_available
            raise StillRunningError from error
        raise


def _forget(key: ApiKey) -> None:
    """Delete what is past its day, and refuse what is one too many."""
    now = timezone.now()
    ManagementAnswer.objects.filter(organization_id=key.organization_id, expires_at__lte=now).delete()
    old = ManagementAnswer.objects.filter(expires_at__lte=now).select_for_update(skip_locked=True).values("pk")
    ManagementAnswer.objects.filter(pk__in=old[:MAX_EXPIRED_PER_CALL]).delete()
    kept = ManagementAnswer.objects.filter(organization_id=key.organization_id)
    if kept[:MAX_ANSWERS_PER_ORGANIZATION].count() >= MAX_ANSWERS_PER_ORGANIZATION:
        raise TooManyAnswersError


def _digest_call(request: Request) -> bytes:
    """Return what tells one call from another: where it goes, and its body byte by byte."""
    head = f"{request.method} {request.get_full_path()}\n".encode("utf-8", "surrogatepass")
    return hashlib.sha256(head + request._request.body).digest()  # DRF has no other way to the bytes.


def _encode(answer: Response) -> bytes:
    content: bytes = JSONRenderer().render(answer.data)
    return content
