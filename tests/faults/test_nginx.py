"""deploy/nginx.conf on a real nginx: nothing is buffered, no POST is sent twice, who is stopped is passed over."""

import os
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from pytest_django.plugin import DjangoDbBlocker

from crossmodel_site.embedded.ports import find_free_port
from tests.support.live_stack import body, end, looking_at
from tests.support.mail_server import HOST, make_certificate
from tests.support.many_machines import Machine, ManyMachines

CONFIGURATION = Path(__file__).parents[2] / "deploy/nginx.conf"
NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
START_SECONDS = 20.0
WAIT_SECONDS = 30.0
READ_BYTES = 64 * 1024
MEBIBYTE = 1024 * 1024
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
POSTS = 12
STREAM = "[[sandbox: tokens=100; pace=200]]"
pytestmark = [
    pytest.mark.long,
    pytest.mark.keeps_redis,
    pytest.mark.timeout(300),
    pytest.mark.skipif(NGINX is None, reason="nginx is not installed"),
]


class ScriptedGateway:
    """Reads whole requests, keeps them, and does with the connection what `serve` says."""

    def __init__(self, serve: "Callable[[socket.socket, bytes], None]") -> None:
        self.requests: list[bytes] = []
        self.heads: list[bytes] = []  # As soon as they are there, before their bodies.
        self._serve = serve
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.settimeout(WAIT_SECONDS)
            while request := _read_request(connection, self.heads):
                self.requests.append(request)
                self._serve(connection, request)


def _read_request(connection: socket.socket, heads: list[bytes]) -> bytes:
    """Return one request with its body, which has a length; nothing at the end of the connection."""
    received = b""
    while b"\r\n\r\n" not in received:
        piece = connection.recv(READ_BYTES)
        if not piece:
            return b""
        received += piece
    head = received.partition(b"\r\n\r\n")[0].lower()
    heads.append(head)
    length = int(head.partition(b"content-length:")[2].split(b"\r\n")[0] or 0)
    while len(received) < len(head) + 4 + length:
        received += connection.recv(READ_BYTES)
    return received


def answer(connection: socket.socket, _: bytes) -> None:
    connection.sendall(ANSWER)


def break_off(connection: socket.socket, _: bytes) -> None:
    """Take the request, and be gone without a word."""
    connection.shutdown(socket.SHUT_RDWR)


