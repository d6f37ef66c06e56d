"""The text of an API key: `cm-` + public part + `-` + secret. Pure."""

import hashlib
import re
import secrets
import string
from dataclasses import dataclass

ALPHABET = string.ascii_letters + string.digits
PUBLIC_CHARS = 8
SECRET_CHARS = 43  # 43 characters of 62 carry 256 bits.
MAX_KEY_CHARS = 200
KEY_PATTERN = re.compile(rf"cm-[A-Za-z0-9]{{{PUBLIC_CHARS}}}-[A-Za-z0-9]{{{SECRET_CHARS}}}")


@dataclass(frozen=True, slots=True)
class NewKey:
    text: str
    prefix: str
    last_four: str
    sha256: bytes


def make_key() -> NewKey:
    """Return a new random key: its text, to be shown once, and what is stored of it."""
    prefix = "cm-" + "".join(secrets.choice(ALPHABET) for _ in range(PUBLIC_CHARS))
    text = prefix + "-" + "".join(secrets.choice(ALPHABET) for _ in range(SECRET_CHARS))
    return NewKey(text=text, prefix=prefix, last_four=text[-4:], sha256=hash_key(text))


def hash_key(text: str) -> bytes:
    """Return the SHA-256 of a key's text. A key has 256 random bits, so neither salt nor stretching is needed."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def is_well_formed(text: str) -> bool:
    return KEY_PATTERN.fullmatch(text) is not None
