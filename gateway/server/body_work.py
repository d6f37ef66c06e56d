"""What may be done for a body before anybody has paid: how much for one organization, and how much at once.

Both are known to this process alone: asking Redis would cost every request a round trip, and what is protected is the
CPU of this process. Ordinary requests meet a dictionary and nothing else.
"""

import asyncio
import math
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from gateway.errors import GatewayError, unavailable
from gateway.http.pieces import LARGE_BYTES

MIN_CHARGED_BYTES = 16 * 1024  # What the smallest request counts as.
UNPAID_BYTES = (
    256 * 1024 * 1024
)  # Of one organization's bodies, whichever of its keys they came with, that were not admitted, or are not yet.
UNPAID_BYTES_PER_SECOND = 8 * 1024 * 1024  # How fast they are forgotten.
MAX_KNOWN_ORGANIZATIONS = 100_000
# What is larger than LARGE_BYTES is read beside the event loop. One at a time: Python runs one at a time anyway, and
# each takes memory.
MAX_WAITING_BYTES = 256 * 1024 * 1024  # Of large bodies that are being read, or wait for it.
WAITING_SHARE = 2  # One organization may have this part of them.

NOBODY = 0  # No organization has this id.

P = ParamSpec("P")
T = TypeVar("T")


class UnpaidWork:
    """How much was read for each organization without being paid. Who is admitted gets it back; a refusal counts."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._unpaid: OrderedDict[int, tuple[float, float]] = OrderedDict()  # Bytes by organization, as of a moment.

    def charge(self, organization_id: int, body_bytes: int) -> None:
        """Count a body that is about to be read. Raises GatewayError 429 when that is too much; then it counts not."""
        charged = max(body_bytes, MIN_CHARGED_BYTES)
        unpaid = self._unpaid_bytes(organization_id) + charged
        if unpaid > UNPAID_BYTES:
            seconds = math.ceil((unpaid - UNPAID_BYTES) / UNPAID_BYTES_PER_SECOND)
            raise GatewayError(
                429,
                "rate_limited_unpaid_work",
                "This organization sent too much in requests that were refused, only counted, or not admitted yet."
                f" Try again in {seconds} s.",
                retry_after_seconds=seconds,
            )
        self._keep(organization_id, unpaid)

    def give_back(self, organization_id: int, body_bytes: int) -> None:
        """Forget a body that was charged: its request is admitted, or it was our fault that it is not."""
        self._keep(organization_id, self._unpaid_bytes(organization_id) - max(body_bytes, MIN_CHARGED_BYTES))

    def _unpaid_bytes(self, organization_id: int) -> float:
        unpaid, since = self._unpaid.get(organization_id, (0.0, 0.0))
        return max(0.0, unpaid - (self._clock() - since) * UNPAID_BYTES_PER_SECOND) if unpaid else 0.0

    def _keep(self, organization_id: int, unpaid: float) -> None:
        if unpaid <= 0:
            self._unpaid.pop(organization_id, None)
            return
        self._unpaid[organization_id] = (unpaid, self._clock())
        self._unpaid.move_to_end(organization_id)
        if len(self._unpaid) > MAX_KNOWN_ORGANIZATIONS:
            self._unpaid.popitem(last=False)


class LargeBodies:
    """A thread for large bodies. The interpreter takes turns, so what is written in Python holds nobody up; what one
    call of the parser takes is bounded by protocol.json_structure.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="large-body")
        self._waiting_bytes = 0
        self._waiting_by: Counter[int] = Counter()

    async def admit(
        self, organization_id: int, body_bytes: int, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Return the function's result; small bodies are read here and now. Raises GatewayError 503 when too many large
        ones wait, in all or of the organization.
        """
        if body_bytes <= LARGE_BYTES:
            return function(*args, **kwargs)
        waiting, waiting_of_it = self._waiting_bytes + body_bytes, self._waiting_by[organization_id] + body_bytes
        if waiting > MAX_WAITING_BYTES or waiting_of_it > MAX_WAITING_BYTES // WAITING_SHARE:
            raise unavailable("Too many large requests are being read right now.", code="large_requests_waiting")
        return await self._submit(organization_id, body_bytes, partial(function, *args, **kwargs))

    async def run(self, body_bytes: int, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The same for what has been let in already, however many wait."""
        if body_bytes <= LARGE_BYTES:
            return function(*args, **kwargs)
        return await self._submit(NOBODY, body_bytes, partial(function, *args, **kwargs))

    async def _submit(self, organization_id: int, body_bytes: int, function: Callable[[], T]) -> T:
        loop = asyncio.get_running_loop()
        self._count(organization_id, body_bytes)

        def forget(_: Future[T]) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._count, organization_id, -body_bytes)

        future = self._thread.submit(function)
        future.add_done_callback(forget)  # Not when its client leaves: the thread cannot be stopped.
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _count(self, organization_id: int, body_bytes: int) -> None:
        self._waiting_bytes += body_bytes
        self._waiting_by[organization_id] += body_bytes
        if not self._waiting_by[organization_id]:
            del self._waiting_by[organization_id]
