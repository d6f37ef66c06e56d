"""Postgres from the event loop: a few threads of its own, off the warm path.

Only what the path has not seen before comes here: a new key, a changed catalog, an organization unknown to Redis.
"""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar
from weakref import WeakValueDictionary

from django.db import DatabaseError, InterfaceError, close_old_connections

MAX_THREADS = 6  # Each has a connection to Postgres.
MAX_THREADS_FOR_ONE = 4  # Of one organization at once, however much it asks for.
QUERY_TIMEOUT_SECONDS = 6.0

P = ParamSpec("P")
T = TypeVar("T")

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
