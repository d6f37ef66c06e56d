"""A fault of our own, wherever it happens: what was admitted is closed, also when its client has left, and what was
claimed is given back.
"""

import asyncio
from collections.abc import Coroutine
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gateway.background import BackgroundWork
from gateway.metering.metered_request import MeteredRequest
from gateway.relay import StreamRelay, StreamTimeouts
from gateway.server.body_work import LargeBodies
from gateway.upstreams.calls import UpstreamCalls
from gateway.upstreams.exchange import OpenStream
from gateway.views import messages

TIMES = StreamTimeouts(
    ping_seconds=1.0, idle_seconds=1.0, total_seconds=10.0, drain_seconds=lambda: 5.0, stall_seconds=5.0
)


class Lease:
    """What a relay asks of a metered request; it notes how that ended."""

    def __init__(self) -> None:
        self.hold = self
        self.request_id = "0" * 32
        self.endings: list[str] = []
        self.is_orphaned = False

    @property
    def has_ended(self) -> bool:
        return bool(self.endings)

    async def release(self, error_code: str) -> str:
        self.endings.append(error_code)
        return "closed"


class BrokenCalls:
    """Calls whose code has a fault."""

    is_accepted = False

    def __init__(self, *, drains_anywhere: bool) -> None:
        self.drains_anywhere = drains_anywhere
        self.goes_on = asyncio.Event()

    async def open_stream(self) -> OpenStream:
        await self.goes_on.wait()
        raise KeyError("a fault")

    def note_client_left(self) -> None:
        self.goes_on.set()


class Client:
    has_left = False


@pytest.mark.parametrize("drains_anywhere", [True, False])
@pytest.mark.parametrize("leaves", [True, False])
async def test_a_fault_while_the_stream_is_opened_leaves_nothing_held(*, drains_anywhere: bool, leaves: bool) -> None:
    lease, calls, client = Lease(), BrokenCalls(drains_anywhere=drains_anywhere), Client()
    background: list[asyncio.Task[None]] = []

    def run_in_background(work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        background.append(asyncio.create_task(work))
        return background[-1]

    relay = StreamRelay(
        cast(MeteredRequest, lease),
        cast(UpstreamCalls, calls),
        request_header="req_0",
        times=TIMES,
        run_in_background=run_in_background,
        has_client_left=lambda: client.has_left,
    )
    opening = asyncio.create_task(relay.open())
    await asyncio.sleep(0)
    if leaves:
        client.has_left = True
        opening.cancel()
        if drains_anywhere:
            calls.goes_on.set()
    else:
        calls.goes_on.set()
    async with asyncio.timeout(10):
        with pytest.raises((asyncio.CancelledError, KeyError)):
            await opening
        await asyncio.gather(*background)
    assert lease.endings == ["internal_error"]


@pytest.mark.parametrize("fault", [KeyError("a fault"), asyncio.CancelledError()])
async def test_a_claim_is_given_back_where_nothing_was_admitted(
    monkeypatch: pytest.MonkeyPatch, fault: BaseException
) -> None:
    """Else the same request would be told for a day that the first one still runs."""
    given_up = asyncio.Event()

    class Claim:
        async def give_up(self) -> None:
            given_up.set()

    async def claim(*_: object) -> Claim:
        return Claim()

    def propose_request(*_: object, **__: object) -> None:
        raise fault

    monkeypatch.setattr(messages, "_claim", claim)
    monkeypatch.setattr(messages, "propose_request", propose_request)
    runtime: Any = SimpleNamespace(
        large_bodies=LargeBodies(),
        background=BackgroundWork(max_draining=10, drain_seconds=1.0),
        catalog=None,
        admission_client=SimpleNamespace(now=lambda: None),
        token_estimator=None,
    )
    body = b'{"model":"m","max_tokens":1,"messages":[{"role":"user","content":"Hi"}]}'
    request: Any = SimpleNamespace(
        take_body=lambda: body, META={"HTTP_IDEMPOTENCY_KEY": "a"}, request_id="0" * 32, metered=None
    )
    key: Any = SimpleNamespace(identity=SimpleNamespace(organization_id=7))
    with pytest.raises(type(fault)):
        await messages._answer(runtime, request, key, len(body))
    async with asyncio.timeout(10):
        await given_up.wait()
