"""Postgres from the event loop: a few threads of its own, off the warm path.

Only what the path has not seen before comes here: a new key, a changed catalog, an organization unknown to Redis.
"""

import asyncio
import logging
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Generic, ParamSpec, TypeVar
from weakref import WeakValueDictionary

from django.db import DatabaseError, InterfaceError, close_old_connections

MAX_THREADS = 6  # Each has a connection to Postgres.
MAX_THREADS_FOR_ONE = 4  # Of one organization at once, however much it asks for.
QUERY_TIMEOUT_SECONDS = 6.0
# Between the beginnings of two joint readings. One costs as much as forty of those in it, and on a busy machine two or
# three would be asked for while the one before goes on. Who asks alone does not wait.
SECONDS_BETWEEN_READINGS = 0.02

P = ParamSpec("P")
T = TypeVar("T")
Question = TypeVar("Question", bound=Hashable)
Answer = TypeVar("Answer")

logger = logging.getLogger(__name__)


class DatabaseUnavailableError(Exception):
    """Postgres did not answer; nothing is known about what was asked."""


class DatabaseThreads:
    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(MAX_THREADS, thread_name_prefix="database")
        self._shares: WeakValueDictionary[int, asyncio.Semaphore] = WeakValueDictionary()  # By organization.

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return the function's result. Raises DatabaseUnavailableError when Postgres does not answer in time."""

        def call() -> T:
            close_old_connections()
            try:
                return function(*args, **kwargs)
            finally:
                close_old_connections()

        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(QUERY_TIMEOUT_SECONDS):
                return await loop.run_in_executor(self._executor, call)
        except TimeoutError:
            raise DatabaseUnavailableError(f"Postgres did not answer within {QUERY_TIMEOUT_SECONDS:g} s.") from None
        except (DatabaseError, InterfaceError) as error:
            raise DatabaseUnavailableError(str(error)) from error

    async def run_for(self, organization_id: int, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The same on behalf of an organization: what it asks for in a crowd waits behind itself, not before others."""
        share = self._shares.get(organization_id)
        if share is None:
            share = self._shares[organization_id] = asyncio.Semaphore(MAX_THREADS_FOR_ONE)
        try:
            async with asyncio.timeout(QUERY_TIMEOUT_SECONDS):
                await share.acquire()
        except TimeoutError:
            raise DatabaseUnavailableError(f"Others of the organization took {QUERY_TIMEOUT_SECONDS:g} s.") from None
        try:
            return await self.run(function, *args, **kwargs)
        finally:
            share.release()

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)


class JointReader(Generic[Question, Answer]):
    """Asks Postgres for what many want at the same moment, all of it together and on one thread.

    After Redis came back empty everybody's account is missing at once, and whoever sends made-up keys sends them by the
    thousand: read one by one, the last would come after minutes. `read` returns answers by question; what is not among
    them is None.
    """

    def __init__(
        self,
        database: DatabaseThreads,
        read: Callable[[list[Question]], Mapping[Question, Answer]],
        *,
        most_at_once: int,
    ) -> None:
        self._database = database
        self._read = read
        self._most_at_once = most_at_once
        self._asked: dict[Question, asyncio.Future[Answer | Exception | None]] = {}
        self._reading: asyncio.Task[None] | None = None
        self._next_at = 0.0  # When a reading may begin, by the clock of the loop.

    async def ask(self, *questions: Question) -> list[Answer | None]:
        """Return the answers of a reading that has not begun yet.

        Raises DatabaseUnavailableError, or whatever is wrong with one of these questions.
        """
        futures = [self._note(question) for question in questions]
        answers = [await asyncio.shield(future) for future in futures]
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return [answer for answer in answers if not isinstance(answer, Exception)]

    def _note(self, question: Question) -> "asyncio.Future[Answer | Exception | None]":
        future = self._asked.get(question)
        if future is None:
            future = self._asked[question] = asyncio.get_running_loop().create_future()
            if self._reading is None:
                self._reading = asyncio.create_task(self._read_on())
        return future

    async def _read_on(self) -> None:
        """Read what is asked for until nothing is."""
        asked: dict[Question, asyncio.Future[Answer | Exception | None]] = {}
        try:
            while self._asked:
                await self._wait_for_others()
                asked = {
                    question: self._asked.pop(question) for question in list(islice(self._asked, self._most_at_once))
                }
                answers = await self._read_together(list(asked))
                for question, future in asked.items():
                    if not future.done():
                        future.set_result(answers.get(question))
        finally:
            self._reading = None
            for future in [*asked.values(), *self._asked.values()]:
                future.cancel()  # It is this process that stops; what has its answer keeps it.
            self._asked.clear()

    async def _wait_for_others(self) -> None:
        loop = asyncio.get_running_loop()
        if self._next_at > loop.time():
            await asyncio.sleep(self._next_at - loop.time())
        self._next_at = loop.time() + SECONDS_BETWEEN_READINGS

    async def _read_together(self, questions: list[Question]) -> dict[Question, Answer | Exception]:
        try:
            return dict(await self._database.run(self._read, questions))
        except Exception as error:
            if len(questions) == 1 or isinstance(error, DatabaseUnavailableError):
                return dict.fromkeys(questions, error)
        # Something is wrong with one of them, which is no reason to refuse the others.
        answers: dict[Question, Answer | Exception] = {}
        for question in questions:
            answers |= await self._read_together([question])
        return answers
