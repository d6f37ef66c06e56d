"""One webhook over real HTTP: whatever the other side does, it ends in time, within bounds, and nowhere private."""

import socket
import ssl
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from pytest_django import Settings

from billing.webhooks.deliveries import Answer
from crossmodel_site.embedded.ports import find_free_port
from operations import judged_http, webhook_sender
from operations.judged_http import AddressInfo
from operations.webhook_sender import MAX_ANSWER_BYTES, send_webhook
from tests.support.mail_server import make_certificate
from tests.support.webhook_server import (
    BROKEN,
    ELSEWHERE,
    NO_CONTENT,
    OK,
    WebhookServer,
    drip,
    flood,
    silence,
)

PUBLIC = "93.184.215.14"


def send(url: str, **options: Any) -> Answer:
    return send_webhook(url, body=b'{"a":1}', headers={"webhook-id": "evt_1"}, **options)


def info(address: str, port: int) -> AddressInfo:
    return (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))


class Resolver:
    """Answers one list of addresses after the other, as a name server does that its owner plays with."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    def __call__(self, host: str, port: int) -> list[AddressInfo]:
        self.asked.append(host)
        return [info(address, port) for address in self.answers.pop(0)]


def test_the_request_is_whole(settings: Settings) -> None:
    with WebhookServer(OK) as server:
        answer = send(server.url)
    assert (answer.status, answer.problem, answer.text) == (200, "", "ok")
    [received] = server.received
    assert received.line == "POST /hook?a=b HTTP/1.1"
    assert received.body == b'{"a":1}'
    assert received.headers["host"] == f"127.0.0.1:{server.port}"
    assert received.headers["webhook-id"] == "evt_1"
    assert received.headers["content-type"] == "application/json"
    assert "cookie" not in received.headers


@pytest.mark.parametrize(
    ("said", "status", "problem"),
    [
        (NO_CONTENT, 204, ""),
        (BROKEN, 500, "It answered 500."),
        (ELSEWHERE, 302, "It answered 302: redirects are not followed."),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 200, ""),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, 200, ""),
        (b"SSH-2.0-OpenSSH_9.0\r\n", None, "The connection failed"),
        (b"", None, "The connection failed"),
        (b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 500, None, "The connection failed"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000, None, "The connection failed"),
    ],
)
def test_every_answer_is_told_in_words(said: bytes, status: int | None, problem: str) -> None:
    with WebhookServer(said) as server:
        answer = send(server.url)
        assert answer.status == status
        assert answer.problem == problem if status else answer.problem.startswith(problem)
        assert len(server.received) == 1


@pytest.mark.parametrize("answer", [silence, drip], ids=["silent", "dripping"])
def test_a_slow_endpoint_is_left_in_time(answer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook_sender, "TOTAL_SECONDS", 1.0)
    started = time.monotonic()
    with WebhookServer(answer) as server:
        told = send(server.url)
    assert told.problem == "There was no whole answer within 1 seconds."
    assert 0.9 < time.monotonic() - started < 5


def test_an_answer_without_an_end_is_read_so_far() -> None:
    with WebhookServer(flood) as server:
        answer = send(server.url)
    assert (answer.status, answer.problem, answer.text) == (200, "", "y" * 500)
    assert MAX_ANSWER_BYTES < 100_000


def test_a_port_where_nobody_listens() -> None:
    assert send(f"http://127.0.0.1:{find_free_port()}/").problem.startswith("No connection could be made: ")


def test_a_name_that_nobody_knows() -> None:
    assert send("http://no-such-host.invalid/").problem.startswith("The name no-such-host.invalid cannot be resolved")


def test_a_name_server_that_is_silent_is_left_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is whoever names the URL who runs it. The system's resolver waits for it as long as it likes."""
    monkeypatch.setattr(judged_http, "RESOLVE_SECONDS", 0.2)
    monkeypatch.setattr(judged_http, "_lookups", threading.BoundedSemaphore(2))
    is_over = threading.Event()

    def silent(host: str, port: int) -> list[AddressInfo]:
        is_over.wait(60)
        return [info("127.0.0.1", port)]

    for _ in range(2):
        assert send("http://slow.example/", resolve=silent).problem == "The name slow.example was not resolved in time."
    with WebhookServer(OK) as server:
        many = send(server.url).problem
        assert many == "The name 127.0.0.1 was not looked up: too many others are waited for."
        is_over.set()
        answer = None
        while answer is None or answer.problem == many:
            answer = send(server.url)
    assert answer.status == 200


