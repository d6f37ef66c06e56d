"""Encrypts what must be read again under the signing key of the site; SECRET_KEY_FALLBACKS still open older texts."""

import base64

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings
from django.utils.encoding import force_bytes


class LostSecretError(Exception):
    """The secret was sealed under a key that is no longer configured."""


def seal(text: str, *, purpose: bytes) -> str:
    """Return the text encrypted; what is sealed for one purpose opens for no other."""
    return _box(purpose).encrypt(text.encode()).decode()


def unseal(sealed: str, *, purpose: bytes) -> str:
    """Return the text. Raises LostSecretError."""
    try:
        return _box(purpose).decrypt(sealed.encode()).decode()
    except InvalidToken:
        raise LostSecretError from None


def reseal(sealed: str, *, purpose: bytes) -> str | None:
    """Return the same text sealed by the signing key of today; None where it is so already. Raises LostSecretError."""
    try:
        Fernet(_key(settings.SECRET_KEY, purpose)).decrypt(sealed.encode())
    except InvalidToken:
        return seal(unseal(sealed, purpose=purpose), purpose=purpose)
    return None


def _box(purpose: bytes) -> MultiFernet:
    keys = [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]
    return MultiFernet([Fernet(_key(key, purpose)) for key in keys])


def _key(secret: str | bytes, purpose: bytes) -> bytes:
    derived = HKDF(algorithm=SHA256(), length=32, salt=None, info=purpose).derive(force_bytes(secret))
    return base64.urlsafe_b64encode(derived)
