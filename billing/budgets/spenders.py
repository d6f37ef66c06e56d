"""Spenders: the members and end users of an organization, as budgets count them. Pure.

A member counts for the requests of the keys that they own, an end user for the requests that name them. The text by
which a client names an end user is anybody's: Redis and sums know it by a digest of fixed length.
"""

import hashlib
from typing import NamedTuple

MEMBER, END_USER = "member", "end_user"
SCOPES = (MEMBER, END_USER)
DIGEST_BYTES = 16
EVERYBODY = ""  # As a spender's id: the budget of everybody who has none of their own.
_SHORT = {MEMBER: "member", END_USER: "user"}
_LONG = {short: scope for scope, short in _SHORT.items()}


class Spender(NamedTuple):
    """`id` is the user's id of a member, the digest of an end user."""

    organization_id: int
    scope: str
    id: str

    @property
    def name(self) -> str:
        """The name in Redis, in holds and in the usage stream: `member:7-12`, `user:7-` and a digest."""
        return f"{_SHORT[self.scope]}:{self.organization_id}-{self.id}"

    @property
    def name_parts(self) -> tuple[str, str]:
        """The scope and the id of the name, as CONFIRM takes them."""
        scope, _, holder = self.name.partition(":")
        return scope, holder


def digest_of(end_user: str) -> str:
    """Return the id of an end user, "" for none."""
    return hashlib.sha256(end_user.encode()).digest()[:DIGEST_BYTES].hex() if end_user else ""


def read_name(name: str) -> Spender:
    """Return the spender with this name in Redis. Raises ValueError for what is none."""
    scope, _, holder = name.partition(":")
    organization_id, _, spender_id = holder.partition("-")
    if scope not in _LONG or not spender_id:
        raise ValueError(f"{name!r} names no spender")
    return Spender(int(organization_id), _LONG[scope], spender_id)
