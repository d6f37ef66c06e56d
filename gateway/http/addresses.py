"""Which addresses an upstream may have. Asked of what a name resolves to, at each connection: names change."""

from typing import Any, TypeVar

from django.conf import settings

from billing.network_addresses import is_reachable

AddressInfo = TypeVar("AddressInfo", bound=tuple[Any, ...])  # As getaddrinfo() returns it.


class ForbiddenAddressError(OSError):
    """The name resolves to nothing but addresses that no upstream may have."""


def allowed_addresses(host: str, found: list[AddressInfo]) -> list[AddressInfo]:
    """Return those that an upstream may have: public ones, and those in CROSSMODEL_UPSTREAM_NETWORKS.

    Raises ForbiddenAddressError when none is left.
    """
    networks = tuple(settings.UPSTREAM_NETWORKS)
    kept = [info for info in found if is_reachable(str(info[4][0]), networks)]
    if found and not kept:
        raise ForbiddenAddressError(f"{host} has no address that an upstream may have (CROSSMODEL_UPSTREAM_NETWORKS).")
    return kept
