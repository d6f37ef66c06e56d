"""The edges of HTTP: paths that are not there, wrong methods, HEAD, odd connections. A debug page never."""

import json
from contextlib import suppress

import pytest

from tests.gateway.checks import REQUEST_ID, assert_error
from tests.gateway.wire import Connection
from tests.support.live_stack import HTTP, LiveStack, Tenant, body


@pytest.mark.parametrize(
    "path",
    [
        "/v1",
        "/v1?x=1",
        "/v1/",
        "/v1/nothing",
        "/v1/messages/",
        "/v1/messages/batches",
        "/v1/messages/count_tokens/x",
        "/v1/messages%00",
        "/v1/%ff%fe",
        "/v1/../v1/messages/x",
        "/v1/chat/completions",
        "/v1//messages",
        "/v1/Messages",
        "/v1/" + "x" * 5_000,
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_paths_that_are_not_there(stack: LiveStack, alice: Tenant, method: str, path: str) -> None:
    with Connection(stack.base_url) as connection:
        connection.send(method, path, alice.headers.items(), b"{}" if method == "POST" else None)
        message = assert_error(connection.read_answer(), 404, "not_found")
    assert message.startswith("There is no /v1")


def test_html_is_not_reflected(stack: LiveStack) -> None:
    response = HTTP.get(stack.base_url + "/v1/<script>alert(1)</script>")
    assert_error(response, 404, "not_found")
    assert response.headers["content-type"] == "application/json"


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
def test_methods_that_messages_do_not_have(stack: LiveStack, alice: Tenant, method: str, path: str) -> None:
    response = HTTP.request(method, stack.base_url + path, headers=alice.headers, json=body())
    assert_error(response, 405, "method_not_allowed")
    assert response.headers["allow"] == "POST"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/claude-sonnet-4-6"])
def test_methods_that_models_do_not_have(stack: LiveStack, alice: Tenant, method: str, path: str) -> None:
    response = HTTP.request(method, stack.base_url + path, headers=alice.headers)
    assert_error(response, 405, "method_not_allowed")
    assert response.headers["allow"] == "GET, HEAD"


def test_head(stack: LiveStack, alice: Tenant) -> None:
    """The headers of GET, and no body that would be taken for the next answer on the connection."""
    with Connection(stack.base_url) as connection:
        for path, status in (("/v1/models", b"200"), ("/v1/messages", b"405"), ("/v1/nothing", b"404")):
            connection.send("HEAD", path, alice.headers.items())
            head = connection.read_until(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 " + status)
            assert b"request-id: req_" in head
            assert head.endswith(b"\r\n\r\n")
            connection.received = b""
        connection.send("GET", "/v1/models?limit=1", alice.headers.items())
        assert connection.read_answer().status_code == 200


def test_the_paths_that_clients_probe(stack: LiveStack) -> None:
    for path in ("/", "/api/hello"):
        assert HTTP.head(stack.base_url + path).status_code in (200, 302, 404)


@pytest.mark.parametrize("path", ["/nothing", "/v1", "/v2/messages", "/messages", "/.env", "/api/v1/nothing"])
def test_elsewhere_nothing_leaks_either(stack: LiveStack, path: str) -> None:
    response = HTTP.get(stack.base_url + path)
    assert response.status_code == 404
    for word in ("Traceback", "DEBUG", "urlconf", "URLconf", "django", "settings"):
        assert word not in response.text


@pytest.mark.parametrize("path", ["/api", "/api/", "/api/v1", "/api/v1/credits/", "/api/v2/credits"])
def test_the_api_has_no_pages(stack: LiveStack, alice: Tenant, path: str) -> None:
    assert_error(stack.get(alice, path), 404, "not_found")


@pytest.mark.parametrize("path", ["/api/v1/credits", "/", "/healthz"])
def test_an_odd_content_type_is_no_fault_of_ours(stack: LiveStack, alice: Tenant, path: str) -> None:
    for content_type in ("text/plain; charset*=bogus''x", "text/plain; charset*0*=utf-8''%ff", ";;;=;", "\xff"):
        with Connection(stack.base_url) as connection:
            odd = ("content-type", content_type.encode("latin-1"))
            connection.send("GET", path, [*alice.headers.items(), odd, ("connection", "close")])
            assert connection.read_rest().startswith(b"HTTP/1.1 200 ")


def test_a_host_that_is_none_gets_an_answer_and_no_stack_trace(stack: LiveStack, alice: Tenant) -> None:
    with Connection(stack.base_url) as connection:
        lines = [b"GET /api/v1/credits HTTP/1.1", b"host: a~b", b"x-api-key: " + alice.secret.encode()]
        connection.socket.sendall(b"\r\n".join(lines) + b"\r\n\r\n")
        connection.read_until(b'"request_id"')
    assert connection.received.startswith(b"HTTP/1.1 400 ")
    assert b'"bad_request"' in connection.received
    assert "DisallowedHost" not in stack.log("uvicorn")


def test_the_api_takes_any_accept_header(stack: LiveStack, alice: Tenant) -> None:
    for accept in ("application/xml", "text/html", ";;;", "\xff"):
        with Connection(stack.base_url) as connection:
            odd = ("accept", accept.encode("latin-1"))
            connection.send("GET", "/api/v1/credits", [*alice.headers.items(), odd])
            connection.read_until(b'"available"')
        assert connection.received.startswith(b"HTTP/1.1 200 ")


def test_a_connection_is_used_again(stack: LiveStack, alice: Tenant) -> None:
    content = json.dumps(body()).encode()
    with Connection(stack.base_url) as connection:
        ids = set()
        for _ in range(3):
            connection.send("POST", "/v1/messages", alice.headers.items(), content)
            answer = connection.read_answer()
            assert answer.status_code == 200
            ids.add(answer.headers["request-id"])
            connection.received = b""
            connection.send("POST", "/v1/messages", alice.headers.items(), b"not json")
            assert_error(connection.read_answer(), 400, "invalid_json")
            connection.received = b""
    assert len(ids) == 3


def test_requests_in_one_breath(stack: LiveStack, alice: Tenant) -> None:
    """Pipelined requests are answered in their order."""
    request = b"GET /v1/models/%b HTTP/1.1\r\nhost: x\r\nx-api-key: %b\r\n\r\n"
    names = [b"claude-sonnet-4-6", b"claude-none", b"claude-haiku-4-5"]
    with Connection(stack.base_url) as connection:
        connection.socket.sendall(b"".join(request % (name, alice.secret.encode()) for name in names))
        connection.read_until(b"claude-haiku-4-5")
        places = [connection.received.index(word) for word in (b"sonnet-4.6", b"claude-none", b"haiku-4.5")]
    assert places == sorted(places)


def test_expect_100_continue(stack: LiveStack, alice: Tenant) -> None:
    content = json.dumps(body()).encode()
    with Connection(stack.base_url) as connection:
        headers = [*alice.headers.items(), ("expect", "100-continue"), ("content-length", str(len(content)))]
        connection.send("POST", "/v1/messages", headers)
        connection.read_until(b"HTTP/1.1 100 Continue\r\n\r\n")
        connection.received = b""
        connection.socket.sendall(content)
        assert connection.read_answer().status_code == 200


def test_an_upgrade_is_not_taken_up(stack: LiveStack, alice: Tenant) -> None:
    upgrade = [("connection", "Upgrade"), ("upgrade", "websocket"), ("sec-websocket-version", "13")]
    with Connection(stack.base_url) as connection:
        key = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        connection.send("GET", "/v1/messages", [*alice.headers.items(), *upgrade, key])
        assert_error(connection.read_answer(), 405, "method_not_allowed")


@pytest.mark.parametrize(
    "raw",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET\r\n\r\n",
        b"ODD /v1/messages HTTP/1.1\r\nhost: x\r\n\r\n",
        b"POST /v1/messages HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/messages HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"POST /v1/messages HTTP/1.1\r\nhost: x\r\nbad header\r\n\r\n",
    ],
    ids=["TLS", "no path", "no method", "two lengths", "no chunk", "no header"],
)
def test_what_is_no_http_is_refused_and_hurts_nobody(stack: LiveStack, alice: Tenant, raw: bytes) -> None:
    with Connection(stack.base_url) as connection:
        connection.socket.sendall(raw)
        received = connection.read_rest()
    assert received == b"" or received.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 401 "))
    assert stack.post(alice).status_code == 200


@pytest.mark.parametrize(
    "line",
    [b"bad header", b"bad name: x", b": x", b"content-length: 5\r\ncontent-length: 6", b"x-api-key: cm-\x00a"],
    ids=["no colon", "a blank", "no name", "two lengths", "NUL"],
)
def test_a_head_that_is_no_http_is_refused_in_the_documented_form(stack: LiveStack, line: bytes) -> None:
    with Connection(stack.base_url) as connection:
        connection.socket.sendall(b"POST /v1/messages HTTP/1.1\r\nhost: x\r\n" + line + b"\r\n\r\n")
        answer = connection.read_answer()
    assert_error(answer, 400, "invalid_http")
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize("line", [b"x-filler: ", b"x-filler: x\r\n" * 40_000], ids=["one header", "many headers"])
def test_a_head_without_an_end_is_cut_off(stack: LiveStack, alice: Tenant, line: bytes) -> None:
    with Connection(stack.base_url) as connection:
        connection.socket.sendall(b"POST /v1/messages HTTP/1.1\r\nhost: x\r\n" + line)
        with suppress(ConnectionError):
            for _ in range(64):
                connection.socket.sendall(b"a" * 65_536)
        assert connection.read_rest().startswith(b"HTTP/1.1 431 ")
        assert b'"headers_too_large"' in connection.received
    assert stack.post(alice).status_code == 200


def test_request_ids_are_unique_and_everywhere(stack: LiveStack, alice: Tenant) -> None:
    responses = [
        stack.post(alice),
        stack.post(alice, stream=True),
        stack.post(alice, model="none"),
        stack.get(alice, "/v1/models"),
        HTTP.get(stack.base_url + "/v1/nothing"),
        HTTP.post(stack.base_url + "/v1/messages"),
        stack.get(alice, "/api/v1/credits"),
        HTTP.get(stack.base_url + "/api/v1/credits"),
        HTTP.get(stack.base_url + "/api/nothing"),
        HTTP.get(stack.base_url + "/api/hello"),
        HTTP.get(stack.base_url + "/api/schema/"),
        HTTP.get(stack.base_url + "/healthz"),
        HTTP.get(stack.base_url + "/"),
    ]
    ids = [response.headers["request-id"] for response in responses]
    assert all(REQUEST_ID.fullmatch(request_id) for request_id in ids)
    assert len(set(ids)) == len(ids)


def test_no_key_reaches_the_logs(stack: LiveStack, alice: Tenant) -> None:
    stack.post(alice)
    stack.post(alice, "[[sandbox: status=500]]")
    HTTP.get(f"{stack.base_url}/v1/nothing?key={alice.secret}", headers=alice.headers)
    assert alice.secret not in stack.log("uvicorn")
