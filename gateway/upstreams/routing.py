"""In which order the routes of a model are tried. Pure.

By position; routes of equal position share by weight, and a conversation keeps to its route, so that the provider's
prompt cache is found again (weighted rendezvous hashing: routes that come or go move only their own share).
"""

import hashlib
import math
from collections.abc import Sequence

from billing.catalog.snapshot import UsableRoute


def order_routes(routes: Sequence[UsableRoute], conversation: str) -> list[UsableRoute]:
    """Return the routes, first choice first. The same conversation gets the same order."""
    return sorted(routes, key=lambda route: (route.position, -_score(route, conversation)))


def _score(route: UsableRoute, conversation: str) -> float:
    if route.weight <= 0:
        return 0.0
    digest = hashlib.blake2b(f"{route.route_id}:{conversation}".encode(), digest_size=8).digest()
    uniform = (int.from_bytes(digest, "big") + 1) / (2**64 + 1)
    return -route.weight / math.log(uniform)
