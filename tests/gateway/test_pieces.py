"""Putting received pieces together: on the event loop for small bodies only."""

import asyncio
import threading
from collections.abc import Iterator

from gateway.http.pieces import LARGE_BYTES, join_pieces


class WatchedPieces(list[bytes]):
    """Notes which threads put it together; what only adds up its lengths takes no time and is not looked at."""

    def __init__(self, *pieces: bytes) -> None:
        super().__init__(pieces)
        self.threads: list[int] = []

    def __iter__(self) -> Iterator[bytes]:
        self.threads.append(threading.get_ident())
        return super().__iter__()


def test_large_pieces_are_put_together_beside_the_event_loop() -> None:
    async def join(pieces: list[bytes]) -> bytes:
        return await join_pieces(pieces)

    half = b"a" * (LARGE_BYTES // 2)
    here = threading.get_ident()
    for pieces, is_beside in (((b"one",), False), ((half, half), False), ((half, half, b"!"), True)):
        watched = WatchedPieces(*pieces)
        assert asyncio.run(join(watched)) == b"".join(pieces)
        assert any(thread != here for thread in watched.threads) == is_beside
