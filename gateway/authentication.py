"""Who calls: from the headers of a request to the identity of a key.

The answer is kept in the process. That is safe because ADMIT asks Redis whether the key still lives and whether this
process' copy is current; here only the way from a secret to a key id is remembered, which never changes.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from accounts.callers import Network, is_allowed_from, read_key_text, read_networks
from accounts.key_format import MAX_KEY_CHARS, hash_key, is_well_formed
from accounts.models import ApiKey
from gateway.database import DatabaseThreads, DatabaseUnavailableError
from gateway.errors import GatewayError, unavailable

MAX_KNOWN_KEYS = 100_000
MAX_UNKNOWN_KEYS = 10_000
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


class KeyDirectory:
    def __init__(self, database: DatabaseThreads) -> None:
        self._database = database
        self._known: OrderedDict[bytes, KeyIdentity] = OrderedDict()
        self._unknown: OrderedDict[bytes, float] = OrderedDict()
        self._loading: dict[bytes, asyncio.Task[KeyIdentity | None]] = {}

    async def identify(self, headers: Mapping[str, str]) -> tuple[KeyIdentity, bytes]:
        """Return the caller's identity and the hash of its key. Raises GatewayError 401, or 503 without Postgres."""
        text = read_key(headers)
        digest = hash_key(text)
        identity = self._known.get(digest)
        if identity is not None:
            return identity, digest
        if not is_well_formed(text) or self._unknown.get(digest, 0.0) > time.monotonic():
            raise invalid_key()
        return await self.reload(digest), digest

    async def reload(self, digest: bytes) -> KeyIdentity:
        """Read the key from Postgres, once for all that ask at the same time. Raises like identify()."""
        task = self._loading.get(digest)
        if task is None:
            task = self._loading[digest] = asyncio.create_task(self._database.run(_find_key, digest))
            task.add_done_callback(lambda _: self._loading.pop(digest, None))
        try:
            identity = await asyncio.shield(task)
        except DatabaseUnavailableError as error:
            raise unavailable("The API key cannot be checked right now.", code="key_check_unavailable") from error
        if identity is None:
            self._known.pop(digest, None)
            _remember(self._unknown, digest, time.monotonic() + UNKNOWN_KEY_SECONDS, MAX_UNKNOWN_KEYS)
            raise invalid_key()
        _remember(self._known, digest, identity, MAX_KNOWN_KEYS)
        return identity


def read_key(meta: Mapping[str, str]) -> str:
    """Return the text of the caller's key. Raises GatewayError 401."""
    text = read_key_text(meta)
    if not text:
        raise GatewayError(401, "missing_api_key", "Missing API key.", should_retry=False)
    if len(text) > MAX_KEY_CHARS:
        raise invalid_key()
    return text


def invalid_key() -> GatewayError:
    return GatewayError(401, "invalid_api_key", "Invalid API key.", should_retry=False)


def check_network(identity: KeyIdentity, meta: Mapping[str, str]) -> None:
    """Raise GatewayError 402 `network_not_allowed` when the key may not be used from the caller's address."""
    if identity.allowed_networks and not is_allowed_from(identity.allowed_networks, meta):
        raise GatewayError(402, "network_not_allowed", "This API key may not be used from this address.")


def _find_key(digest: bytes) -> KeyIdentity | None:
    key = ApiKey.objects.filter(secret_sha256=digest).first()
    if key is None:
        return None
    return KeyIdentity(
        key_id=key.pk,
        organization_id=key.organization_id,
        config_version=key.config_version,
        allowed_models=frozenset(key.allowed_models),
        allowed_networks=read_networks(key.allowed_networks),
    )


def _remember(known: OrderedDict[bytes, V], key: bytes, value: V, most: int) -> None:
    known[key] = value
    known.move_to_end(key)
    while len(known) > most:
        known.popitem(last=False)
