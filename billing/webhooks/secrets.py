"""The secrets that webhooks are signed with: made here, shown once, and encrypted under the signing key of the site.

With `SECRET_KEY_FALLBACKS` older keys still open what they sealed. Without the key that sealed it, a secret is lost:
its endpoint gets a new one by rotation.
"""

import base64
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime

from standardwebhooks import Webhook

from accounts import sealing
from accounts.sealing import LostSecretError

SECRET_BYTES = 32
SECRET_PREFIX = "whsec_"  # noqa: S105  It says what follows, as Standard Webhooks has it.
PURPOSE = b"crossmodel webhook secrets"  # So that no other use of the site's key yields this one.


def make_secret() -> str:
    """Return a new secret as its receiver configures it."""
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def seal(secret: str) -> str:
    return sealing.seal(secret, purpose=PURPOSE)


def unseal(sealed: str) -> str:
    """Return the secret. Raises LostSecretError."""
    try:
        return sealing.unseal(sealed, purpose=PURPOSE)
    except LostSecretError:
        raise LostSecretError("The secret cannot be read any more: rotate it.") from None


def sign(body: str, *, event_id: str, at: datetime, sealed_secrets: list[str]) -> Mapping[str, str]:
    """Return the headers of Standard Webhooks, with a signature by each secret. Raises LostSecretError."""
    at = at.astimezone(UTC)
    signatures = [Webhook(unseal(sealed)).sign(event_id, at, body) for sealed in sealed_secrets]
    return {
        "webhook-id": event_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(signatures),
    }
