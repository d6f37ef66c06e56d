"""The second factor and passkeys, as this site keeps and names them; the rest is allauth's."""

import logging
from typing import Any, ClassVar
from urllib.parse import urlsplit

from allauth.mfa.adapter import DefaultMFAAdapter
from allauth.mfa.models import Authenticator
from django.conf import settings

from accounts.models import User
from accounts.sealing import LostSecretError, seal, unseal
from accounts.second_factors import PURPOSE

MAX_PASSKEYS = 10

logger = logging.getLogger(__name__)


class SecondFactorAdapter(DefaultMFAAdapter):  # type: ignore[misc]  # allauth ships no types
    error_messages: ClassVar[dict[str, Any]] = {
        **DefaultMFAAdapter.error_messages,
        "incorrect_code": "This code or passkey does not fit.",
    }

    def encrypt(self, text: str) -> str:
        return seal(text, purpose=PURPOSE)

    def decrypt(self, encrypted_text: str) -> str:
        """Return the secret; one that cannot be read fits no code, and an operator takes the factor away."""
        try:
            return unseal(encrypted_text, purpose=PURPOSE)
        except LostSecretError:
            logger.error("A second factor was sealed under a signing key that is gone.")
            return ""

    def get_public_key_credential_rp_entity(self) -> dict[str, str]:
        """Return whom passkeys are for: the configured host, whatever Host a request names."""
        return {"id": urlsplit(settings.BASE_URL).hostname or "localhost", "name": "CrossModel"}

    def generate_authenticator_name(self, user: User, type: str) -> str:  # noqa: A002  allauth's own name for it
        return f"Passkey {Authenticator.objects.filter(user_id=user.pk, type=type).count() + 1}"
