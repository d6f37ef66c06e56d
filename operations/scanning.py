"""`POST /secret-scanning/github/`: GitHub tells of keys that it found in public, in the form of its partner program.

https://docs.github.com/en/code-security/secret-scanning/secret-scanning-partnership-program/secret-scanning-partner-program
A message is signed with ECDSA (P-256, SHA-256) by a key that GitHub publishes. A key of ours that is found is revoked
at once, and its people get mail; the answer says of each text whether it was one. There is nothing here without
CROSSMODEL_SECRET_SCANNING_URL.
"""

import base64
import binascii
import json
import logging
from collections.abc import Sequence
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from django.conf import settings
from django.core.cache import cache
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from billing.admission.outbox import publish_now_or_later
from operations.judged_http import Bounds, NoAnswerError, exchange
from operations.leaks import find_by_text, revoke_leaked

MAX_FOUND = 100  # Texts of one message; GitHub sends more in several.
MAX_TEXT_CHARS = 500
KEYS_KEPT_SECONDS = 24 * 3600
# An identifier that is not known may be a new one, so the list is read again: once in this time, whoever asks.
ASKED_AGAIN_SECONDS = 60
FETCH_SECONDS = 5.0
MAX_LIST_BYTES = 256 * 1024
IDENTIFIER_HEADER, SIGNATURE_HEADER = "github-public-key-identifier", "github-public-key-signature"
CACHE_KEY, PAUSE_KEY = "secret-scanning-keys", "secret-scanning-asked"

logger = logging.getLogger(__name__)


class NotSignedError(Exception):
    """The message does not come from GitHub, as far as can be told."""


class KeysUnavailableError(Exception):
    """GitHub's keys cannot be had now."""


@csrf_exempt
@require_POST
def receive_found_keys(request: HttpRequest) -> HttpResponse:
    """Verify the message over its bytes as they came, revoke what is ours, and say which texts those were."""
    if not settings.SECRET_SCANNING_URL:
        return _answer(404, "Nothing is here.")
    try:
        check_signature(
            request.body, request.headers.get(IDENTIFIER_HEADER, ""), request.headers.get(SIGNATURE_HEADER, "")
        )
        found = read_found(request.body)
        told = [_take(item) for item in found]
    except NotSignedError as error:
        logger.warning("A message of secret scanning was refused: %s", error)
        return _answer(400, "The message is not signed as it should be, or is none.")
    except (KeysUnavailableError, OperationalError, InterfaceError) as error:
        logger.warning("A message of secret scanning is heard later: %s", error)
        return _answer(503, "Try again.")
    publish_now_or_later()
    return JsonResponse(told, safe=False)


def check_signature(body: bytes, identifier: str, signature: str) -> None:
    """Raises NotSignedError, KeysUnavailableError."""
    if not identifier or not signature:
        raise NotSignedError("It has no signature.")
    keys = cache.get(CACHE_KEY) or {}
    if identifier not in keys and cache.add(PAUSE_KEY, 1, ASKED_AGAIN_SECONDS):
        keys = _fetch_keys()
        cache.set(CACHE_KEY, keys, KEYS_KEPT_SECONDS)
    if identifier not in keys:
        if not keys:
            raise KeysUnavailableError("No key is known yet.")
        raise NotSignedError("Its signing key is not known.")
    try:
        public_key = load_pem_public_key(keys[identifier].encode())
        if not isinstance(public_key, EllipticCurvePublicKey):
            raise NotSignedError("Its signing key is of another kind.")
        public_key.verify(base64.b64decode(signature, validate=True), body, ECDSA(SHA256()))
    except (InvalidSignature, binascii.Error, ValueError):
        raise NotSignedError("Its signature is wrong.") from None


def read_found(body: bytes) -> Sequence[dict[str, str]]:
    """Return what was found, each with `token`, `type`, `url` and `source`. Raises NotSignedError for other bodies."""
    try:
        items = json.loads(body)
    except ValueError:
        raise NotSignedError("It is no JSON.") from None
    if not isinstance(items, list) or len(items) > MAX_FOUND or not all(isinstance(item, dict) for item in items):
        raise NotSignedError("It is no list of what was found, or too long a one.")
    names = ("token", "type", "url", "source")
    return [{name: str(item.get(name) or "")[:MAX_TEXT_CHARS] for name in names} for item in items]


def _take(item: dict[str, str]) -> dict[str, str]:
    key = find_by_text(item["token"])
    if key is not None:
        leak = revoke_leaked(key, place=item["url"] or item["source"], revoked_by=None)
        if leak.is_new:
            logger.warning("Key %s was found in public, and is revoked.", key.prefix)
    return {
        "token_raw": item["token"],  # Its sender has it anyway.
        "token_type": item["type"],
        "label": "true_positive" if key is not None else "false_positive",
    }


def _fetch_keys() -> dict[str, str]:
    """Return GitHub's public keys by their identifiers. Raises KeysUnavailableError."""
    bounds = Bounds(tuple(settings.UPSTREAM_NETWORKS), FETCH_SECONDS, MAX_LIST_BYTES)
    headers = {"accept": "application/json", "user-agent": "CrossModel"}
    try:
        status, body = exchange("GET", settings.SECRET_SCANNING_URL, headers=headers, bounds=bounds)
        listed: Any = json.loads(body) if status == 200 else None
    except (NoAnswerError, ValueError) as error:
        raise KeysUnavailableError(f"{settings.SECRET_SCANNING_URL}: {error}") from error
    if not isinstance(listed, dict) or not isinstance(listed.get("public_keys"), list):
        raise KeysUnavailableError(f"{settings.SECRET_SCANNING_URL} answered {status}, without public keys.")
    items = [item for item in listed["public_keys"] if isinstance(item, dict)]
    return {str(item["key_identifier"]): str(item["key"]) for item in items if {"key", "key_identifier"} <= item.keys()}


def _answer(status: int, text: str) -> HttpResponse:
    return HttpResponse(text + "\n", status=status, content_type="text/plain")
