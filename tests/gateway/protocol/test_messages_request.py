"""Requests: what is refused and in which words, what passes unchanged, and what is counted for the estimate."""

import base64
from typing import Any

import orjson
import pytest

from gateway.protocol.errors import InvalidRequestError
from gateway.protocol.json.depth import MAX_DEPTH
from gateway.protocol.messages.request import (
    MessagesRequest,
    parse_count_tokens_request,
    parse_messages_request,
    render_upstream_body,
)

PNG = base64.b64encode(b"\x89PNG" + bytes(100)).decode()
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
IMAGE_BY_URL = {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}
TOOL = {"name": "get_weather", "description": "Weather.", "input_schema": {"type": "object"}}


def body_of(**fields: Any) -> dict[str, Any]:
    body = {"model": "acme/large-1.0", "max_tokens": 1024, "messages": [{"role": "user", "content": "Hello!"}]}
    return {**body, **fields}


def user(*blocks: Any) -> dict[str, Any]:
    return body_of(messages=[{"role": "user", "content": list(blocks)}])


def parse(body: Any) -> MessagesRequest:
    return parse_messages_request(orjson.dumps(body))


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in body_of().items() if key != name}


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "The request body is not valid JSON: "),
        (b"{", "The request body is not valid JSON: "),
        (b'{"temperature": NaN}', "The request body is not valid JSON: "),
        (b'{"temperature": Infinity}', "The request body is not valid JSON: "),
        (b'{"temperature": 1e999}', "The request body is not valid JSON: "),
        (b'{"model": "\xff"}', "The request body is not valid JSON: "),
        (b'{"model": "\\ud800"}', "The request body is not valid JSON: "),
        (b"[]", "The request body must be a JSON object."),
        (b'"text"', "The request body must be a JSON object."),
        (b"null", "The request body must be a JSON object."),
        (b'{"a":' + b"[" * 300 + b"]" * 300 + b"}", f"The request body is nested more than {MAX_DEPTH} levels deep."),
        (b'{"a":' * 5000 + b"1" + b"}" * 5000, f"The request body is nested more than {MAX_DEPTH} levels deep."),
    ],
)
def test_what_is_no_json_object(raw: bytes, message: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse_messages_request(raw)
    assert caught.value.message.startswith(message)
    assert caught.value.code == "invalid_json"


def test_the_depth_bound_is_exact() -> None:
    def nested(levels: int) -> bytes:
        inner = b"[" * levels + b"]" * levels
        return orjson.dumps(body_of())[:-1] + b',"deep":' + inner + b"}"

    parse_messages_request(nested(MAX_DEPTH - 1))
    with pytest.raises(InvalidRequestError, match="nested more than"):
        parse_messages_request(nested(MAX_DEPTH))


REFUSED = [
    (without("model"), "model: Field required"),
    (without("max_tokens"), "max_tokens: Field required"),
    (without("messages"), "messages: Field required"),
    (body_of(model=3), "model: Input should be a valid string"),
    (body_of(model=""), "model: String should have at least 1 character"),
    (body_of(model="m" * 257), "model: String should have at most 256 characters"),
    (body_of(max_tokens="9"), "max_tokens: Input should be a valid integer"),
    (body_of(max_tokens=True), "max_tokens: Input should be a valid integer"),
    (body_of(max_tokens=1.5), "max_tokens: Input should be a valid integer"),
    (body_of(max_tokens=None), "max_tokens: Input should be a valid integer"),
    (body_of(max_tokens=-5), "max_tokens: Input should be greater than or equal to 0"),
    (body_of(max_tokens=10**12), "max_tokens: Input should be less than or equal to 100000000"),
    (body_of(messages="Hi"), "messages: Input should be a valid list"),
    (body_of(messages=[]), "messages: at least one message is required"),
    (body_of(messages=["Hi"]), "messages.0: Input should be a valid dictionary"),
    (body_of(messages=[{"content": "Hi"}]), "messages.0.role: Field required"),
    (body_of(messages=[{"role": "tool", "content": "Hi"}]), "messages.0.role: Input should be 'user' or 'assistant'"),
    (body_of(messages=[{"role": ["user"], "content": ""}]), "messages.0.role: Input should be 'user' or 'assistant'"),
    (body_of(messages=[{"role": "user"}]), "messages.0.content: Field required"),
    (body_of(messages=[{"role": "user", "content": None}]), "messages.0.content: Input should be a valid list"),
    (user("text"), "messages.0.content.0: Input should be a valid dictionary"),
    (user({"text": "Hi"}), "messages.0.content.0.type: Field required"),
    (user({"type": 3}), "messages.0.content.0.type: Input should be a valid string"),
    (user({"type": "text"}), "messages.0.content.0.text.text: Field required"),
    (user({"type": "text", "text": 3}), "messages.0.content.0.text.text: Input should be a valid string"),
    (user({"type": "image"}), "messages.0.content.0.image.source: Field required"),
    (user({"type": "image", "source": 3}), "messages.0.content.0.image.source: Input should be a valid dictionary"),
    (user({"type": "image", "source": {}}), "messages.0.content.0.image.source.type: Field required"),
    (
        user({"type": "image", "source": {"type": "file", "file_id": "file_1"}}),
        "messages.0.content.0.image.source.file: Files at a provider cannot be used here, because all organizations "
        "share one account there",
    ),
    (
        user({"type": "image", "source": {"type": "base64", "media_type": "image/bmp", "data": PNG}}),
        "messages.0.content.0.image.source.base64.media_type: Input should be 'image/jpeg', 'image/png', 'image/gif' "
        "or 'image/webp'",
    ),
    (
        user({"type": "image", "source": {"type": "base64", "media_type": "image/png"}}),
        "messages.0.content.0.image.source.base64.data: Field required",
    ),
    *(
        (
            user({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}}),
            "messages.0.content.0.image.source.base64.data: Invalid base64 data",
        )
        for data in (
            "data:image/png;base64,iVBO",
            PNG + "\n",
            "=abc",
            PNG + "=" * 3,
            "é" * 200,
            "A" * 200 + "é" + "A" * 200,
        )
    ),
    (
        user({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": ""}}),
        "messages.0.content.0.image.source.base64.data: String should have at least 1 character",
    ),
    (
        user({"type": "image", "source": {"type": "url", "url": "file:///etc/passwd"}}),
        "messages.0.content.0.image.source.url.url: Only HTTP and HTTPS URLs are supported",
    ),
    (
        user({"type": "image", "source": {"type": "url", "url": "https://" + "a" * 9000}}),
        "messages.0.content.0.image.source.url.url: String should have at most 8192 characters",
    ),
    (
        user({"type": "tool_use", "name": "a", "input": {}}),
        "messages.0.content.0.tool_use.id: Field required",
    ),
    (
        user({"type": "tool_use", "id": "a b", "name": "a", "input": {}}),
        "messages.0.content.0.tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'",
    ),
    (
        user({"type": "tool_use", "id": "a", "name": "a", "input": "{}"}),
        "messages.0.content.0.tool_use.input: Input should be a valid dictionary",
    ),
    (user({"type": "tool_result"}), "messages.0.content.0.tool_result.tool_use_id: Field required"),
    (
        user({"type": "tool_result", "tool_use_id": "a", "content": [{"type": "text"}]}),
        "messages.0.content.0.tool_result.content.0.text.text: Field required",
    ),
    (
        user({"type": "tool_result", "tool_use_id": "a", "content": 3}),
        "messages.0.content.0.tool_result.content: Input should be a valid list",
    ),
    (
        user({"type": "tool_result", "tool_use_id": "a", "is_error": "no"}),
        "messages.0.content.0.tool_result.is_error: Input should be a valid boolean",
    ),
    (user({"type": "thinking"}), "messages.0.content.0.thinking.thinking: Field required"),
    (user({"type": "redacted_thinking"}), "messages.0.content.0.redacted_thinking.data: Field required"),
    (body_of(system=3), "system: Input should be a valid list"),
    (body_of(system=["a"]), "system.0: Input should be a valid dictionary"),
    (body_of(system=[{"type": "text"}]), "system.0.text.text: Field required"),
    (body_of(temperature="hot"), "temperature: Input should be a valid number"),
    (body_of(temperature=True), "temperature: Input should be a valid number"),
    (body_of(temperature=1.01), "temperature: Input should be less than or equal to 1"),
    (body_of(temperature=-0.1), "temperature: Input should be greater than or equal to 0"),
    (body_of(top_p=2), "top_p: Input should be less than or equal to 1"),
    (body_of(top_k=-1), "top_k: Input should be greater than or equal to 0"),
    (body_of(top_k=0.5), "top_k: Input should be a valid integer"),
    (body_of(stop_sequences="a"), "stop_sequences: Input should be a valid list"),
    (body_of(stop_sequences=["a", 3]), "stop_sequences.1: Input should be a valid string"),
    (body_of(stop_sequences=[""]), "stop_sequences.0: String should have at least 1 character"),
    (body_of(tools={}), "tools: Input should be a valid list"),
    (body_of(tools=["a"]), "tools.0: Input should be a valid dictionary"),
    (body_of(tools=[{"input_schema": {}}]), "tools.0.custom.name: Field required"),
    (
        body_of(tools=[TOOL, {**TOOL, "name": "get weather"}]),
        "tools.1.custom.name: String should match pattern '^[a-zA-Z0-9_-]{1,128}$'",
    ),
    (body_of(tools=[{**TOOL, "name": "a" * 129}]), "tools.0.custom.name: String should have at most 128 characters"),
    (body_of(tools=[{**TOOL, "input_schema": []}]), "tools.0.custom.input_schema: Input should be a valid dictionary"),
    (body_of(tools=[{**TOOL, "description": 3}]), "tools.0.custom.description: Input should be a valid string"),
    (body_of(tools=[{"type": 3}]), "tools.0.type: Input should be a valid string"),
    (
        body_of(tools=[{"type": "web_search_1", "max_uses": -1}]),
        "tools.0.web_search_1.max_uses: Input should be greater than or equal to 1",
    ),
    (
        body_of(tools=[{"type": "web_search_1", "max_uses": "5"}]),
        "tools.0.web_search_1.max_uses: Input should be a valid integer",
    ),
    (body_of(tool_choice="auto"), "tool_choice: Input should be a valid dictionary"),
    (body_of(tool_choice={}), "tool_choice.type: Field required"),
    (
        body_of(tool_choice={"type": "required"}),
        "tool_choice: Input tag 'required' found using 'type' does not match any of the expected tags: 'any', 'auto', "
        "'none', 'tool'",
    ),
    (body_of(tool_choice={"type": "tool"}), "tool_choice.tool.name: Field required"),
    (
        body_of(tool_choice={"type": "auto", "disable_parallel_tool_use": 1}),
        "tool_choice.auto.disable_parallel_tool_use: Input should be a valid boolean",
    ),
    (body_of(metadata="me"), "metadata: Input should be a valid dictionary"),
    (body_of(metadata={"user_id": 3}), "metadata.user_id: Input should be a valid string"),
    (body_of(thinking=True), "thinking: Input should be a valid dictionary"),
    (body_of(thinking={}), "thinking.type: Field required"),
    (
        body_of(thinking={"type": "deep"}),
        "thinking: Input tag 'deep' found using 'type' does not match any of the expected tags: 'adaptive', "
        "'between_tools', 'disabled', 'enabled'",
    ),
    (body_of(thinking={"type": "enabled"}), "thinking.enabled.budget_tokens: Field required"),
    (
        body_of(thinking={"type": "enabled", "budget_tokens": 1000}),
        "thinking.enabled.budget_tokens: Input should be greater than or equal to 1024",
    ),
    (body_of(stream="true"), "stream: Input should be a valid boolean"),
    (body_of(stream=1), "stream: Input should be a valid boolean"),
]


@pytest.mark.parametrize(("body", "message"), REFUSED, ids=[message[:60] for _, message in REFUSED])
def test_refusals_in_anthropics_words(body: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse(body)
    assert caught.value.message == message


@pytest.mark.parametrize(
    "fields",
    [
        {"system": "You are helpful."},
        {
            "system": [
                {"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}},
                {"type": "text", "text": "b"},
            ]
        },
        {"temperature": 0, "top_p": 1.0, "top_k": 40, "stop_sequences": ["a", "b"]},
        {"temperature": None, "tools": None, "tool_choice": None, "metadata": None, "thinking": None, "stream": None},
        {"tools": [TOOL, {**TOOL, "type": "custom", "defer_loading": True}], "tool_choice": {"type": "any"}},
        {"tools": [{"type": "web_search_20250305", "name": "web_search", "max_uses": 5}]},
        {"tools": [], "tool_choice": {"type": "tool", "name": "x", "disable_parallel_tool_use": True}},
        {"metadata": {"user_id": "u" * 150, "more": 1}},
        {"max_tokens": 2048, "thinking": {"type": "enabled", "budget_tokens": 1024, "display": "omitted"}},
        {"thinking": {"type": "adaptive", "display": "omitted"}},
        {"thinking": {"type": "disabled"}},
        {
            "stream": True,
            "context_management": {"edits": []},
            "output_config": {"effort": "high"},
            "novel": [None, 1.5],
        },
        {"messages": [{"role": "user", "content": []}, {"role": "assistant", "content": "a"}]},
        {
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "text", "text": "a"}, IMAGE, IMAGE_BY_URL, {"type": "novel", "x": 1}],
                },
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": "hm", "signature": "s"},
                        {"type": "redacted_thinking", "data": "x"},
                        {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"a": [1]}},
                    ],
                },
                {
                    "role": "user",
                    "content": [
                        {"type": "tool_result", "tool_use_id": "toolu_1", "content": [IMAGE], "is_error": False},
                        {"type": "tool_result", "tool_use_id": "toolu_2", "content": "ok"},
                        {"type": "tool_result", "tool_use_id": "toolu_3"},
                    ],
                },
            ]
        },
    ],
)
def test_what_is_accepted_passes_unchanged_but_for_the_model(fields: dict[str, Any]) -> None:
    body = body_of(**fields)
    rendered = render_upstream_body(parse(body), "upstream-large")
    assert rendered == orjson.dumps({**body, "model": "upstream-large"})