class Nginx:
    """The file of deploy/ with addresses of ours, and its patience where a test has less; nothing else changed."""

    def __init__(self, folder: Path, *ports: int, read_timeout: str = "900s") -> None:
        self.port = find_free_port()
        certificate = folder / "nginx.pem"
        make_certificate(certificate)
        text = CONFIGURATION.read_text()
        places = {
            "listen 443 ssl": f"listen 127.0.0.1:{self.port} ssl",
            "API.EXAMPLE;": f"{HOST};",
            "proxy_read_timeout 900s": f"proxy_read_timeout {read_timeout}",
            "/etc/ssl/API.EXAMPLE.pem": str(certificate),
            "/etc/ssl/API.EXAMPLE.key": str(certificate.with_suffix(".key")),
            **{f"GATEWAY-{number}.EXAMPLE:8000": f"127.0.0.1:{port}" for number, port in enumerate(ports, 1)},
        }
        for placed, ours in places.items():
            assert placed in text, placed
            text = text.replace(placed, ours)
        (folder / "site.conf").write_text(text)
        temporary = "".join(
            f"{name}_temp_path {folder}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        self._file = folder / "nginx.conf"
        self._file.write_text(
            f"daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log info;"
            f" {'user root;' if os.geteuid() == 0 else ''}"
            f" events {{}} http {{ access_log off; {temporary} include {folder}/site.conf; }}"
        )
        self._log = folder / "error.log"
        self.tls = ssl.create_default_context(cafile=str(certificate))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        output = subprocess.run([str(NGINX), "-t", "-c", str(self._file)], capture_output=True, text=True, check=False)
        assert output.returncode == 0, output.stderr
        self._process = subprocess.Popen([str(NGINX), "-c", str(self._file)])
        ends_at = time.monotonic() + START_SECONDS
        while not _listens(self.port):
            assert self._process.poll() is None and time.monotonic() < ends_at, self._log.read_text()
            time.sleep(0.05)

    def stop(self) -> None:
        if self._process is not None:
            end(self._process, signal.SIGTERM)

    def client(self) -> httpx.Client:
        """Return a client that trusts our certificate."""
        return httpx.Client(base_url=f"https://{HOST}:{self.port}", verify=self.tls, timeout=WAIT_SECONDS)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def between(folder: Path, *ports: int, read_timeout: str = "900s") -> Iterator[Nginx]:
    nginx = Nginx(folder, *ports, read_timeout=read_timeout)
    try:
        nginx.start()
        yield nginx
    finally:
        nginx.stop()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def test_a_stream_is_passed_on_as_it_comes(folder: Path) -> None:
    """The second event is sent only when the client has the first: whoever buffers never gets it."""
    has_first = threading.Event()

    def stream(connection: socket.socket, _: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        connection.sendall(b"7\r\nfirst\n\n\r\n")
        if has_first.wait(WAIT_SECONDS):
            connection.sendall(b"8\r\nsecond\n\n\r\n0\r\n\r\n")

    gateway = ScriptedGateway(stream)
    with (
        between(folder, gateway.port, gateway.port) as nginx,
        nginx.client() as client,
        client.stream("POST", "/v1/messages", json={}) as response,
    ):
        pieces = response.iter_raw()
        assert next(pieces) == b"first\n\n"
        has_first.set()
        assert b"".join(pieces) == b"second\n\n"


def test_a_body_is_passed_on_as_it_comes(folder: Path) -> None:
    """The gateway has the head, and may refuse, while the client still sends: the second half waits for that."""
    gateway = ScriptedGateway(answer)

    def halves() -> Iterator[bytes]:
        yield b"a" * 1000
        ends_at = time.monotonic() + WAIT_SECONDS
        while not gateway.heads and time.monotonic() < ends_at:
            time.sleep(0.01)
        yield b"b" * 1000

    with between(folder, gateway.port, gateway.port) as nginx, nginx.client() as client:
        response = client.post("/v1/messages", content=halves(), headers={"content-length": "2000"})
    assert response.text == "ok"
    assert gateway.requests[0].endswith(b"a" * 1000 + b"b" * 1000)


def test_the_largest_body_passes_and_a_larger_one_does_not(folder: Path) -> None:
    gateway = ScriptedGateway(answer)
    with between(folder, gateway.port, gateway.port) as nginx, nginx.client() as client:
        assert client.post("/v1/messages", content=b"x" * (32 * MEBIBYTE)).status_code == 200
        assert len(gateway.requests[0]) > 32 * MEBIBYTE
        assert client.post("/v1/messages", content=b"x" * (34 * MEBIBYTE)).status_code == 413
    assert len(gateway.requests) == 1


def test_the_gateway_is_told_who_asks_and_how(folder: Path) -> None:
    gateway = ScriptedGateway(answer)
    with between(folder, gateway.port, gateway.port) as nginx, nginx.client() as client:
        client.post("/v1/messages", json={}, headers={"x-forwarded-for": "192.0.2.9"})
        assert client.get("/metrics").status_code == 404
    (head,) = gateway.heads
    assert b"x-forwarded-proto: https" in head
    assert b"host: localhost" in head
    # Our own hop is the last: what a client wrote in front of it is believed by nobody.
    assert b"x-forwarded-for: 192.0.2.9, 127.0.0.1" in head or b"x-forwarded-for: 192.0.2.9, ::1" in head
    assert len(gateway.requests) == 1


def test_a_post_that_was_sent_is_never_sent_again(folder: Path) -> None:
    """Also where the gateway broke off without an answer: it may have been billed. A GET may be asked again."""
    broken, sound = ScriptedGateway(break_off), ScriptedGateway(answer)
    with between(folder, broken.port, sound.port) as nginx:
        with nginx.client() as client:
            codes = [client.post("/v1/messages", content=b"post-%02d" % number).status_code for number in range(POSTS)]
        time.sleep(2.5)  # fail_timeout: the broken one has its turn again.
        with nginx.client() as client:
            got = [client.get(f"/v1/models?{number}").status_code for number in range(4)]
    sent = [request[-7:] for gateway in (broken, sound) for request in gateway.requests if request.startswith(b"POST")]
    assert sorted(sent) == [b"post-%02d" % number for number in range(POSTS)]
    assert codes.count(502) == sum(request.startswith(b"POST") for request in broken.requests) > 0
    assert set(codes) == {200, 502}
    assert set(got) == {200}


def test_a_gateway_that_takes_no_connection_is_passed_over(folder: Path) -> None:
    sound = ScriptedGateway(answer)
    with between(folder, find_free_port(), sound.port) as nginx, nginx.client() as client:
        assert {client.post("/v1/messages", json={}).status_code for _ in range(POSTS)} == {200}
    assert len(sound.requests) == POSTS


def test_gateways_are_restarted_in_turn(tmp_path: Path, django_db_blocker: DjangoDbBlocker) -> None:
    """A stream on the one that is told to stop runs to its end; whoever comes meanwhile is served by the other."""
    machines = ManyMachines(tmp_path / "stack")
    with django_db_blocker.unblock():
        try:
            machines.start()
            nginx_folder = tmp_path / "nginx"
            nginx_folder.mkdir()
            first, second = machines.machines[:2]
            with looking_at(machines), between(nginx_folder, first.port, second.port) as nginx:
                tenant = machines.make_tenant()
                for machine in (first, second):
                    texts = _restart(machines, machine, nginx, tenant.headers)
                    assert "message_stop" in texts
                machines.wait_until_quiet()
                records = machines.records(tenant)
                assert len(records) == 2 * (POSTS + 1)
                assert {record.usage_source for record in records} == {"provider"}
        finally:
            machines.stop()


def _restart(machines: ManyMachines, machine: Machine, nginx: Nginx, headers: dict[str, str]) -> str:
    """Stop one gateway while a stream runs on it, serve others meanwhile, start it again; return the stream."""
    assert machine.process is not None
    other = next(each for each in machines.machines[:2] if each is not machine)
    streamed: list[str] = []

    def stream() -> None:
        # Straight to the machine's own address: it must be this one that is stopped.
        with httpx.stream(
            "POST",
            f"http://127.0.0.1:{machine.port}/v1/messages",
            headers=headers,
            json=body(STREAM, stream=True),
            timeout=WAIT_SECONDS,
        ) as response:
            for text in response.iter_text():
                streamed.append(text)

    thread = threading.Thread(target=stream)
    thread.start()
    machines.wait_until(lambda: streamed, "the stream has begun")
    machine.process.send_signal(signal.SIGTERM)
    machines.wait_until(lambda: not _listens(machine.port), "it takes no more connections")
    with nginx.client() as client:
        codes = {client.post("/v1/messages", headers=headers, json=body()).status_code for _ in range(POSTS)}
    assert codes == {200}
    assert _listens(other.port)
    thread.join(WAIT_SECONDS)
    assert machine.process.wait(WAIT_SECONDS) in (0, -signal.SIGTERM)  # Uvicorn ends by the signal that it was sent.
    machines.start_machine(machine)
    return "".join(streamed)
