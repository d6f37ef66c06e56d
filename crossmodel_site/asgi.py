"""The one ASGI entry point: `/v1/` goes to the gateway's lean handler, everything else to Django's own.

CROSSMODEL_PAGES says whether this process does both, one of them, or passes pages on to a process beside it.
"""

import asyncio
import os
import re
import traceback
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import django
from django.urls.resolvers import RegexPattern, URLResolver

os.environ["DJANGO_SETTINGS_MODULE"] = "crossmodel_site.settings"
django.setup()

from django.conf import settings  # noqa: E402  Django must be set up before what uses its models is imported.

from billing.admission.durability import UnfitRedisError  # noqa: E402
from crossmodel_site.health import Probes  # noqa: E402
from crossmodel_site.metrics import PATH as METRICS_PATH  # noqa: E402
from crossmodel_site.metrics import Metrics, forget_dead_processes  # noqa: E402
from crossmodel_site.page_bodies import send_refusal  # noqa: E402
from crossmodel_site.page_relay import PageRelay, with_true_client  # noqa: E402
from crossmodel_site.pages import PagesHandler, prepare_pages  # noqa: E402
from gateway.open_files import most_connections  # noqa: E402
from gateway.runtime import start_runtime, stop_runtime  # noqa: E402
from gateway.server.handler import LeanHandler  # noqa: E402
from gateway.spool import SpoolUnusableError  # noqa: E402
from gateway.tracing import start_tracing, stop_tracing  # noqa: E402

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

probes = Probes()
metrics = Metrics()
pages: Application = PagesHandler() if settings.PAGES in ("here", "only") else PageRelay(settings.PAGES)
serves_gateway = settings.PAGES != "only"
# Reports for FinOps tools have Anthropic's addresses, and are no part of the request path.
FOR_MANAGEMENT = "/v1/organizations/"
# What a request would cost is told by those who would hold it.
ESTIMATE = "/api/v1/estimate"
FOR_GATEWAY = re.compile(r"/+v1(/|$)|/+messages(/|$)", re.IGNORECASE)
gateway = LeanHandler(URLResolver(RegexPattern(r"^/"), "gateway.urls"), max_body_bytes=settings.MAX_BODY_BYTES)


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await _live(receive, send)
    elif is_for_gateway(scope["path"]):
        await (gateway(scope, receive, send) if serves_gateway else _refuse(scope, send))
    elif scope["path"] in Probes.PATHS:
        await probes(scope, send)
    elif scope["path"] == METRICS_PATH and metrics.may_see(scope):
        await metrics(scope, send)
    elif settings.PAGES == "elsewhere":
        await _refuse(scope, send)
    else:
        # Who comes by a Unix socket is a gateway beside this process.
        is_passed_on = not serves_gateway and scope.get("client") is None
        await pages(with_true_client(scope) if is_passed_on else scope, receive, send)


async def _refuse(scope: Scope, send: Send) -> None:
    """Say that whoever sent it here is set up wrongly: this process does not serve it."""
    text = "This process does not serve this address: see CROSSMODEL_PAGES."
    await send_refusal(scope, send, status=421, code="misdirected_request", text=text)


def is_for_gateway(path: str) -> bool:
    """Say whether a client of the API asks: also one with a base URL that ends in `/` or `/v1`, or in capitals."""
    if path.startswith(FOR_MANAGEMENT):
        return False
    return path.startswith("/v1/") or path == ESTIMATE or FOR_GATEWAY.match(path) is not None


async def _live(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            most_connections()
            forget_dead_processes()
            start_tracing()
            try:
                if serves_gateway:
                    await start_runtime()
                else:
                    prepare_pages()
            except (SpoolUnusableError, UnfitRedisError) as error:
                await send({"type": "lifespan.startup.failed", "message": str(error)})
                return
            except Exception:
                # Told, because a server takes an exception here for an application that knows no lifespan, and goes on.
                await send({"type": "lifespan.startup.failed", "message": traceback.format_exc()})
                return
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await stop_runtime()
            await asyncio.to_thread(stop_tracing)
            await send({"type": "lifespan.shutdown.complete"})
            return