@pytest.mark.parametrize("fields", [{}, {"input_schema": None}])
def test_a_tool_needs_no_schema(fields: dict[str, Any]) -> None:
    """The reference says so, and upstreams do not: they are given the schema of a tool without arguments."""
    bare = {"name": "roll_dice", **fields}
    server_tool = {"type": "web_search_20250305", "name": "web_search"}
    request = parse(body_of(tools=[TOOL, bare, server_tool, {**bare, "type": "custom"}]))
    assert orjson.loads(render_upstream_body(request, "up"))["tools"] == [
        TOOL,
        {"name": "roll_dice", "input_schema": {"type": "object"}},
        server_tool,
        {"name": "roll_dice", "type": "custom", "input_schema": {"type": "object"}},
    ]
    assert request.body["tools"][1] == bare


def test_rendering_drops_the_fields_of_the_profile_only() -> None:
    request = parse(body_of(context_management={}, top_k=3))
    rendered = orjson.loads(render_upstream_body(request, "up", ("context_management", "absent")))
    assert list(rendered.items()) == list({**body_of(top_k=3), "model": "up"}.items())
    assert "context_management" in request.body


def test_duplicate_keys_count_by_their_last_value() -> None:
    raw = orjson.dumps(body_of())[:-1] + b',"max_tokens":7}'
    assert parse_messages_request(raw).max_tokens == 7


