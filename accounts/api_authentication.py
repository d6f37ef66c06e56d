"""Authentication of the JSON API by an API key, as on the request path: `x-api-key`, or else a bearer."""

from django.http import HttpRequest
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from accounts.key_format import MAX_KEY_CHARS, hash_key, is_well_formed
from accounts.models import ApiKey


class ApiKeyAuthentication(BaseAuthentication):
    """Sets `request.auth` to the key, with its organization. A key is no person: `request.user` stays None."""

    def authenticate(self, request: Request) -> tuple[None, ApiKey]:
        text = _read_key(request)
        if not text:
            raise AuthenticationFailed("Missing API key.", code="missing_api_key")
        key = _find_key(text)
        if key is None or key.is_revoked or key.is_expired:
            # One answer for all of them: a stranger does not learn that a key once lived.
            raise AuthenticationFailed("Invalid API key.", code="invalid_api_key")
        return None, key

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


def _read_key(request: Request | HttpRequest) -> str:
    text = request.META.get("HTTP_X_API_KEY", "").strip()
    if text:
        return str(text)
    scheme, _, credential = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
    return str(credential.strip()) if scheme.lower() == "bearer" else ""


def _find_key(text: str) -> ApiKey | None:
    if len(text) > MAX_KEY_CHARS or not is_well_formed(text):
        return None
    return ApiKey.objects.select_related("organization").filter(secret_sha256=hash_key(text)).first()
