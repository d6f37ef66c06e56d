"""Requests of the tests, and a plain reading of the streams that answer them."""

from typing import Any

import httpx
import orjson

KEY = "sk-sandbox-abcd"
VERSION = "2023-06-01"

Event = tuple[str | None, Any]


def ask(text: str = "Hello", **fields: Any) -> dict[str, Any]:
    """A request that both protocols take."""
    return {"model": "sandbox-large", "max_tokens": 1024, "messages": [{"role": "user", "content": text}], **fields}


def read_events(raw: bytes) -> list[Event]:
    """The events of a whole stream; a data line that is not JSON stays text."""
    events: list[Event] = []
    for block in raw.replace(b"\r\n", b"\n").split(b"\n\n"):
        fields = dict(line.split(b": ", 1) for line in block.split(b"\n") if line and not line.startswith(b":"))
        if not fields:
            continue
        name = fields[b"event"].decode() if b"event" in fields else None
        try:
            events.append((name, orjson.loads(fields[b"data"])))
        except orjson.JSONDecodeError:
            events.append((name, fields[b"data"].decode()))
    return events


async def stream(client: httpx.AsyncClient, path: str, body: dict[str, Any]) -> list[Event]:
    """The events of a stream that ends well on the wire."""
    response = await client.post(path, json={**body, "stream": True})
    assert response.status_code == 200, response.text
    return read_events(response.content)


async def read_until_broken(
    client: httpx.AsyncClient, path: str, body: dict[str, Any]
) -> tuple[bytes, Exception | None]:
    """The bytes that came, and the error that ended them, if one did."""
    received = bytearray()
    try:
        async with client.stream("POST", path, json=body) as response:
            async for part in response.aiter_raw():
                received += part
    except httpx.HTTPError as error:
        return bytes(received), error
    return bytes(received), None


def text_of(events: list[Event]) -> str:
    """The text that a Messages stream delivered."""
    return "".join(
        event["delta"]["text"]
        for name, event in events
        if name == "content_block_delta" and event["delta"]["type"] == "text_delta"
    )
