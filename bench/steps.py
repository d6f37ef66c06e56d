"""Where the time of a request goes: each step of the request path by itself, in one process, on the real parts.

`measure` runs this module as a process of its own (`python -m bench.steps`), so that it imports what a gateway does and
nothing more. Steps that wait for somebody run 32 at a time, as under load, and count all threads of the process.
"""

import argparse
import asyncio
import json
import os
import resource
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import uvloop

from bench.deployment import Deployment

AT_ONCE = 32
REQUESTS, QUICK_REQUESTS = 4_000, 1_000
ROUNDS = 3

T = TypeVar("T")
R = TypeVar("R")


def measure(deployment: Deployment, quick: bool) -> dict[str, Any]:
    """Return CPU in ms per request by step: the median of some rounds."""
    # Only now: the rest of this module runs in a process that has not set up Django when it is imported.
    from bench.requests import WARM_UP_REQUESTS, make_tenants, measure_cpu, wait_until_settled
    from bench.tenants import request_text

    total = QUICK_REQUESTS if quick else REQUESTS
    tenants = make_tenants("steps")
    path = deployment.folder / "steps.json"
    path.write_text(json.dumps([request_text(tenant.secret) for tenant in tenants]))
    upstream, worker, bare = deployment.start_upstream(), deployment.start_worker(), deployment.start_bare()
    try:
        measure_cpu(deployment, bare, path, connections=AT_ONCE, total=WARM_UP_REQUESTS)
        spent, _ = measure_cpu(deployment, bare, path, connections=AT_ONCE, total=total)
        answer = deployment.run_module("bench.steps", "--requests", str(path), "--total", str(total))
        wait_until_settled()
    finally:
        for program in (worker, upstream, bare):
            program.stop()
    return {"steps": {"HTTP server and an empty ASGI app": spent / total, **answer["steps"]}, "whole": answer["whole"]}


class Stopwatch:
    """CPU of the whole process per item, by step."""

    def __init__(self, total: int) -> None:
        self._total = total
        self.rounds: dict[str, list[float]] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        before = _cpu_seconds()
        yield
        self.rounds.setdefault(name, []).append((_cpu_seconds() - before) * 1000 / self._total)

    def medians(self) -> dict[str, float]:
        return {name: sorted(values)[len(values) // 2] for name, values in self.rounds.items()}


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def for_each(items: Iterable[T], work: Callable[[T], Awaitable[R]]) -> list[R]:
    """Return the results of `work` for the items, AT_ONCE at a time."""
    left = iter(list(items))
    results: list[R] = []

    async def take() -> None:
        for item in left:
            results.append(await work(item))

    await asyncio.gather(*(take() for _ in range(AT_ONCE)))
    return results


def read_scope(text: str) -> tuple[dict[str, Any], bytes]:
    """Return the ASGI scope of a request in HTTP/1.1, as uvicorn makes it, and the body."""
    head, _, body = text.partition("\r\n\r\n")
    lines = head.split("\r\n")[1:]
    headers = [tuple(part.strip().encode() for part in line.split(":", 1)) for line in lines]
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 50000),
        "scheme": "http",
        "method": "POST",
        "root_path": "",
        "path": "/v1/messages",
        "raw_path": b"/v1/messages",
        "query_string": b"",
        "headers": headers,
        "state": {},
    }
    return scope, body.encode()


async def run(texts: list[str], total: int) -> dict[str, Any]:
    from crossmodel_site.asgi import gateway
    from gateway.runtime import start_runtime, stop_runtime

    await start_runtime()
    requests = [read_scope(texts[number % len(texts)]) for number in range(total)]

    async def ask(request: tuple[dict[str, Any], bytes]) -> None:
        scope, body = request
        await gateway(dict(scope), Receive(body), ignore)

    try:
        await for_each(requests[:500], ask)  # Keys are read, scripts loaded, connections made.
        whole = Stopwatch(total)
        steps = Stopwatch(total)
        for _ in range(ROUNDS):
            with whole.step("whole"):
                await for_each(requests, ask)
            await _take_steps(steps, requests)
    finally:
        await stop_runtime()
    return {"steps": steps.medians(), "whole": whole.medians()["whole"]}


