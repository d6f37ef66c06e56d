"""What a stream looks like on the wire, whatever it was upstream; and what of a request reaches the upstream."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.gateway.catalog_factory import SoldModel, sell_catalog_model
from tests.gateway.checks import wait_for_record, wait_until_released
from tests.gateway.scripted_upstream import (
    BLOCK,
    COMPLETE,
    DELTA,
    END,
    MESSAGE,
    START,
    STOP,
    STOP_BLOCK,
    ScriptedUpstream,
    scripted_upstream,
    streamed,
    whole,
)
from tests.gateway.wire import Connection, Stream, read_stream
from tests.support.live_stack import HTTP, MODEL, LiveStack, Tenant, body

COUNTS = {"input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"}
# The gateway's own, those of rates and of HTTP itself; nothing that an upstream sent.
EXPECTED_HEADERS = {"date", "server", "content-type", "cache-control", "x-accel-buffering", "request-id"}
RATE_HEADERS = {f"anthropic-ratelimit-requests-{name}" for name in ("limit", "remaining", "reset")}


def assert_well_formed(stream: Stream) -> None:
    """Check the order that the reference gives, contiguous blocks, and counts and names where clients look for them."""
    assert stream.response.status_code == 200
    names = [name for name in stream.names if name != "ping"]
    assert names[0] == "message_start"
    assert names[-2:] == ["message_delta", "message_stop"]
    assert all(event.name == event.data["type"] for event in stream.events)
    blocks = [event for event in stream.events if event.name.startswith("content_block_")]
    opened: list[int] = []
    for event in blocks:
        index = event.data["index"]
        if event.name == "content_block_start":
            assert index == len(opened)
            opened.append(index)
        assert index == opened[-1]
    message = stream.only("message_start")["message"]
    assert message["id"] == "msg_" + stream.response.headers["request-id"].removeprefix("req_")
    assert message["content"] == []
    assert set(message["usage"]) >= COUNTS
    usage = stream.only("message_delta")["usage"]
    assert set(usage) >= COUNTS
    assert all(type(usage[name]) is int for name in COUNTS)


def test_the_events_of_a_text(stack: LiveStack, alice: Tenant) -> None:
    stream = read_stream(stack.base_url, alice, "[[sandbox: say=Hello there]]")
    assert_well_formed(stream)
    assert stream.only("message_start")["message"]["model"] == MODEL
    assert stream.reply_text == "Hello there"
    assert stream.only("message_delta")["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}


def test_a_stream_says_what_the_whole_reply_says(stack: LiveStack, alice: Tenant) -> None:
    text = "[[sandbox: tokens=300; thinking=20; tool=get_weather]] Weather?"
    tools = [{"name": "get_weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}]
    whole_reply = stack.post(alice, text, tools=tools).json()
    stream = read_stream(stack.base_url, alice, text, tools=tools)
    assert_well_formed(stream)
    content: list[dict[str, Any]] = []
    for event in stream.events:
        if event.name == "content_block_start":
            content.append({**event.data["content_block"], "json": ""})
        elif event.name == "content_block_delta":
            delta = event.data["delta"]
            for source, target in (("text", "text"), ("thinking", "thinking"), ("signature", "signature")):
                if source in delta:
                    content[-1][target] = content[-1].get(target, "") + delta[source]
            content[-1]["json"] += delta.get("partial_json", "")
    for block in content:
        arguments = block.pop("json")
        if block["type"] == "tool_use":
            block["input"] = json.loads(arguments)
    assert [block["type"] for block in content] == ["thinking", "text", "tool_use"]
    without_ids = [{name: value for name, value in block.items() if name != "id"} for block in content]
    assert without_ids == [
        {name: value for name, value in block.items() if name != "id"} for block in whole_reply["content"]
    ]
    assert stream.only("message_delta")["delta"]["stop_reason"] == whole_reply["stop_reason"] == "tool_use"


@pytest.mark.parametrize(
    "oddity", ["crlf", "drip=3", "split_utf8", "u2028", "comments", "ping", "delta=1", "duplicate_delta", "nul"]
)
def test_oddities_upstream_change_nothing(stack: LiveStack, alice: Tenant, oddity: str) -> None:
    reply = stack.post(alice, f"[[sandbox: tokens=60; {oddity}]]").json()
    stream = read_stream(stack.base_url, alice, f"[[sandbox: tokens=60; {oddity}]]")
    assert_well_formed(stream)
    assert stream.reply_text == reply["content"][0]["text"]
    assert stream.only("message_delta")["usage"]["output_tokens"] == reply["usage"]["output_tokens"]
    assert "\r" not in stream.text


def test_counts_that_only_the_start_had_are_in_the_end_too(stack: LiveStack, alice: Tenant) -> None:
    stream = read_stream(stack.base_url, alice, "[[sandbox: output_only_delta; cache_read=70; cache_write_5m=50]]")
    assert_well_formed(stream)
    usage = stream.only("message_delta")["usage"]
    assert (usage["cache_read_input_tokens"], usage["cache_creation_input_tokens"]) == (70, 50)
    record = wait_for_record(stack, alice)
    assert (record.cache_read_tokens, record.cache_write_5m_tokens) == (70, 50)
    assert (record.input_tokens, record.output_tokens) == (usage["input_tokens"], usage["output_tokens"])


def test_headers_of_the_upstream_stay_there(stack: LiveStack, alice: Tenant) -> None:
    for is_streamed in (False, True):
        response = stack.post(alice, stream=is_streamed)
        extra = {"transfer-encoding"} if is_streamed else {"content-length"}
        names = set(response.headers) - extra
        assert names <= EXPECTED_HEADERS | RATE_HEADERS
        assert names >= {"content-type", "request-id"}
        assert response.headers["anthropic-ratelimit-requests-limit"] != "4000"
        assert "sandbox" not in str(response.headers)
    refused = stack.post(alice, "[[sandbox: status=429]]")
    assert set(refused.headers) <= EXPECTED_HEADERS | RATE_HEADERS | {"content-length", "retry-after"}


def test_a_stream_is_neither_compressed_nor_buffered(stack: LiveStack, alice: Tenant) -> None:
    headers = {**alice.headers, "accept-encoding": "gzip, br, zstd, deflate"}
    with HTTP.stream(
        "POST",
        stack.base_url + "/v1/messages",
        headers=headers,
        json=body("[[sandbox: tokens=50; delta=20; pace=30]]", stream=True),
    ) as response:
        assert "content-encoding" not in response.headers
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert response.headers["cache-control"] == "no-cache"
        chunks = list(response.iter_raw())
    # Each delta came by itself, since the upstream paused between them.
    assert len([chunk for chunk in chunks if b"content_block_delta" in chunk]) >= 5


def test_the_body_decides_whether_it_streams(stack: LiveStack, alice: Tenant) -> None:
    url = stack.base_url + "/v1/messages?beta=true&stream=true"
    as_json = {**alice.headers, "accept": "application/json"}
    streamed_reply = HTTP.post(url, headers=as_json, json=body(stream=True))
    assert streamed_reply.headers["content-type"].startswith("text/event-stream")
    as_events = {**alice.headers, "accept": "text/event-stream"}
    for fields in ({}, {"stream": False}, {"stream": None}):
        assert HTTP.post(url, headers=as_events, json=body(**fields)).headers["content-type"] == "application/json"


# --- what reaches the upstream ---------------------------------------------------------------------------------------


def test_unknown_fields_and_blocks_reach_the_upstream_unchanged(stack: LiveStack, alice: Tenant) -> None:
    sent = body(
        "ignored",
        context_management={"edits": [{"type": "clear_tool_uses_20250919"}]},
        output_config={"effort": "low"},
        future_field={"deep": [1, 2.5, None, "\u20ac", {"x": True}]},
        metadata={"user_id": "u-1", "future": 1},
        system=[{"type": "text", "text": "b"}, {"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}],
        temperature=0.5,
    )
    sent["messages"] = [
        {"role": "user", "content": [{"type": "future_block", "anything": [1]}, {"type": "text", "text": "x"}]},
        {"role": "assistant", "content": "y"},
        {"role": "user", "content": [{"type": "text", "text": "[[sandbox: echo]]", "future": {"a": 1}}]},
    ]
    response = HTTP.post(stack.base_url + "/v1/messages", headers=alice.headers, json=sent)
    assert response.status_code == 200
    echoed = json.loads(response.json()["content"][0]["text"])
    assert echoed == {**sent, "model": "claude-sonnet-4-6"}
    assert list(echoed) == list(sent)


@pytest.mark.parametrize("version", ["2023-06-01", "2026-10-21", None])
def test_beta_and_version_headers(stack: LiveStack, alice: Tenant, version: str | None) -> None:
    headers = {"x-api-key": alice.secret, "anthropic-beta": "future-2027-01-01,other-1"}
    if version:
        headers["anthropic-version"] = version
    response = HTTP.post(stack.base_url + "/v1/messages", headers=headers, json=body("[[sandbox: echo_headers]]"))
    arrived = json.loads(response.json()["content"][0]["text"])
    assert arrived["anthropic-beta"] == "future-2027-01-01,other-1"
    assert arrived["anthropic-version"] == (version or "2023-06-01")
    assert arrived["content-type"] == "application/json"
    assert arrived["accept-encoding"] == "identity"
    assert arrived["x-crossmodel-request-id"] == response.headers["request-id"].removeprefix("req_")
    # Nothing of the client but that: not its key, address, cookies or user agent.
    assert alice.secret[-4:] not in json.dumps(arrived)
    assert not {"authorization", "cookie", "x-forwarded-for", "x-real-ip"} & set(arrived)


def test_sampling_works_under_either_version(stack: LiveStack, alice: Tenant) -> None:
    headers = {**alice.headers, "anthropic-version": "2026-10-21"}
    response = HTTP.post(stack.base_url + "/v1/messages", headers=headers, json=body(temperature=0.2, top_k=5))
    assert response.status_code == 200


def test_a_model_is_called_as_it_was_asked_for(stack: LiveStack, alice: Tenant) -> None:
    for name in (MODEL, "claude-sonnet-4-6", "claude-sonnet-4.6"):
        assert stack.post(alice, model=name).json()["model"] == name
        assert read_stream(stack.base_url, alice, model=name).only("message_start")["message"]["model"] == name
    stack.wait_until(lambda: len(stack.records(alice)) == 6, "all are billed")
    assert {record.model_id for record in stack.records(alice)} == {MODEL}


# --- an upstream that sends anything ---------------------------------------------------------------------------------

DEEP = b'{"a":' * 400 + b"1" + b"}" * 400


@pytest.fixture(scope="module")
def upstream() -> Iterator[ScriptedUpstream]:
    with scripted_upstream() as scripted:
        yield scripted


@pytest.fixture
def scripted(stack: LiveStack, alice: Tenant, upstream: ScriptedUpstream) -> SoldModel:
    return sell_catalog_model(stack, alice, [stack.base_url], upstream_urls=[upstream.url])


def test_unknown_blocks_deltas_and_fields_pass_and_unknown_events_do_not(
    stack: LiveStack, alice: Tenant, upstream: ScriptedUpstream, scripted: SoldModel
) -> None:
    """Clients skip a block or delta that they do not know; an event of an unknown type makes some of them fail."""
    odd_block = b'{"type":"content_block_start","index":0,"content_block":{"type":"hologram","z":[1]},"future":1}'
    odd_delta = b'{"type":"content_block_delta","index":0,"delta":{"type":"photon_delta","light":"\\u0000"}}'
    upstream.script = streamed(
        START,
        ("future_event", b'{"type":"future_event"}'),
        ("content_block_start", odd_block),
        ("content_block_delta", odd_delta),
        STOP_BLOCK,
        END,
        STOP,
    )
    stream = read_stream(stack.base_url, alice, model=scripted.model_id)
    assert_well_formed(stream)
    assert stream.names == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert stream.only("content_block_start") == json.loads(odd_block)
    assert stream.only("content_block_delta") == json.loads(odd_delta)
    assert stream.only("message_start")["message"]["model"] == scripted.model_id
    record = wait_for_record(stack, alice)
    assert (record.input_tokens, record.output_tokens) == (7, 5)


def test_events_without_event_lines_get_them(
    stack: LiveStack, alice: Tenant, upstream: ScriptedUpstream, scripted: SoldModel
) -> None:
    upstream.script = streamed(*COMPLETE).replace(b"event: ", b"ignored: ")
    stream = read_stream(stack.base_url, alice, model=scripted.model_id)
    assert_well_formed(stream)
    assert stream.names == [name for name, _ in COMPLETE]


BROKEN_STREAMS = {
    "empty": (),
    "no JSON": (("message_start", b"{"),),
    "a list": (("message_start", b"[]"),),
    "deep start": (("message_start", START[1][:-1] + b',"deep":' + DEEP + b"}"),),
    "start without message": (("message_start", b'{"type":"message_start"}'),),
}


@pytest.mark.parametrize("events", BROKEN_STREAMS.values(), ids=BROKEN_STREAMS.keys())
def test_a_stream_that_never_begins_is_an_error_status(
    stack: LiveStack, alice: Tenant, upstream: ScriptedUpstream, scripted: SoldModel, events: Any
) -> None:
    upstream.script = streamed(*events)
    response = stack.post(alice, model=scripted.model_id, stream=True)
    assert response.status_code == 502
    assert response.json()["error"]["code"] == "upstream_broken"
    wait_until_released(stack, alice)
    assert stack.records(alice) == []


@pytest.mark.parametrize(
    ("error_type", "status", "code"),
    [("api_error", 502, "upstream_error"), ("overloaded_error", 503, "upstream_overloaded")],
)
def test_a_stream_that_begins_with_an_error_is_that_error(
    stack: LiveStack,
    alice: Tenant,
    upstream: ScriptedUpstream,
    scripted: SoldModel,
    error_type: str,
    status: int,
    code: str,
) -> None:
    error = json.dumps({"type": "error", "error": {"type": error_type, "message": "org-77 is busy"}}).encode()
    upstream.script = streamed(("error", error))
    response = stack.post(alice, model=scripted.model_id, stream=True)
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    assert "org-77" not in response.text
    wait_until_released(stack, alice)
    assert stack.records(alice) == []


BROKEN_LATER = {
    "second start": (START, START),
    "deep delta": (START, BLOCK, ("content_block_delta", DELTA[1][:-1] + b',"deep":' + DEEP + b"}")),
    "invalid UTF-8": (START, BLOCK, ("content_block_delta", DELTA[1].replace(b"Hi", b"H\xff"))),
    "delta for another block": (START, BLOCK, ("content_block_delta", DELTA[1].replace(b'"index":0', b'"index":3'))),
    "index is text": (START, ("content_block_start", BLOCK[1].replace(b'"index":0', b'"index":"0"'))),
    "index is huge": (START, ("content_block_start", BLOCK[1].replace(b'"index":0', b'"index":1e400'))),
    "index is true": (START, ("content_block_start", BLOCK[1].replace(b'"index":0', b'"index":true'))),
    "nothing after the start": (START,),
    "deep end": (START, BLOCK, DELTA, STOP_BLOCK, ("message_delta", END[1][:-1] + b',"deep":' + DEEP + b"}"), STOP),
}


@pytest.mark.parametrize("events", BROKEN_LATER.values(), ids=BROKEN_LATER.keys())
def test_a_stream_that_breaks_its_protocol_ends_in_an_error_event(
    stack: LiveStack, alice: Tenant, upstream: ScriptedUpstream, scripted: SoldModel, events: Any
) -> None:
    upstream.script = streamed(*events)
    stream = read_stream(stack.base_url, alice, model=scripted.model_id)
    assert stream.names[0] == "message_start"
    assert stream.names[-1] == "error"
    assert "message_stop" not in stream.names
    record = wait_for_record(stack, alice)
    assert record.usage_source == "partial"
    assert record.cost_nanos <= record.hold_nanos
    wait_until_released(stack, alice)


REPLY = {**MESSAGE, "content": [{"type": "text", "text": "Hi"}], "stop_reason": "end_turn"}
BROKEN_WHOLES = {
    "garbage": b"\x00\xff\xfe" * 100,
    "nothing": b"",
    "endless status": b"HTTP/1.1 " + b"2" * 100_000,
    "no such status": whole(b"{}", status="999 Odd"),
    "a redirect": whole(b"", status="302 Found", headers=b"location: http://127.0.0.1:1/\r\n"),
    "no content": whole(b"", status="204 No Content"),
    "accepted": whole(json.dumps(REPLY).encode(), status="202 Accepted"),
    "a list": whole(b"[]"),
    "a string": whole(b'"Hi"'),
    "another type": whole(json.dumps({**REPLY, "type": "error"}).encode()),
    "beyond depth": whole(b"[" * 100_000),
    "NaN": whole(b'{"type":"message","content":[],"usage":NaN}'),
    "two content lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n{}",
    "half a stream instead": streamed(*COMPLETE[:3]),
}


@pytest.mark.parametrize("script", BROKEN_WHOLES.values(), ids=BROKEN_WHOLES.keys())
def test_an_upstream_that_answers_nonsense(
    stack: LiveStack, alice: Tenant, upstream: ScriptedUpstream, scripted: SoldModel, script: bytes
) -> None:
    upstream.script = script
    response = stack.post(alice, model=scripted.model_id)
    assert response.status_code == 502, response.text
    assert response.json()["error"]["type"] == "api_error"
    state = wait_until_released(stack, alice)
    assert state.credit_nanos == 10_000_000_000
    assert stack.records(alice) == []


def test_a_good_answer_of_that_upstream_is_served(
    stack: LiveStack, alice: Tenant, upstream: ScriptedUpstream, scripted: SoldModel
) -> None:
    """The negative control of the test above."""
    upstream.script = whole(json.dumps({**REPLY, "future": {"x": 1}}).encode())
    response = stack.post(alice, model=scripted.model_id)
    assert response.status_code == 200
    assert response.json()["future"] == {"x": 1}
    assert response.json()["content"] == REPLY["content"]


def test_a_client_that_speaks_http_1_0(stack: LiveStack, alice: Tenant) -> None:
    """Without chunks the end of the stream is the end of the connection."""
    content = json.dumps(body(stream=True)).encode()
    with Connection(stack.base_url) as connection:
        connection.socket.sendall(
            b"POST /v1/messages HTTP/1.0\r\nhost: x\r\nx-api-key: %b\r\ncontent-length: %d\r\n\r\n%b"
            % (alice.secret.encode(), len(content), content)
        )
        received = connection.read_rest()
    assert received.startswith(b"HTTP/1.1 200 ")
    assert b"event: message_stop" in received
