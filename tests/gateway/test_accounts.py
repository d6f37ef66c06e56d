"""What Redis lacks is read together, however many ask at once; nobody's broken row is anybody else's."""

import asyncio
from collections.abc import Callable, Collection
from typing import Any

import pytest

from billing.admission.calls.publish import Publication
from gateway.admission import accounts
from gateway.admission.accounts import KEY, ORGANIZATION, AccountReader
from gateway.database import DatabaseUnavailableError

COUNT = 1_000
BROKEN, MISSING = 13, 14


class Threads:
    """In place of the threads that ask Postgres: notes what is asked for together."""

    def __init__(self) -> None:
        self.readings: list[int] = []
        self.has_begun = asyncio.Event()
        self.is_away = False

    async def run(self, function: Callable[[Collection[Any]], Any], wanted: list[Any]) -> Any:
        self.readings.append(len(wanted))
        self.has_begun.set()
        await asyncio.sleep(0)
        if self.is_away:
            raise DatabaseUnavailableError("away")
        return function(wanted)


def read_some(ids: Collection[int]) -> dict[int, Publication]:
    if BROKEN in ids:
        raise ValueError("a row that nobody can read")
    return {
        number: Publication(organization_id=number, member=f"org:{number}", config_version=1, config={}, today=0)
        for number in ids
        if number != MISSING
    }


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Threads:
    monkeypatch.setattr(accounts, "read_organizations", read_some)
    monkeypatch.setattr(accounts, "read_keys", read_some)
    return Threads()


@pytest.fixture
def reader(threads: Threads) -> AccountReader:
    return AccountReader(threads)  # type: ignore[arg-type]


async def test_all_who_ask_at_once_are_read_together(threads: Threads, reader: AccountReader) -> None:
    ids = list(range(100, 100 + COUNT))
    found = await asyncio.gather(*(reader.read((ORGANIZATION, number), (KEY, number)) for number in ids * 3))
    assert [[each.organization_id for each in pair if each] for pair in found] == [[number] * 2 for number in ids * 3]
    assert threads.readings == [accounts.MAX_ACCOUNTS_PER_READING] * (2 * COUNT // accounts.MAX_ACCOUNTS_PER_READING)


async def test_those_who_ask_one_after_another_are_read_together_too(threads: Threads, reader: AccountReader) -> None:
    """As after a loss, on a machine that is busy with those who came before."""
    asked = []
    for number in range(100, 160):
        asked.append(asyncio.create_task(reader.read((ORGANIZATION, number))))
        for _ in range(10):  # Long enough for a reading of one.
            await asyncio.sleep(0)
    assert [[account.organization_id for account in found if account] for found in await asyncio.gather(*asked)] == [
        [number] for number in range(100, 160)
    ]
    assert len(threads.readings) < 30


async def test_what_is_being_read_is_read_again_for_who_asks_now(threads: Threads, reader: AccountReader) -> None:
    """It may be older than what this one knows of Redis."""
    first = asyncio.create_task(reader.read((ORGANIZATION, 1)))
    await threads.has_begun.wait()
    await asyncio.gather(first, reader.read((ORGANIZATION, 1)))
    assert threads.readings == [1, 1]


async def test_a_row_that_cannot_be_read_is_its_own_organizations_alone(reader: AccountReader) -> None:
    asked = [reader.read((ORGANIZATION, number)) for number in (1, BROKEN, MISSING, 2)]
    one, broken, missing, two = await asyncio.gather(*asked, return_exceptions=True)
    assert isinstance(broken, ValueError)
    assert isinstance(one, list) and isinstance(two, list) and one[0] and two[0]
    assert missing == [None]


async def test_without_postgres_all_are_told_so_and_are_read_once_it_is_back(
    threads: Threads, reader: AccountReader
) -> None:
    threads.is_away = True
    asked = [reader.read((KEY, number)) for number in range(3)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert all(isinstance(answer, DatabaseUnavailableError) for answer in answers)
    threads.is_away = False
    assert await reader.read((KEY, MISSING)) == [None]


async def test_who_leaves_takes_nobody_along(reader: AccountReader) -> None:
    leaving, staying = (asyncio.create_task(reader.read((KEY, 1))) for _ in range(2))
    await asyncio.sleep(0)
    leaving.cancel()
    assert (await staying)[0] is not None
