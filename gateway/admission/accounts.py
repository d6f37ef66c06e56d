"""Reads organizations and keys that Redis lacks: all that is asked for at the same time, together."""

from collections.abc import Collection

from billing.admission.calls.publish import Publication
from billing.admission.outbox import read_keys, read_organizations
from gateway.database import DatabaseThreads, JointReader

ORGANIZATION, KEY = "organization", "key"
MAX_ACCOUNTS_PER_READING = 500

Account = tuple[str, int]  # ORGANIZATION or KEY, and its id.


class AccountReader:
    def __init__(self, database: DatabaseThreads) -> None:
        self._reader = JointReader(database, _read_accounts, most_at_once=MAX_ACCOUNTS_PER_READING)

    async def read(self, *accounts: Account) -> list[Publication | None]:
        """Return what Redis is told of each, as it is from now on; None for what does not exist.

        Raises DatabaseUnavailableError.
        """
        return await self._reader.ask(*accounts)


def _read_accounts(accounts: Collection[Account]) -> dict[Account, Publication]:
    organizations = read_organizations([number for kind, number in accounts if kind == ORGANIZATION])
    keys = read_keys([number for kind, number in accounts if kind == KEY])
    return {
        **{(ORGANIZATION, number): publication for number, publication in organizations.items()},
        **{(KEY, number): publication for number, publication in keys.items()},
    }
