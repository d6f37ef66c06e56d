"""Files that a process may open: nobody alone takes the last of them, and an upstream is not blamed where one lacks."""

import errno
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from pytest_django import Settings

from gateway import open_files
from gateway.http import transport
from gateway.http.client import UpstreamClient
from gateway.http.errors import NoRoomError, UpstreamUnreachableError
from tests.gateway.catalog_factory import sell_catalog_model
from tests.gateway.checks import assert_error
from tests.gateway.scripted_upstream import COMPLETE, scripted_upstream, streamed
from tests.gateway.wire import Connection
from tests.support.extra_gateway import extra_gateway
from tests.support.live_stack import LiveStack, body

MANY_FILES = 1_000_000
FEW_FILES = 500
FITTING = (FEW_FILES - open_files.FILES_BESIDE) // open_files.FILES_OF_A_CONNECTION
ANOTHER_ADDRESS = "127.0.0.2"


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "expected"),
    [
        (1_024, 524_288, 150_256, 150_256),
        (1_024, 4_096, 150_256, 4_096),
        (1_024, 1_024, 150_256, 1_024),
        (200_000, 524_288, 150_256, 200_000),  # It may open more than that already.
        (256, resource.RLIM_INFINITY, 150_256, 150_256),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, 150_256, 150_256),
    ],
)
def test_the_limit_is_raised_as_far_as_it_may_be(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, wanted: int, expected: int
) -> None:
    limit_files(monkeypatch, soft, hard)
    assert open_files.raise_limit(wanted) == expected


def test_a_system_that_takes_no_large_number_gets_a_usual_one(monkeypatch: pytest.MonkeyPatch) -> None:
    limit_files(monkeypatch, 256, resource.RLIM_INFINITY, most=20_000)
    assert open_files.raise_limit(150_256) == 10_240


def test_as_many_connections_are_taken_as_there_are_files_for(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    settings.MAX_CONNECTIONS = 1_000
    limit_files(monkeypatch, FEW_FILES, FEW_FILES)
    assert open_files.most_connections.__wrapped__() == FITTING
    assert f"may open {FEW_FILES} files, so it takes {FITTING} connections" in caplog.text
    caplog.clear()
    limit_files(monkeypatch, FEW_FILES, MANY_FILES)
    assert open_files.most_connections.__wrapped__() == 1_000
    assert not caplog.text


def test_nobody_alone_takes_the_last_file(stack: LiveStack) -> None:
    alice = stack.make_tenant()
    with extra_gateway(stack, "few-files", most_files=FEW_FILES) as gateway, ExitStack() as exits:
        for _ in range(FEW_FILES):
            exits.enter_context(Connection(gateway.base_url))
        with httpx.Client(transport=httpx.HTTPTransport(local_address=ANOTHER_ADDRESS), timeout=30) as other:
            for _ in range(3):
                answer = other.post(gateway.base_url + "/v1/messages", headers=alice.headers, json=body())
                assert answer.status_code == 200
        with Connection(gateway.base_url) as one_more:
            one_more.send("GET", "/v1/models", alice.headers.items())
            assert b"too_many_connections" in one_more.read_rest()
        assert f"so it takes {FITTING} connections at once" in gateway.log()
        assert "Traceback" not in gateway.log()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])  # Looking up a name opens files too.
def test_an_upstream_is_not_blamed_for_files_that_we_lack(fragile: LiveStack, host: str) -> None:
    alice = fragile.make_tenant()
    with (
        scripted_upstream() as upstream,
        extra_gateway(fragile, f"lacking-{host}") as gateway,
        httpx.Client(timeout=30) as client,
    ):
        upstream.script = streamed(*COMPLETE)
        sold = sell_catalog_model(
            fragile, alice, [gateway.base_url], upstream_urls=[upstream.url.replace("127.0.0.1", host)]
        )

        def ask(**fields: Any) -> httpx.Response:
            return client.post(gateway.base_url + "/v1/messages", headers=alice.headers, json=body(**fields))

        assert ask().status_code == 200  # By another upstream: the spool has its file.
        with no_more_files(gateway.pid):
            for _ in range(6):
                assert_error(ask(model=sold.model_id, stream=True), 503, "too_many_connections")
        assert "message_stop" in ask(model=sold.model_id, stream=True).text


@pytest.mark.parametrize("number", sorted(open_files.LACKS))
async def test_what_lacks_here_is_told_from_what_the_upstream_does(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(transport, "start_connection", raise_always(OSError(number, os.strerror(number))))
    with pytest.raises(NoRoomError):
        await call("http://127.0.0.1:1/")
    monkeypatch.setattr(transport, "start_connection", raise_always(OSError(errno.ECONNREFUSED, "refused")))
    with pytest.raises(UpstreamUnreachableError):
        await call("http://127.0.0.1:1/")


async def call(url: str) -> None:
    client = UpstreamClient(connect_seconds=1)
    try:
        await client.post(url, headers={}, body=b"", timeout_seconds=1)
    finally:
        await client.aclose()


def raise_always(error: Exception) -> Callable[..., Any]:
    async def start_connection(*_: Any, **__: Any) -> Any:
        raise error

    return start_connection


def limit_files(monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, *, most: int = MANY_FILES) -> None:
    """Let this process believe that it may open so many; the system takes no number above `most`."""
    now = [(soft, hard)]

    def set_limit(_: int, limits: tuple[int, int]) -> None:
        if limits[0] > most or limits[0] > limits[1] != resource.RLIM_INFINITY:
            raise ValueError("current limit exceeds maximum limit")
        now[0] = limits

    monkeypatch.setattr(resource, "getrlimit", lambda _: now[0])
    monkeypatch.setattr(resource, "setrlimit", set_limit)


@contextmanager
def no_more_files(pid: int) -> Iterator[None]:
    """Let a process open no file beside those that it has."""
    used = {int(path.name) for path in Path(f"/proc/{pid}/fd").iterdir()}
    free = next(number for number in range(MANY_FILES) if number not in used)
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (free, hard))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
