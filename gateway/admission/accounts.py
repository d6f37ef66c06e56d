"""Reads organizations and keys that Redis lacks: all that is asked for at the same time, together.

After Redis came back empty everybody's account is missing at once. Read one by one, that of the last of ten thousand
organizations would come after minutes.
"""

import asyncio
from collections.abc import Collection
from itertools import islice

from billing.admission.calls.publish import Publication
from billing.admission.outbox import read_keys, read_organizations
from gateway.database import DatabaseThreads, DatabaseUnavailableError

ORGANIZATION, KEY = "organization", "key"
MAX_ACCOUNTS_PER_READING = 500

Account = tuple[str, int]  # ORGANIZATION or KEY, and its id.
Answer = Publication | Exception | None


class AccountReader:
    def __init__(self, database: DatabaseThreads) -> None:
        self._database = database
        self._asked: dict[Account, asyncio.Future[Answer]] = {}
        self._reading: asyncio.Task[None] | None = None

    async def read(self, *accounts: Account) -> list[Publication | None]:
        """Return what Redis is told of each, as it is from now on; None for what does not exist.

        Raises DatabaseUnavailableError.
        """
        futures = [self._ask(account) for account in accounts]
        answers = [await asyncio.shield(future) for future in futures]
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return [answer for answer in answers if not isinstance(answer, Exception)]

    def _ask(self, account: Account) -> "asyncio.Future[Answer]":
        """Return the answer of a reading that has not begun yet."""
        future = self._asked.get(account)
        if future is None:
            future = self._asked[account] = asyncio.get_running_loop().create_future()
            if self._reading is None:
                self._reading = asyncio.create_task(self._read_on())
        return future

    async def _read_on(self) -> None:
        """Read what is asked for until nothing is."""
        try:
            while self._asked:
                asked = {
                    account: self._asked.pop(account) for account in list(islice(self._asked, MAX_ACCOUNTS_PER_READING))
                }
                try:
                    answers = await self._read_together(list(asked))
                except BaseException:
                    for future in asked.values():
                        future.cancel()
                    raise
                for account, future in asked.items():
                    if not future.done():
                        future.set_result(answers.get(account))
        finally:
            self._reading = None

    async def _read_together(self, accounts: list[Account]) -> dict[Account, Answer]:
        try:
            return dict(await self._database.run(_read_accounts, accounts))
        except Exception as error:
            if len(accounts) == 1 or isinstance(error, DatabaseUnavailableError):
                return dict.fromkeys(accounts, error)
        # Something is wrong with one of them, which is no reason to refuse the others.
        answers: dict[Account, Answer] = {}
        for account in accounts:
            answers |= await self._read_together([account])
        return answers


def _read_accounts(accounts: Collection[Account]) -> dict[Account, Publication]:
    organizations = read_organizations([number for kind, number in accounts if kind == ORGANIZATION])
    keys = read_keys([number for kind, number in accounts if kind == KEY])
    return {
        **{(ORGANIZATION, number): publication for number, publication in organizations.items()},
        **{(KEY, number): publication for number, publication in keys.items()},
    }
