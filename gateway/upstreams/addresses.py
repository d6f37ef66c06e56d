"""Which addresses an upstream may have. Asked of what a name resolves to, at each connection: names change."""

import ipaddress
from functools import lru_cache
from typing import Any, TypeVar

from django.conf import settings

MAX_KNOWN_ADDRESSES = 1_000

AddressInfo = TypeVar("AddressInfo", bound=tuple[Any, ...])  # As getaddrinfo() returns it.


class ForbiddenAddressError(OSError):
    """The name resolves to nothing but addresses that no upstream may have."""


def allowed_addresses(host: str, found: list[AddressInfo]) -> list[AddressInfo]:
    """Return those that an upstream may have: public ones, and those in CROSSMODEL_UPSTREAM_NETWORKS.

    So nobody who may edit an upstream reaches what listens beside the gateway: metadata services, databases.
    Raises ForbiddenAddressError when none is left.
    """
    networks = tuple(settings.UPSTREAM_NETWORKS)
    kept = [info for info in found if _is_allowed(str(info[4][0]), networks)]
    if found and not kept:
        raise ForbiddenAddressError(f"{host} has no address that an upstream may have (CROSSMODEL_UPSTREAM_NETWORKS).")
    return kept


@lru_cache(maxsize=MAX_KNOWN_ADDRESSES)
def _is_allowed(text: str, networks: tuple[str, ...]) -> bool:
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    if address.is_global and not address.is_multicast:
        return True
    return any(address in ipaddress.ip_network(network, strict=False) for network in networks)
