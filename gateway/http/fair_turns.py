"""Long work in pieces: one piece in each turn of the event loop, whoever it is for.

A stream whose upstream writes faster than we read would otherwise be decoded for as long as there is something of it,
and a hundred such streams one after the other, before anybody else is looked at.
"""

import asyncio
from collections import deque


class FairTurns:
    """Those who wait are let in one at a time, in their order, and the event loop looks at everybody in between."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._is_scheduled = False

    async def take(self) -> None:
        """Return when it is this caller's turn. May be cancelled."""
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        self._waiting.append(turn)
        if not self._is_scheduled:
            self._is_scheduled = True
            loop.call_soon(self._let_in)
        await turn

    def _let_in(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                break
        self._is_scheduled = bool(self._waiting)
        if self._is_scheduled:
            asyncio.get_running_loop().call_soon(self._let_in)
