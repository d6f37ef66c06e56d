"""The one ASGI entry point: `/v1/` goes to the gateway's lean handler, everything else to Django's own."""

import os
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import django
from django.urls.resolvers import RegexPattern, URLResolver

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "crossmodel_site.settings")
django.setup()

from django.conf import settings  # noqa: E402  Django must be set up before what uses its models is imported.

from crossmodel_site.health import Probes  # noqa: E402
from crossmodel_site.pages import PagesHandler  # noqa: E402
from gateway.handler import LeanHandler  # noqa: E402
from gateway.runtime import start_runtime, stop_runtime  # noqa: E402

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

probes = Probes()
pages = PagesHandler()
FOR_GATEWAY = re.compile(r"/+v1(/|$)|/+messages(/|$)", re.IGNORECASE)
gateway = LeanHandler(URLResolver(RegexPattern(r"^/"), "gateway.urls"), max_body_bytes=settings.MAX_BODY_BYTES)


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await _live(receive, send)
    elif is_for_gateway(scope["path"]):
        await gateway(scope, receive, send)
    elif scope["path"] in Probes.PATHS:
        await probes(scope, send)
    else:
        await pages(scope, receive, send)


def is_for_gateway(path: str) -> bool:
    """Say whether a client of the API asks: also one with a base URL that ends in `/` or `/v1`, or in capitals."""
    return path.startswith("/v1/") or FOR_GATEWAY.match(path) is not None


async def _live(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await start_runtime()
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await stop_runtime()
            await send({"type": "lifespan.shutdown.complete"})
            return
