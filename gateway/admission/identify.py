"""Who asks, and what the key may be used for, as far as that is asked before ADMIT.

Restrictions of the key (models, networks) are checked on a copy of the key that ADMIT knows to be current.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from billing.catalog.snapshot import CatalogModel
from gateway.admission.refusals import model_not_allowed, network_not_allowed
from gateway.authentication import KeyDirectory, KeyIdentity, is_allowed_from_here
from gateway.errors import GatewayError


@dataclass(slots=True)
class AuthenticatedKey:
    """Who asks: the identity may be read again while the request is admitted. `meta` is Django's META."""

    identity: KeyIdentity
    digest: bytes
    meta: Mapping[str, str]


async def identify_key(keys: KeyDirectory, meta: Mapping[str, str]) -> AuthenticatedKey:
    """Return who calls. Raises GatewayError 401, or 503 when that cannot be known."""
    identity, digest = await keys.identify(meta)
    return AuthenticatedKey(identity, digest, meta)


async def check_restrictions(
    keys: KeyDirectory, key: AuthenticatedKey, catalog_model: CatalogModel | None = None
) -> None:
    """Raise GatewayError 402 `network_not_allowed` or `model_not_allowed` when the key may not be used like this.

    A refusal ends before ADMIT could say that this process' copy of the key is old, so the key is read again first.
    """
    try:
        _check_restrictions(key, catalog_model)
    except GatewayError:
        key.identity = await keys.reload(key.digest)
        _check_restrictions(key, catalog_model)


def _check_restrictions(key: AuthenticatedKey, catalog_model: CatalogModel | None) -> None:
    if not is_allowed_from_here(key.identity, key.meta):
        raise network_not_allowed()
    allowed = key.identity.allowed_models
    if catalog_model is not None and allowed and catalog_model.id not in allowed:
        raise model_not_allowed(catalog_model.id)