async def _take_steps(watch: Stopwatch, requests: list[tuple[dict[str, Any], bytes]]) -> None:
    from django.conf import settings

    from billing.request_id import MESSAGE_PREFIX, make_request_id
    from crossmodel_site.asgi import gateway
    from gateway.admission.identify import identify_key
    from gateway.admission.propose import propose_request
    from gateway.metering.request_log import log_request
    from gateway.protocol.codec import ReplyIdentity
    from gateway.runtime import current_runtime
    from gateway.server.handler import DisconnectWatcher, GatewayRequest, send_response
    from gateway.server.request_body import BodyReader
    from gateway.server.responses import GatewayResponse
    from gateway.upstreams.calls import UpstreamCalls
    from gateway.upstreams.exchange import Exchange
    from gateway.views.messages import parse_body

    runtime = current_runtime()
    with watch.step("request id, Django's request object"):
        made = []
        for scope, body in requests:
            receive = Receive(body)
            reader = BodyReader(scope["headers"], receive, max_bytes=settings.MAX_BODY_BYTES)
            made.append(GatewayRequest(scope, reader, make_request_id().hex, DisconnectWatcher(receive)))
    with watch.step("URL"):
        for request in made:
            gateway._resolve(request.path)
    with watch.step("authenticate"):
        keys = [await identify_key(runtime.keys, request.META) for request in made]
    with watch.step("receive the body"):
        for request, key in zip(made, keys, strict=True):
            await request.receive_body(runtime.body_room, key.identity.key_id)
    with watch.step("parse the body"):
        parsed = [parse_body(body) for _, body in requests]
    with watch.step("price, hold, upstream's body"):
        proposals = [
            propose_request(
                runtime.catalog,
                key,
                each,
                request_id=request.request_id,
                received_at=runtime.admission_client.now(),
                token_estimator=runtime.token_estimator,
            )
            for key, each, request in zip(keys, parsed, made, strict=True)
        ]
    with watch.step("ADMIT"):
        admitted = await for_each(
            zip(keys, proposals, parsed, strict=True),
            lambda item: _admit(runtime.admission.admit(item[0], item[1]), item[2], item[1]),
        )
    upstream_calls = [
        UpstreamCalls(
            Exchange(
                runtime.upstream_access,
                each,
                ReplyIdentity(MESSAGE_PREFIX, each.model),
                runtime.timeouts,
                organization_id=metered.hold.organization_id,
                request_id=metered.hold.request_id,
            ),
            proposal.planned,
            metered.attempts,
        )
        for (metered, _), each, proposal in admitted
    ]
    with watch.step("upstream call, decode its reply"):
        pairs = await for_each(
            zip(admitted, upstream_calls, strict=True), lambda item: _pair(item[0][0], item[1].fetch_whole())
        )
    with watch.step("cost, usage event, spool, CLOSE"):
        await for_each(pairs, lambda item: item[0][0].complete(item[1].reading))
    with watch.step("encode the reply"):
        bodies = [decoded.encode(usage=None) for _, decoded in pairs]
    with watch.step("response"):
        for body, ((_, headers), _) in zip(bodies, pairs, strict=True):
            await send_response(ignore, GatewayResponse(body, headers=headers), "0" * 32, [])
    with watch.step("log line"):
        for (metered, _), _ in pairs:
            log_request(
                method="POST", path="/v1/messages", status=200, duration_ms=1.0, request_id="0" * 32, metered=metered
            )


async def _admit(admission: Awaitable[T], parsed: Any, proposal: Any) -> tuple[T, Any, Any]:
    return await admission, parsed, proposal


async def _pair(first: T, second: Awaitable[R]) -> tuple[T, R]:
    return first, await second


class Receive:
    """The client's side of ASGI: the body, and then silence until the request is over."""

    def __init__(self, body: bytes) -> None:
        self._body: bytes | None = body

    async def __call__(self) -> dict[str, Any]:
        body, self._body = self._body, None
        if body is None:
            await asyncio.get_running_loop().create_future()
        return {"type": "http.request", "body": body, "more_body": False}


async def ignore(message: Any) -> None:
    """Send nowhere."""


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=Path, required=True)
    parser.add_argument("--total", type=int, required=True)
    options = parser.parse_args()
    answers = os.dup(1)  # Standard output is for the request log, as in a gateway; it goes nowhere.
    sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115  It lives as long as the process.
    result = uvloop.run(run(json.loads(options.requests.read_text()), options.total))
    os.write(answers, json.dumps(result).encode())
