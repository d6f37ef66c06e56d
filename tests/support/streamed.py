"""What a streamed answer holds, whole: Django's test client hands it over as it would be sent."""

from typing import Any

from asgiref.sync import async_to_sync


def read_streamed(response: Any) -> bytes:
    async def read() -> bytes:
        return b"".join([chunk async for chunk in response.streaming_content])

    return async_to_sync(read)() if response.is_async else b"".join(response.streaming_content)
