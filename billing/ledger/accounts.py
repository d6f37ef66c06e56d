"""How accounts are named, and what a transaction holds of those that it has locked."""

from dataclasses import dataclass
from typing import NamedTuple


class AccountName(NamedTuple):
    """What names an account: an organization's by kind, the system's by kind, shard and payment provider."""

    kind: str
    organization_id: int | None = None
    shard: int | None = None
    payment_provider: str = ""


@dataclass(slots=True)
class Account:
    account_id: int
    balance_nanos: int
    last_seq: int
    is_changed: bool = False


@dataclass(slots=True)
class Balance:
    posted_nanos: int
    version: int
    is_changed: bool = False