def test_what_is_extracted_for_estimate_and_routing() -> None:
    nested = {"type": "tool_result", "tool_use_id": "t", "content": [IMAGE, {"type": "text", "text": "x"}]}
    body = user(IMAGE, IMAGE_BY_URL, nested)
    body |= {"stream": True, "metadata": {"user_id": "me\x00" + "x" * 300}, "tools": [TOOL, {"type": "web_search_1"}]}
    raw = orjson.dumps(body)
    request = parse_messages_request(raw)
    assert (request.model, request.max_tokens, request.is_streamed) == ("acme/large-1.0", 1024, True)
    assert (request.body_bytes, request.image_count, request.image_data_bytes) == (len(raw), 3, 2 * len(PNG))
    assert request.end_user == "me" + "x" * 254
    assert request.server_tools == [(1, "web_search_1")]
    assert request.has_tools
    assert request.thinking_type is None


def test_cache_writes_are_seen_where_they_could_happen() -> None:
    def marks(raw: bytes) -> tuple[bool, bool]:
        request = parse_messages_request(raw)
        return request.writes_cache, request.writes_cache_1h

    short = orjson.dumps(user({"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}))
    assert marks(orjson.dumps(body_of())) == (False, False)
    assert marks(orjson.dumps(user({"type": "text", "text": 'about "cache_control" and "1h"'}))) == (False, False)
    assert marks(short) == (True, False)
    assert marks(short.replace(b'"ephemeral"', b'"ephemeral","ttl":"1h"')) == (True, True)
    assert marks(short.replace(b'"ephemeral"', b'"ephemeral","ttl":"\\u0031h"')) == (True, True)
    assert marks(short.replace(b"cache_control", b"\\u0063ache_control")) == (True, True)


def test_the_fingerprint_stays_over_the_turns_of_a_conversation() -> None:
    def turn(system: str, *messages: dict[str, Any]) -> str:
        blocks = [
            {"type": "text", "text": f"x-anthropic-billing-header: cc_version=2.1; cch={len(messages)};"},
            {"type": "text", "text": system, "cache_control": {"type": "ephemeral"}},
        ]
        return parse(body_of(system=blocks, messages=list(messages))).conversation_fingerprint()

    marked = {"type": "text", "text": "Hello", "cache_control": {"type": "ephemeral"}}
    first = {"role": "user", "content": [marked, IMAGE]}
    again = {"role": "user", "content": [{"type": "text", "text": "Hello"}, IMAGE]}
    more = [{"role": "assistant", "content": "Hi"}, {"role": "user", "content": "And?"}]
    assert turn("Be good.", first) == turn("Be good.", again, *more)
    assert turn("Be good.", first) != turn("Be bad.", first)
    assert turn("Be good.", first) != turn("Be good.", {"role": "user", "content": "Bye"})


def test_count_tokens_needs_no_max_tokens() -> None:
    body = without("max_tokens") | {"thinking": {"type": "enabled", "budget_tokens": 4096}}
    assert parse_count_tokens_request(orjson.dumps(body)).max_tokens == 0
