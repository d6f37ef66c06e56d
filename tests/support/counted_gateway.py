"""The gateway that says how many objects it has: `GET /objects` counts them, and turns the collector of cycles off."""

import gc
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from crossmodel_site.asgi import application as gateway

Message = MutableMapping[str, Any]


async def application(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    if scope.get("path") != "/objects":
        await gateway(scope, receive, send)
        return
    if gc.isenabled():
        gc.collect()
        gc.disable()
    body = str(len(gc.get_objects())).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
