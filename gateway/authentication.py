"""Who calls: from the headers of a request to the identity of a key.

The answer is kept in the process. That is safe because ADMIT asks Redis whether the key still lives and whether this
process' copy is current; here only the way from a secret to a key id is remembered, which never changes, and a second
secret only until it ends.
"""

import math
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from accounts.key_format import MAX_KEY_CHARS, hash_key, is_well_formed
from accounts.key_secrets import find_by_digests
from accounts.request_credentials import Network, is_allowed_from, read_key_text, read_networks
from gateway.admission.refusals import invalid_key, management_key, missing_key
from gateway.database import DatabaseThreads, DatabaseUnavailableError, JointReader
from gateway.errors import GatewayError, unavailable

MAX_KNOWN_KEYS = 100_000
MAX_UNKNOWN_KEYS = 10_000
MAX_KEYS_PER_LOOKUP = 500
UNKNOWN_KEY_SECONDS = 2.0

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class KeyIdentity:
    """What the request path knows of a key. `config_version` tells ADMIT how old this copy is."""

    key_id: int
    organization_id: int
    config_version: int
    allowed_models: frozenset[str]
    allowed_networks: tuple[Network, ...]
    ends_at: float = math.inf  # Of the secret, in seconds since 1970: a second secret of a key ends by itself.


class NoKey(NamedTuple):
    """What was found for a key that calls no model: none, or one that manages."""

    manages: bool = False

    def refusal(self) -> GatewayError:
        return management_key() if self.manages else invalid_key()


class KeyDirectory:
    def __init__(self, database: DatabaseThreads) -> None:
        self._reader = JointReader(database, _find_keys, most_at_once=MAX_KEYS_PER_LOOKUP)
        self._known: OrderedDict[bytes, KeyIdentity] = OrderedDict()
        self._unknown: OrderedDict[bytes, tuple[float, NoKey]] = OrderedDict()  # Until when it is believed.

    async def identify(self, headers: Mapping[str, str]) -> tuple[KeyIdentity, bytes]:
        """Return whose key it is, and the hash of the key. Raises GatewayError 401, or 503 without Postgres."""
        text = read_key(headers)
        digest = hash_key(text)
        identity = self._known.get(digest)
        if identity is not None and identity.ends_at > time.time():
            return identity, digest
        if not is_well_formed(text):
            raise invalid_key()
        believed_until, unknown = self._unknown.get(digest, (0.0, NoKey()))
        if believed_until > time.monotonic():
            raise unknown.refusal()
        return await self.reload(digest), digest

    async def reload(self, digest: bytes) -> KeyIdentity:
        """Read the key from Postgres. Raises like identify()."""
        try:
            [found] = await self._reader.ask(digest)
        except DatabaseUnavailableError as error:
            raise unavailable("The API key cannot be checked right now.", code="key_check_unavailable") from error
        identity = found or NoKey()
        if isinstance(identity, NoKey):
            self._known.pop(digest, None)
            _remember(self._unknown, digest, (time.monotonic() + UNKNOWN_KEY_SECONDS, identity), MAX_UNKNOWN_KEYS)
            raise identity.refusal()
        _remember(self._known, digest, identity, MAX_KNOWN_KEYS)
        return identity


def read_key(meta: Mapping[str, str]) -> str:
    """Return the text of the client's key. Raises GatewayError 401."""
    text = read_key_text(meta)
    if not text:
        raise missing_key()
    if len(text) > MAX_KEY_CHARS:
        raise invalid_key()
    return text


def is_allowed_from_here(identity: KeyIdentity, meta: Mapping[str, str]) -> bool:
    """Say whether the key may be used from the client's address."""
    return not identity.allowed_networks or is_allowed_from(identity.allowed_networks, meta)


def _find_keys(digests: list[bytes]) -> dict[bytes, KeyIdentity | NoKey]:
    return {
        digest: NoKey(manages=True)
        if key.is_management
        else KeyIdentity(
            key_id=key.pk,
            organization_id=key.organization_id,
            config_version=key.config_version,
            allowed_models=frozenset(key.allowed_models),
            allowed_networks=read_networks(key.allowed_networks),
            ends_at=ends_at.timestamp() if ends_at else math.inf,
        )
        for digest, (key, ends_at) in find_by_digests(digests).items()
    }


def _remember(known: OrderedDict[bytes, V], key: bytes, value: V, most: int) -> None:
    known[key] = value
    known.move_to_end(key)
    while len(known) > most:
        known.popitem(last=False)
