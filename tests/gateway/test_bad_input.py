"""What a hostile stranger sends: a clear 4xx in the documented form, no upstream call, nothing held."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.gateway.checks import assert_refused
from tests.gateway.wire import Connection
from tests.support.live_stack import HTTP, MODEL, LiveStack, Tenant, body

MEBIBYTE = 1024**2
MAX_BODY_BYTES = 32 * MEBIBYTE


def post_raw(stack: LiveStack, tenant: Tenant, content: Any, **headers: str) -> httpx.Response:
    return HTTP.post(stack.base_url + "/v1/messages", headers={**tenant.headers, **headers}, content=content)


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in body().items() if key != name}


MESSAGE = json.dumps(body("Hello!"))

NOT_JSON_OBJECTS = {
    "empty": b"",
    "blank": b"  \n",
    "text": b"hello",
    "cut off": MESSAGE[:-1].encode(),
    "two values": (MESSAGE + MESSAGE).encode(),
    "single quotes": b"{'model': 'x'}",
    "trailing comma": b'{"model": "x",}',
    "NaN": MESSAGE.replace("1024", "NaN").encode(),
    "Infinity": MESSAGE.replace("1024", "Infinity").encode(),
    "minus infinity": MESSAGE.replace("1024", "-Infinity").encode(),
    "bad UTF-8": MESSAGE.replace("Hello!", "Hell\u00ff").encode("latin-1"),
    "cut UTF-8": MESSAGE.replace("Hello!", "\u20ac").encode().replace(b"\xe2\x82\xac", b"\xe2\x82"),
    "UTF-16": MESSAGE.encode("utf-16"),
    "byte order mark": b"\xef\xbb\xbf" + MESSAGE.encode(),
    "lone surrogate": MESSAGE.replace("Hello!", "\\ud800").encode(),
    "lone surrogate in the model": MESSAGE.replace(MODEL, "\\udfff").encode(),
    "raw control character": MESSAGE.replace("Hello!", "a\x00b").encode(),
    "list": f"[{MESSAGE}]".encode(),
    "string": b'"hello"',
    "number": b"1",
    "null": b"null",
    "nested a little too deep": b'{"a":' * 201 + b"1" + b"}" * 201,
    "nested lists": b'{"a":' + b"[" * 5_000 + b"]" * 5_000 + b"}",
}


@pytest.mark.parametrize("content", NOT_JSON_OBJECTS.values(), ids=NOT_JSON_OBJECTS.keys())
def test_a_body_that_is_no_json_object(stack: LiveStack, alice: Tenant, content: bytes) -> None:
    assert_refused(stack, alice, post_raw(stack, alice, content), 400, "invalid_json")


def test_nesting_that_json_allows_and_we_do_not(stack: LiveStack, alice: Tenant) -> None:
    deep: Any = "x"
    for _ in range(190):
        deep = [deep]
    assert stack.post(alice, metadata={"user_id": "u", "deep": deep}).status_code == 200
    for _ in range(20):
        deep = [deep]
    response = stack.post(alice, metadata={"user_id": "u", "deep": deep})
    assert "nested" in assert_refused(stack, alice, response, 400, "invalid_json")


FIELDS: dict[str, tuple[dict[str, Any], str]] = {
    "no model": (without("model"), "model: Field required"),
    "model null": (body(model=None), "model: "),
    "model number": (body(model=1), "model: "),
    "model list": (body(model=[MODEL]), "model: "),
    "model empty": (body(model=""), "model: "),
    "model endless": (body(model="m" * 10_000), "model: "),
    "no messages": (without("messages"), "messages: Field required"),
    "messages null": (body(messages=None), "messages: "),
    "messages string": (body(messages="Hello"), "messages: "),
    "messages object": (body(messages={"0": {"role": "user", "content": "x"}}), "messages: "),
    "messages empty": (body(messages=[]), "messages: at least one message is required"),
    "message string": (body(messages=["Hello"]), "messages.0: "),
    "message null": (body(messages=[None]), "messages.0: "),
    "message empty": (body(messages=[{}]), "messages.0."),
    "no role": (body(messages=[{"content": "x"}]), "messages.0.role: Field required"),
    "no content": (body(messages=[{"role": "user"}]), "messages.0.content: Field required"),
    "role unknown": (
        body(messages=[{"role": "user", "content": "x"}, {"role": "tool", "content": "x"}]),
        "messages.1.role: Input should be 'user' or 'assistant'",
    ),
    "role list": (body(messages=[{"role": ["user"], "content": "x"}]), "messages.0.role: "),
    "content number": (body(messages=[{"role": "user", "content": 1}]), "messages.0.content: "),
    "content null": (body(messages=[{"role": "user", "content": None}]), "messages.0.content: "),
    "content of strings": (body(messages=[{"role": "user", "content": ["x"]}]), "messages.0.content.0: "),
    "text missing": (body(messages=[{"role": "user", "content": [{"type": "text"}]}]), "messages.0.content.0."),
    "text number": (body(messages=[{"role": "user", "content": [{"type": "text", "text": 1}]}]), "messages.0.content"),
    "image without source": (body(messages=[{"role": "user", "content": [{"type": "image"}]}]), "messages.0.content"),
    "document": (
        body(
            messages=[
                {"role": "user", "content": [{"type": "document", "source": {"type": "url", "url": "https://x.org"}}]}
            ]
        ),
        "This model does not support PDF input.",
    ),
    "no max_tokens": (without("max_tokens"), "max_tokens: Field required"),
    "max_tokens null": (body(max_tokens=None), "max_tokens: "),
    "max_tokens string": (body(max_tokens="1024"), "max_tokens: "),
    "max_tokens boolean": (body(max_tokens=True), "max_tokens: "),
    "max_tokens fraction": (body(max_tokens=10.5), "max_tokens: "),
    "max_tokens whole float": (body(max_tokens=1024.0), "max_tokens: "),
    "max_tokens negative": (body(max_tokens=-1), "max_tokens: "),
    "max_tokens minus 2^63": (body(max_tokens=-(2**63)), "max_tokens: "),
    "max_tokens 2^63": (body(max_tokens=2**63), "max_tokens: "),
    "max_tokens 10^400": (body(max_tokens=10**400), ""),
    "max_tokens past the model's": (body(max_tokens=1_000_000), "max_tokens: 1000000 > 1"),
    "stream string": (body(stream="true"), "stream: "),
    "stream number": (body(stream=1), "stream: "),
    "temperature 2": (body(temperature=2), "temperature: "),
    "temperature text": (body(temperature="hot"), "temperature: "),
    "top_p negative": (body(top_p=-0.1), "top_p: "),
    "top_k negative": (body(top_k=-1), "top_k: "),
    "top_k fraction": (body(top_k=0.5), "top_k: "),
    "stop_sequences string": (body(stop_sequences="stop"), "stop_sequences: "),
    "stop_sequences of numbers": (body(stop_sequences=[1]), "stop_sequences.0: "),
    "system number": (body(system=1), "system"),
    "system of numbers": (body(system=[1]), "system.0"),
    "metadata string": (body(metadata="u"), "metadata: "),
    "user_id number": (body(metadata={"user_id": 1}), "metadata.user_id: "),
    "tools object": (body(tools={}), "tools: "),
    "tool string": (body(tools=["x"]), "tools.0"),
    "tool without name": (body(tools=[{"input_schema": {"type": "object"}}]), "tools.0"),
    "tool_choice string": (body(tool_choice="auto"), "tool_choice: "),
    "tool_choice unknown": (body(tool_choice={"type": "maybe"}), "tool_choice"),
    "thinking string": (body(thinking="enabled"), "thinking: "),
    "thinking unknown": (body(thinking={"type": "deep"}), "thinking: "),
    "thinking without budget": (body(thinking={"type": "enabled"}), "thinking."),
    "thinking budget 0": (body(thinking={"type": "enabled", "budget_tokens": 0}), "thinking."),
    "thinking budget negative": (body(thinking={"type": "enabled", "budget_tokens": -5}), "thinking."),
    "thinking past max_tokens": (body(thinking={"type": "enabled", "budget_tokens": 2_000}), "`max_tokens` must be"),
}


@pytest.mark.parametrize(("fields", "text"), FIELDS.values(), ids=FIELDS.keys())
def test_a_field_that_cannot_be(stack: LiveStack, alice: Tenant, fields: dict[str, Any], text: str) -> None:
    response = post_raw(stack, alice, json.dumps(fields).encode())
    assert response.status_code == 400
    message = assert_refused(stack, alice, response, 400, response.json()["error"]["code"])
    assert message.startswith(text)


def test_a_model_that_is_not_sold(stack: LiveStack, alice: Tenant) -> None:
    for model in ("anthropic/claude-none-1", "gpt-4o", "../claude", "\U0001f642", "a\x00b"):
        assert model in assert_refused(stack, alice, stack.post(alice, model=model), 404, "model_not_found")


def test_a_content_length_over_the_limit_is_refused_without_reading_the_body(stack: LiveStack, alice: Tenant) -> None:
    with Connection(stack.base_url) as connection:
        headers = [*alice.headers.items(), ("content-length", str(MAX_BODY_BYTES + 1))]
        connection.send("POST", "/v1/messages", headers)
        message = assert_refused(stack, alice, connection.read_answer(), 413, "request_too_large")
    assert "32 MiB" in message


def test_a_chunked_body_over_the_limit(stack: LiveStack, alice: Tenant) -> None:
    def parts() -> Iterator[bytes]:
        for _ in range(33):
            yield b" " * MEBIBYTE

    assert_refused(stack, alice, post_raw(stack, alice, parts()), 413, "request_too_large")


def test_a_body_of_exactly_the_limit_is_served(stack: LiveStack, alice: Tenant) -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": ""}}
    fields = body(messages=[{"role": "user", "content": [image, {"type": "text", "text": "Hello!"}]}])
    missing = MAX_BODY_BYTES - len(json.dumps(fields))
    image["source"]["data"] = "A" * missing  # type: ignore[index]
    content = json.dumps(fields).encode()
    assert len(content) == MAX_BODY_BYTES
    assert post_raw(stack, alice, content).status_code == 200


@pytest.mark.parametrize("length", ["abc", "-1", "1e3", "9" * 25, "9" * 5_000])
def test_a_content_length_that_is_none(stack: LiveStack, alice: Tenant, length: str) -> None:
    with Connection(stack.base_url) as connection:
        connection.send("POST", "/v1/messages", [*alice.headers.items(), ("content-length", length)], None)
        answer = connection.read_rest()
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 413 ")), answer


def test_odd_content_types_change_nothing(stack: LiveStack, alice: Tenant) -> None:
    for content_type in ("", "text/plain", "multipart/form-data; boundary=x", "application/json; charset=bogus",
                         "application/x-www-form-urlencoded", "a" * 20_000, "text/plain; charset*=bogus''x",
                         ";;;=;", "application/json; charset*0*=utf-8''%ff"):  # fmt: skip
        response = post_raw(stack, alice, MESSAGE.encode(), **{"content-type": content_type})
        assert response.status_code == 200, (content_type, response.text)


def test_odd_headers_change_nothing(stack: LiveStack, alice: Tenant) -> None:
    """Bytes outside ASCII are legal in header values; none of these is ours to understand."""
    odd = [
        ("anthropic-beta", "b\u00e9ta-1".encode("latin-1")),
        ("anthropic-beta", "\u65e5\u672c".encode()),
        ("anthropic-version", "\u00fc".encode("latin-1")),
        ("user-agent", b"\xff\xfe" * 500),
        ("cookie", b"\xff=;;;=\xfe"),
        ("x-forwarded-for", b"\xff, not an address"),
        ("accept-encoding", b"gzip, br, zstd"),
    ]
    for name, value in odd:
        with Connection(stack.base_url) as connection:
            connection.send("POST", "/v1/messages", [("x-api-key", alice.secret), (name, value)], MESSAGE.encode())
            answer = connection.read_answer()
        assert answer.status_code == 200, (name, value, answer.text)
