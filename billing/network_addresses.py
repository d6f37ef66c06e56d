"""Which addresses our own calls may go to: public ones, and those that a setting lists. Pure.

Asked of what a name resolves to, at each connection: names change. Whoever names an address that we call (an operator
an upstream, a customer a webhook) so reaches nothing that listens beside us: metadata services, databases.
"""

import ipaddress
from collections.abc import Iterator, Sequence
from functools import lru_cache

MAX_KNOWN_ADDRESSES = 1_000
# Addresses of IPv6 that a network may turn into an address of IPv4: the last 32 bits are it.
TRANSLATED = (ipaddress.ip_network("64:ff9b::/96"),)
# Of IPv6 only this is given out for the public. The rest is local, of the past, or an address of IPv4 in yet another
# form (::127.0.0.1, ::ffff:0:127.0.0.1, 64:ff9b:1::127.0.0.1), and Python calls much of it global.
PUBLIC_IPV6 = ipaddress.ip_network("2000::/3")
NOT_PUBLIC = tuple(map(ipaddress.ip_network, ("3fff::/20", "192.0.0.0/24", "192.88.99.0/24")))

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@lru_cache(maxsize=MAX_KNOWN_ADDRESSES)
def is_reachable(text: str, networks: tuple[str, ...]) -> bool:
    """Say whether an address is public, or lies in one of the networks, in whichever of its forms."""
    return all(_is_public(address) or _lies_in(address, networks) for address in _forms_of(text))


def _forms_of(text: str) -> Iterator[Address]:
    """Yield the address, and the one of IPv4 that is written into it, which is where packets may end up."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if not isinstance(address, ipaddress.IPv6Address):
        yield address
        return
    inner = address.ipv4_mapped
    if inner is not None:
        yield inner  # The same socket as that of the address of IPv4.
        return
    yield address
    inner = address.sixtofour
    if inner is None and any(address in network for network in TRANSLATED):
        inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if inner is not None:
        yield inner


def _is_public(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address) and address not in PUBLIC_IPV6:
        return any(address in network for network in TRANSLATED)  # By the address of IPv4 in it, which is judged too.
    return address.is_global and not address.is_multicast and not any(address in network for network in NOT_PUBLIC)


def _lies_in(address: Address, networks: Sequence[str]) -> bool:
    return any(address in ipaddress.ip_network(network, strict=False) for network in networks)
