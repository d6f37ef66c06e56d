"""Authentication of the JSON API by an API key, as on the request path: `x-api-key`, or else a bearer."""

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.openapi import AutoSchema
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import APIException, AuthenticationFailed
from rest_framework.request import Request

from accounts.audit import note_key
from accounts.key_secrets import find_key
from accounts.models import ApiKey
from accounts.request_credentials import is_allowed_from, read_key_text, read_networks


class NetworkNotAllowedError(APIException):
    """The key may not be used from the client's address: the answer that the request path gives too."""

    status_code = 402
    default_detail = "This API key may not be used from this address."
    default_code = "network_not_allowed"


class ApiKeyAuthentication(BaseAuthentication):
    """Sets `request.auth` to the key, with its organization. A key is no person: `request.user` stays None."""

    def authenticate(self, request: Request) -> tuple[None, ApiKey]:
        text = read_key_text(request.META)
        if not text:
            raise AuthenticationFailed("Missing API key.", code="missing_api_key")
        key = find_key(text)
        if key is None:
            raise AuthenticationFailed("Invalid API key.", code="invalid_api_key")
        if key.is_revoked:
            raise AuthenticationFailed("This API key is revoked.", code="key_revoked")
        if key.is_disabled:
            raise AuthenticationFailed("This API key is disabled.", code="key_disabled")
        if key.is_expired:
            raise AuthenticationFailed("This API key is expired.", code="key_expired")
        if key.allowed_networks and not is_allowed_from(read_networks(key.allowed_networks), request.META):
            raise NetworkNotAllowedError
        note_key(key.pk)
        return None, key

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


class ApiKeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]  # drf-spectacular has no types
    """How the schema describes it."""

    target_class = ApiKeyAuthentication
    name = "apiKey"

    def get_security_definition(self, auto_schema: AutoSchema) -> dict[str, str]:
        return {"type": "apiKey", "in": "header", "name": "x-api-key"}
