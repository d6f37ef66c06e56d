"""For load balancers and supervisors: is the process alive, and can it reach what it needs."""

import redis
from django.db import DatabaseError, connection
from django.http import HttpRequest, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe

from billing.admission.worker import redis_client

OK, UNREACHABLE = "ok", "unreachable"


@csrf_exempt
@never_cache
@require_safe
def healthz(request: HttpRequest) -> JsonResponse:
    """The process answers. Asks nobody else: a restart would not bring back Postgres or Redis."""
    return JsonResponse({"status": OK})


@csrf_exempt
@never_cache
@require_safe
def readyz(request: HttpRequest) -> JsonResponse:
    """200 when Postgres and Redis answer, else 503 and which of them does not."""
    states = {"postgres": _postgres(), "redis": _redis()}
    is_ready = set(states.values()) == {OK}
    return JsonResponse({"status": OK if is_ready else "unavailable", **states}, status=200 if is_ready else 503)


def _postgres() -> str:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError:
        return UNREACHABLE
    return OK


def _redis() -> str:
    try:
        redis_client().ping()
    except (redis.RedisError, OSError):
        return UNREACHABLE
    return OK
