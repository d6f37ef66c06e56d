"""Who calls: from the headers of a request to the identity of a key.

The answer is kept in the process. That is safe because ADMIT asks Redis whether the key still lives and whether this
process' copy is current; here only the way from a secret to a key id is remembered, which never changes.
"""

import asyncio
import ipaddress
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from django.conf import settings

from accounts.key_format import MAX_KEY_CHARS, hash_key, is_well_formed
from accounts.models import ApiKey
from gateway.database import DatabaseThreads, DatabaseUnavailableError
from gateway.errors import GatewayError, unavailable

MAX_KNOWN_KEYS = 100_000
MAX_UNKNOWN_KEYS = 10_000
UNKNOWN_KEY_SECONDS = 2.0

V = TypeVar("V")
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


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


def read_key(headers: Mapping[str, str]) -> str:
    """Return the key of `x-api-key`, or else of `Authorization: Bearer`. Raises GatewayError 401.

    `headers` are Django's META, whose values are latin-1 text. x-api-key wins, since some clients send both.
    """
    text = headers.get("HTTP_X_API_KEY", "").strip()
    if not text:
        scheme, _, credential = headers.get("HTTP_AUTHORIZATION", "").partition(" ")
        text = credential.strip() if scheme.lower() == "bearer" else ""
    if not text:
        raise GatewayError(401, "missing_api_key", "Missing API key.", should_retry=False)
    if len(text) > MAX_KEY_CHARS:
        raise invalid_key()
    return text


def invalid_key() -> GatewayError:
    return GatewayError(401, "invalid_api_key", "Invalid API key.", should_retry=False)


def check_network(identity: KeyIdentity, meta: Mapping[str, str]) -> None:
    """Raise GatewayError 402 `network_not_allowed` when the key may not be used from the caller's address."""
    if not identity.allowed_networks:
        return
    address = client_address(meta)
    if address is None or not any(address in network for network in identity.allowed_networks):
        raise GatewayError(402, "network_not_allowed", "This API key may not be used from this address.")


def client_address(meta: Mapping[str, str]) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the caller's address: the peer's, or what the nearest untrusted hop of X-Forwarded-For says.

    Only addresses in CROSSMODEL_TRUSTED_PROXIES are believed about whom they speak for.
    """
    trusted = [ipaddress.ip_network(text, strict=False) for text in settings.TRUSTED_PROXIES]
    hops = [hop.strip() for hop in meta.get("HTTP_X_FORWARDED_FOR", "").split(",") if hop.strip()]
    hops.append(meta.get("REMOTE_ADDR", ""))
    address = None
    while hops:
        try:
            address = ipaddress.ip_address(hops.pop())
        except ValueError:
            return None
        if not any(address in network for network in trusted):
            break
    return address


def _find_key(digest: bytes) -> KeyIdentity | None:
    key = ApiKey.objects.filter(secret_sha256=digest).first()
    if key is None:
        return None
    return KeyIdentity(
        key_id=key.pk,
        organization_id=key.organization_id,
        config_version=key.config_version,
        allowed_models=frozenset(key.allowed_models),
        allowed_networks=tuple(ipaddress.ip_network(text, strict=False) for text in key.allowed_networks),
    )


def _remember(known: OrderedDict[bytes, V], key: bytes, value: V, most: int) -> None:
    known[key] = value
    known.move_to_end(key)
    while len(known) > most:
        known.popitem(last=False)
