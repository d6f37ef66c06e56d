"""Threads of pages are shared out among clients: who asks for many waits behind itself, and others are let in."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from crossmodel_site import page_threads
from crossmodel_site.page_threads import MAX_KEPT_BYTES, MAX_WAITING, PageThreads, TooBusyError
from crossmodel_site.pages import client_of

SCOPE: dict[str, Any] = {"path": "/page"}


async def nothing() -> dict[str, Any]:
    return {}


async def nowhere(message: Any) -> None:
    pass


class Page:
    """Works in its thread until it is let go."""

    def __init__(self) -> None:
        self.may_end = threading.Event()
        self.running = 0

    async def __call__(self, scope: Any, receive: Any, send: Callable[[Any], Awaitable[None]]) -> None:
        await sync_to_async(self._work)()
        await send({"type": "http.response.body", "body": b"done"})

    def _work(self) -> None:
        self.running += 1
        assert self.may_end.wait(30)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110  what is waited for tells nobody
            await asyncio.sleep(0.01)


def asks(threads: PageThreads, page: Any, client: str, send: Any = nowhere) -> "asyncio.Task[None]":
    return asyncio.create_task(threads.run(page, SCOPE, nothing, send, client=client))


async def test_who_asks_for_many_leaves_half_to_others() -> None:
    threads, greedy, modest = PageThreads(4), Page(), Page()
    modest.may_end.set()
    many = [asks(threads, greedy, "192.0.2.1") for _ in range(20)]
    await until(lambda: greedy.running == 2)
    await asks(threads, modest, "192.0.2.2")
    assert greedy.running == 2
    greedy.may_end.set()
    await asyncio.gather(*many)
    assert greedy.running == 20


async def test_clients_take_turns() -> None:
    threads = PageThreads(2)
    order: list[str] = []
    first = Page()

    def page_of(name: str) -> Any:
        async def page(scope: Any, receive: Any, send: Any) -> None:
            order.append(name)

        return page

    held = [asks(threads, first, name) for name in ("x", "y")]
    await until(lambda: first.running == 2)
    waiting = [asks(threads, page_of("a"), "a") for _ in range(3)]
    await asyncio.sleep(0)
    waiting += [asks(threads, page_of("b"), "b") for _ in range(2)]
    await asyncio.sleep(0)
    first.may_end.set()
    await asyncio.gather(*held, *waiting)
    # One thread each. Who has two more in front of the other waits; from then on it depends on when threads come back.
    assert sorted(order[:2]) == ["a", "b"]
    assert sorted(order[2:]) == ["a", "a", "b"]


async def test_where_too_many_wait_who_waits_for_most_gives_way() -> None:
    threads, page = PageThreads(2), Page()
    many = [asks(threads, page, "192.0.2.1") for _ in range(MAX_WAITING + 1)]  # One has a thread.
    other = asks(threads, page, "192.0.2.2")
    late = [asks(threads, page, "192.0.2.3") for _ in range(3)]
    await until(lambda: sum(task.done() for task in many) == 3)
    page.may_end.set()
    results = await asyncio.gather(*many, return_exceptions=True)
    await asyncio.gather(other, *late)
    assert sum(isinstance(result, TooBusyError) for result in results) == 3


async def test_a_thread_that_comes_too_late_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_threads, "MAX_WAIT_SECONDS", 0.05)
    threads, page = PageThreads(1), Page()
    held = asks(threads, page, "a")
    await until(lambda: page.running == 1)
    with pytest.raises(TooBusyError):
        await asks(threads, page, "b")
    gone = asks(threads, page, "c")
    await asyncio.sleep(0)
    gone.cancel()
    page.may_end.set()
    await held
    await until(lambda: len(threads._free) == 1)
    await asks(threads, page, "d")


async def test_only_a_few_long_answers_are_on_their_way_and_one_of_each_client() -> None:
    threads = PageThreads(8)
    is_read = asyncio.Event()
    sent: list[Any] = []

    async def long_page(scope: Any, receive: Any, send: Any) -> None:
        for _ in range(3):
            await send({"type": "http.response.body", "body": b"x" * MAX_KEPT_BYTES})

    async def slowly(message: Any) -> None:
        sent.append(message)
        await is_read.wait()

    readers = [asks(threads, long_page, client, slowly) for client in ("a", "b")]
    await until(lambda: len(sent) == 2)
    for client in ("a", "c"):
        with pytest.raises(TooBusyError):
            await asks(threads, long_page, client, slowly)
    short = Page()
    short.may_end.set()
    await asks(threads, short, "a")
    is_read.set()
    await asyncio.gather(*readers)
    await asks(threads, long_page, "c", slowly)


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("192.0.2.7", "198.51.100.1", "192.0.2.7"),
        ("10.0.0.1", "198.51.100.1, 203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2:3::4", "", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.7", "198.51.100.1", "192.0.2.7"),  # As a socket for both kinds of addresses gives it.
        ("::ffff:10.0.0.1", "::ffff:203.0.113.9", "203.0.113.9"),
        (None, "", ""),
    ],
)
def test_a_client_is_an_address(settings: Any, peer: str | None, forwarded: str, client: str) -> None:
    settings.TRUSTED_PROXIES = ["10.0.0.0/8"]
    headers = [(b"x-forwarded-for", forwarded.encode())] if forwarded else []
    assert client_of({"headers": headers, "client": (peer, 1) if peer else None}) == client
