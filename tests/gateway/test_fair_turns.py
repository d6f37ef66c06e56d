"""A stream whose upstream never pauses is decoded in pieces, and everybody is looked at between two of them."""

import asyncio

import httpx

from gateway.http.client import MAX_PIECE_BYTES, UpstreamResponse
from gateway.http.fair_turns import FairTurns


class Body(httpx.AsyncByteStream):
    """Takes the place of an answer that has come in these chunks."""

    def __init__(self, *chunks: bytes) -> None:
        self._chunks = list(chunks)

    async def next_chunk(self, *, timeout_seconds: float) -> bytes | None:
        return self._chunks.pop(0) if self._chunks else None


async def test_a_long_chunk_is_returned_in_pieces_with_a_turn_between_them() -> None:
    bodies = [bytes([number]) * (3 * MAX_PIECE_BYTES + 1) for number in range(3)]
    responses = [UpstreamResponse(httpx.Response(200, stream=Body(body, b"end"))) for body in bodies]
    turns: list[int] = []
    ticks = 0

    async def read(number: int) -> bytes:
        found = b""
        while (piece := await responses[number].next_piece(timeout_seconds=1)) is not None:
            assert len(piece) <= MAX_PIECE_BYTES
            turns.append(ticks)
            found += piece
        return found

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0)
            ticks += 1

    ticking = asyncio.create_task(tick())
    assert await asyncio.gather(*(read(number) for number in range(3))) == [body + b"end" for body in bodies]
    ticking.cancel()
    # Of each body four pieces: the first comes at once, each other in a turn of the loop that it has for itself.
    later = [turn for turn in turns if turn > 1]
    assert len(set(later)) >= 8


async def test_a_turn_that_nobody_waits_for_any_more_goes_to_the_next() -> None:
    turns = FairTurns()
    first, second = asyncio.create_task(turns.take()), asyncio.create_task(turns.take())
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait_for(second, 1)
    assert first.cancelled()
    await asyncio.wait_for(turns.take(), 1)
