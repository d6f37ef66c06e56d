"""A gateway behind deploy/nginx.conf: early answers cost nobody the next request, and nginx's own words are JSON."""

import http.client
import json
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_django.plugin import DjangoDbBlocker

from crossmodel_site.embedded.ports import find_free_port
from tests.faults.test_nginx import (
    MEBIBYTE,
    NGINX,
    WAIT_SECONDS,
    Nginx,
    ScriptedGateway,
    answer,
    between,
    break_off,
)
from tests.support.live_stack import LiveStack, looking_at, standing_stack
from tests.support.mail_server import HOST

TIMES = 5
WRONG = (
    b"GET /v1/models HTTP/1.1\r\n\r\n",
    b"GET /v1/models?" + b"a" * 70_000 + b" HTTP/1.1\r\nhost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
    b"TRACE / HTTP/1.1\r\nhost: a\r\n\r\n",
)
LONG = b" " * (3 * MEBIBYTE)
pytestmark = [
    pytest.mark.long,
    pytest.mark.keeps_redis,
    pytest.mark.timeout(300),
    pytest.mark.skipif(NGINX is None, reason="nginx is not installed"),
]


@pytest.fixture
def proxied(
    tmp_path: Path, django_db_setup: None, django_db_blocker: DjangoDbBlocker
) -> Iterator[tuple[LiveStack, Nginx]]:
    folder = tmp_path / "nginx"
    folder.mkdir()
    with (
        django_db_blocker.unblock(),
        standing_stack(tmp_path / "stack", "nginx", CROSSMODEL_TRUSTED_PROXIES="127.0.0.1") as stack,
        looking_at(stack),
        between(folder, stack.port, stack.port) as nginx,
    ):
        yield stack, nginx


def connect(nginx: Nginx) -> http.client.HTTPSConnection:
    tls: ssl.SSLContext = nginx.tls
    return http.client.HTTPSConnection(HOST, nginx.port, context=tls, timeout=WAIT_SECONDS)


@pytest.mark.parametrize(("path", "status"), [("/v1/messages", 401), ("/v1/nope", 404)])
def test_a_connection_serves_the_request_after_an_early_answer(
    proxied: tuple[LiveStack, Nginx], path: str, status: int
) -> None:
    """nginx says that the connection stays open, and closes it where a body was under way."""
    stack, nginx = proxied
    tenant = stack.make_tenant()
    for number in range(TIMES):
        connection = connect(nginx)
        connection.request("POST", path, LONG, {"x-api-key": f"cm-nobody-{number}"})
        refused = connection.getresponse()
        refused.read()
        assert refused.status == status
        connection.request("GET", "/v1/models", headers=tenant.headers)
        assert connection.getresponse().status == 200
        connection.close()


def test_what_nginx_refuses_is_told_in_json(tmp_path: Path) -> None:
    gateway = ScriptedGateway(answer)
    with between(tmp_path, gateway.port, gateway.port) as nginx, nginx.client() as client:
        too_large = client.post("/v1/messages", content=b"x" * (34 * MEBIBYTE))
        assert (too_large.status_code, too_large.json()["error"]["code"]) == (413, "request_too_large")
        headers = client.get("/v1/models", headers={"x-a": "a" * 70_000})
        assert (headers.status_code, json.loads(headers.text)["error"]["code"]) == (431, "headers_too_large")
        assert client.get("/v1/models", headers={"x-a": "a" * 60_000}).status_code == 200
    assert len(gateway.requests) == 1


def said_to(nginx: Nginx, request: bytes) -> tuple[int, str]:
    """Return status and code of the answer to these very bytes."""
    with nginx.tls.wrap_socket(socket.create_connection((HOST, nginx.port)), server_hostname=HOST) as connection:
        connection.settimeout(WAIT_SECONDS)
        connection.sendall(request)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        return answer.status, json.loads(answer.read())["error"]["code"]


def test_what_nginx_says_of_gateways_is_told_in_json(tmp_path: Path) -> None:
    gateway = ScriptedGateway(break_off)
    with between(tmp_path, gateway.port, gateway.port) as nginx, nginx.client() as client:
        broken = client.post("/v1/messages", json={})
        assert (broken.status_code, broken.json()["error"]["code"]) == (502, "gateway_broken")
        assert "x-should-retry" not in broken.headers
        for wrong in WRONG:
            assert said_to(nginx, wrong) == (400, "invalid_http")


def test_no_gateway_at_all_is_told_in_json(tmp_path: Path) -> None:
    with between(tmp_path, find_free_port(), find_free_port()) as nginx, nginx.client() as client:
        away = client.post("/v1/messages", json={})
        assert (away.status_code, away.json()["error"]["code"]) == (502, "gateway_broken")


def test_whoever_waited_in_vain_is_told_not_to_ask_again(tmp_path: Path) -> None:
    silent = ScriptedGateway(lambda connection, _: time.sleep(WAIT_SECONDS))
    with between(tmp_path, silent.port, silent.port, read_timeout="1s") as nginx, nginx.client() as client:
        late = client.post("/v1/messages", json={})
        assert (late.status_code, late.json()["error"]["code"]) == (504, "gateway_timeout")
        assert late.headers["x-should-retry"] == "false"
    assert len(silent.requests) == 1