@pytest.mark.parametrize("address", ["127.0.0.1", "10.1.2.3", "169.254.169.254", "0.0.0.0", "100.64.0.1"])  # noqa: S104
def test_private_addresses_are_refused_and_nothing_is_sent(address: str, settings: Settings) -> None:
    settings.WEBHOOK_NETWORKS = []
    with WebhookServer(OK) as server:
        answer = send(f"http://acme.example:{server.port}/", resolve=Resolver([address]))
        # One public address beside it does not help.
        mixed = send(f"http://acme.example:{server.port}/", resolve=Resolver([PUBLIC, address]))
        assert answer.problem == mixed.problem == "The name acme.example leads to an address that is not public."
        assert server.received == []


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]"])
def test_no_way_of_writing_it_leads_beside_us(host: str, settings: Settings) -> None:
    settings.WEBHOOK_NETWORKS = []
    with WebhookServer(OK) as server:
        assert send(f"http://{host}:{server.port}/").problem
        assert server.received == []


def test_a_name_that_changes_its_mind_is_asked_once(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS rebinding: the first answer is judged, and the connection goes to what was judged."""
    settings.WEBHOOK_NETWORKS = []
    connected: list[Any] = []

    class Watched(socket.socket):
        def connect(self, address: Any) -> None:
            connected.append(address)
            raise ConnectionRefusedError("not from a test")

    resolver = Resolver([PUBLIC], ["127.0.0.1"])
    monkeypatch.setattr(socket, "socket", Watched)
    answer = send("http://rebind.example:8080/", resolve=resolver)
    assert (connected, resolver.asked) == ([(PUBLIC, 8080)], ["rebind.example"])
    assert answer.problem == "No connection could be made: not from a test."


def test_whoever_asks_the_name_again_is_rebound(settings: Settings) -> None:
    """The control: judged by one question and connected by the next, the same name leads beside us."""
    settings.WEBHOOK_NETWORKS = []
    with WebhookServer(OK) as server:
        resolver = Resolver([PUBLIC], ["127.0.0.1"])
        assert judged_http._judged("rebind.example", resolver("rebind.example", server.port), ())
        with judged_http._connect(resolver("rebind.example", server.port), time.monotonic() + 5) as connection:
            assert connection.getpeername() == ("127.0.0.1", server.port)


def test_tls_is_checked_by_the_name(tmp_path: Path) -> None:
    """A certificate that nobody vouches for is refused: the pinned address changes nothing about that."""
    context = make_certificate(tmp_path / "certificate.pem")
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]

    def serve() -> None:
        connection, _ = listener.accept()
        try:
            context.wrap_socket(connection, server_side=True)
        except OSError:
            connection.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    answer = send(f"https://localhost:{port}/", resolve=lambda host, port: [info("127.0.0.1", port)])
    assert answer.problem == "TLS failed: CERTIFICATE_VERIFY_FAILED."
    thread.join(5)
    listener.close()


def test_tls_to_a_known_name_is_spoken_with_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = make_certificate(tmp_path / "certificate.pem")
    trusting = ssl.create_default_context(cafile=str(tmp_path / "certificate.pem"))
    monkeypatch.setattr(judged_http, "_tls", lambda: trusting)
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]

    def serve() -> None:
        connection, _ = listener.accept()
        with context.wrap_socket(connection, server_side=True) as encrypted:
            encrypted.recv(65_536)
            encrypted.sendall(OK)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    answer = send(f"https://localhost:{port}/", resolve=lambda host, port: [info("127.0.0.1", port)])
    assert (answer.status, answer.problem) == (200, "")
    thread.join(5)
    listener.close()
