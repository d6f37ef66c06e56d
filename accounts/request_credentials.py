"""What a request's headers say of its client: the text of a key, and the address it comes from.

Used by the request path and by the JSON API alike. `meta` is Django's META, whose values are latin-1 text.
"""

import ipaddress
from collections.abc import Iterable, Mapping
from functools import lru_cache

from django.conf import settings

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
IPV6_CUSTOMER_BITS = 64  # What one customer of a network provider has of IPv6.
MAX_LISTS_REMEMBERED = 1_024


def read_key_text(meta: Mapping[str, str]) -> str:
    """Return the key in `x-api-key`, or else in `Authorization: Bearer`; "" when there is none.

    x-api-key wins, since some clients send both, with different values.
    """
    text = meta.get("HTTP_X_API_KEY", "").strip()
    if text:
        return text
    scheme, _, credential = meta.get("HTTP_AUTHORIZATION", "").partition(" ")
    return credential.strip() if scheme.lower() == "bearer" else ""


def read_networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Return the networks of CIDR texts; an address with host bits stands for its network."""
    return _parse_networks(tuple(texts))


@lru_cache(MAX_LISTS_REMEMBERED)
def _parse_networks(texts: tuple[str, ...]) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(text, strict=False) for text in texts)


def read_address(text: str) -> Address:
    """Return the address of a text. One of IPv4 in the form of IPv6, as a socket for both gives it, is that of IPv4.

    Raises ValueError for what is none.
    """
    address = ipaddress.ip_address(text)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return address if mapped is None else mapped


def lies_in(networks: Iterable[Network], text: str) -> bool:
    """True for the text of an address that lies in one of the networks."""
    try:
        address = read_address(text)
    except ValueError:
        return False
    return any(address in network for network in networks)


def customer_network(address: Address) -> str:
    """Return by what one client is counted: an address, or the network that one customer has of IPv6."""
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, IPV6_CUSTOMER_BITS), strict=False))
    return str(address)


def is_allowed_from(networks: Iterable[Network], meta: Mapping[str, str]) -> bool:
    """True when the client's address lies in one of the networks."""
    address = client_address(meta)
    return address is not None and any(address in network for network in networks)


def client_address(meta: Mapping[str, str]) -> Address | None:
    """Return the client's address: the peer's, or what the nearest untrusted hop of X-Forwarded-For says.

    Only addresses in CROSSMODEL_TRUSTED_PROXIES are believed about whom they speak for.
    """
    trusted = read_networks(settings.TRUSTED_PROXIES)
    hops = [hop.strip() for hop in meta.get("HTTP_X_FORWARDED_FOR", "").split(",") if hop.strip()]
    hops.append(meta.get("REMOTE_ADDR", ""))
    address = None
    while hops:
        try:
            address = read_address(hops.pop())
        except ValueError:
            return None
        if not any(address in network for network in trusted):
            break
    return address
