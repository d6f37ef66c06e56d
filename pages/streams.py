"""Long files, sent as they are made: each piece is made in the thread of the request, and no more than one waits."""

from collections.abc import AsyncIterator, Iterator

from asgiref.sync import sync_to_async

_END = b""


async def stream_chunks(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Yield what an iterator of the database yields. Django would read a plain iterator to its end before it sends."""
    read = sync_to_async(lambda: next(chunks, _END))
    try:
        while chunk := await read():
            yield chunk
    finally:
        close = getattr(chunks, "close", None)
        if close is not None:
            await sync_to_async(close)()
