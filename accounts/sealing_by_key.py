"""Encrypts what only the holder of an API key can read again: with a key made from its text, never stored."""

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

NONCE_BYTES = 12


class SealBrokenError(Exception):
    """It was sealed for the holder of another API key, for another purpose, or is damaged."""


def make_sealing_key(api_key: str, *, salt: bytes, purpose: bytes) -> bytes:
    """Return the key that `seal` and `unseal` take."""
    return HKDF(SHA256(), length=32, salt=salt, info=purpose).derive(api_key.encode())


def seal(key: bytes, content: bytes, *, purpose: bytes) -> bytes:
    nonce = os.urandom(NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, content, purpose)


def unseal(key: bytes, sealed: bytes, *, purpose: bytes) -> bytes:
    """Return what was sealed. Raises SealBrokenError."""
    try:
        return AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], purpose)
    except InvalidTag:
        raise SealBrokenError from None
