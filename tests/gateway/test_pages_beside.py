"""Pages and probes in the same process as `/v1/`: what they may take, however many are asked for, and how badly."""

import socket
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from tests.support.live_stack import LiveStack, Tenant

PAGES = ["/", "/accounts/login/", "/reference/", "/console/", "/api/schema/", "/nothing", "/static/crossmodel.css"]
# Eight threads of pages, four of the gateway, two of probes, and room for what it writes beside: notes and tallies.
MOST_CONNECTIONS = 20


def connections_of(stack: LiveStack) -> int:
    """Count the connections of the gateway to its database."""
    assert stack.gateway is not None
    port = urlsplit(stack.postgres_url).port
    opened = psutil.Process(stack.gateway.pid).net_connections("tcp")
    ours = [each for each in opened if each.status == psutil.CONN_ESTABLISHED and each.raddr]
    return sum(each.raddr.port == port for each in ours)


def threads_of(stack: LiveStack) -> int:
    assert stack.gateway is not None
    return int(psutil.Process(stack.gateway.pid).num_threads())


def ask_many(stack: LiveStack, paths: list[str], *, at_once: int) -> Counter[int]:
    with httpx.Client(base_url=stack.base_url, timeout=60) as client, ThreadPoolExecutor(at_once) as threads:
        return Counter(threads.map(lambda path: client.get(path).status_code, paths))


def test_pages_leave_no_connection_and_no_thread_behind(stack: LiveStack, alice: Tenant) -> None:
    # Once everything that stays has started: threads of pages, of probes, of the gateway's own queries.
    ask_many(stack, PAGES * 8 + ["/readyz"] * 8, at_once=16)
    threads = threads_of(stack)
    answers = ask_many(stack, PAGES * 20 + ["/readyz", "/healthz"] * 40, at_once=8)
    assert set(answers) <= {200, 302, 404}, answers
    assert connections_of(stack) <= MOST_CONNECTIONS
    assert threads_of(stack) <= threads + 5
    assert stack.post(alice).status_code == 200


def test_hundreds_of_pages_at_once_wait_for_their_turn(stack: LiveStack, alice: Tenant) -> None:
    answers = ask_many(stack, ["/accounts/login/"] * 150, at_once=150)
    assert answers == {200: 150}
    assert 0 < connections_of(stack) <= MOST_CONNECTIONS


def test_probes_are_answered_while_every_thread_of_pages_is_taken(stack: LiveStack) -> None:
    with ThreadPoolExecutor(40) as threads, httpx.Client(base_url=stack.base_url, timeout=60) as client:
        pages = [threads.submit(client.get, "/api/schema/") for _ in range(40)]
        probe = httpx.get(stack.base_url + "/readyz", timeout=30)
        assert probe.json() == {"status": "ok", "postgres": "ok", "redis": "ok"}
        assert {page.result().status_code for page in pages} == {200}


def test_clients_that_leave_keep_no_thread(stack: LiveStack) -> None:
    """Their pages are made to the end, and then the threads serve others."""
    host, port = urlsplit(stack.base_url).hostname, urlsplit(stack.base_url).port
    for _ in range(60):
        with socket.create_connection((host, port), timeout=10) as connection:
            connection.sendall(b"GET /accounts/login/ HTTP/1.1\r\nhost: localhost\r\n\r\n")
    assert ask_many(stack, ["/accounts/login/"] * 16, at_once=8) == {200: 16}
    assert connections_of(stack) <= MOST_CONNECTIONS


@pytest.mark.parametrize("path", ["/", "/accounts/login/", "/admin/", "/api/v1/credits", "/nothing", "/static/x"])
@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_long_body_is_refused_before_it_is_kept(stack: LiveStack, path: str, is_chunked: bool) -> None:
    assert stack.gateway is not None
    process = psutil.Process(stack.gateway.pid)
    before = process.memory_info().rss
    status, body = send_long_body(stack, path, is_chunked=is_chunked)
    assert status == 413
    assert ("request_too_large" in body) == path.startswith("/api/")
    assert process.memory_info().rss - before < 30 * 1024**2
    kept = [link for fd in Path(f"/proc/{process.pid}/fd").iterdir() if "(deleted)" in (link := str(fd.readlink()))]
    assert kept == []


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/api/hello"])
def test_probes_read_no_body(stack: LiveStack, path: str) -> None:
    status, _ = send_long_body(stack, path, is_chunked=False)
    assert status == 405


def send_long_body(stack: LiveStack, path: str, *, is_chunked: bool) -> tuple[int, str]:
    """Send 10 GB, as far as it is taken, and return the answer."""
    with socket.create_connection((urlsplit(stack.base_url).hostname, urlsplit(stack.base_url).port), 30) as connection:
        length = b"transfer-encoding: chunked" if is_chunked else b"content-length: 10000000000"
        connection.sendall(b"POST " + path.encode() + b" HTTP/1.1\r\nhost: localhost\r\n" + length + b"\r\n\r\n")
        part = b"a" * 65_536
        sender = threading.Thread(
            target=send_for_ever, args=(connection, b"10000\r\n" + part + b"\r\n" if is_chunked else part)
        )
        sender.start()
        answer = b""
        try:
            while chunk := connection.recv(65_536):
                answer += chunk
        except ConnectionError:
            pass
        connection.close()
        sender.join(30)
    return int(answer.split(b" ", 2)[1]), answer.decode("latin-1")


def send_for_ever(connection: socket.socket, part: bytes) -> None:
    try:
        for _ in range(2_000):
            connection.sendall(part)
    except OSError:
        pass
