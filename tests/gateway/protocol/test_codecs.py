"""What both codecs share: paths, headers, versions and credentials; profiles; estimated token counts."""

from typing import Any

import orjson
import pytest

from gateway.protocol.codec import RouteTarget
from gateway.protocol.codecs import CODECS
from gateway.protocol.errors import InvalidProfileError, InvalidRequestError, ProtocolError, UpstreamProtocolError
from gateway.protocol.messages.codec import MessagesCodec
from gateway.protocol.messages.count_tokens import (
    TOOL_INSTRUCTION_TOKENS,
    TOOLSET_TOKENS,
    TYPED_TOOL_TOKENS,
    encode_token_count,
    estimate_input_tokens,
)
from gateway.protocol.messages.request import MessagesRequest, parse_count_tokens_request, parse_messages_request
from gateway.protocol.profile import UpstreamProfile, read_profile
from tests.gateway.protocol.test_messages_request import IMAGE, PNG, TOOL, body_of, user


def request_of(**fields: Any) -> MessagesRequest:
    return parse_messages_request(orjson.dumps(body_of(**fields)))


def test_each_protocol_of_the_catalog_has_a_codec() -> None:
    assert set(CODECS) == {"messages", "chat_completions"}


@pytest.mark.parametrize(
    ("protocol", "path"), [("messages", "/v1/messages"), ("chat_completions", "/chat/completions")]
)
def test_paths_and_headers_of_the_profile(protocol: str, path: str) -> None:
    profile = UpstreamProfile(headers={"x-title": "CrossModel"})
    call = CODECS[protocol].render_request(request_of(), RouteTarget("up", profile))
    assert call.path == path
    assert call.headers["x-title"] == "CrossModel"
    assert call.headers["content-type"] == "application/json"
    assert orjson.loads(call.body)["model"] == "up"
    other = CODECS[protocol].render_request(request_of(), RouteTarget("up", UpstreamProfile(path="/other")))
    assert other.path == "/other" and "x-title" not in other.headers


@pytest.mark.parametrize(
    ("profile_version", "client_version", "fields", "expected"),
    [
        ("auto", "2023-06-01", {}, "2023-06-01"),
        ("auto", "2026-10-21", {}, "2026-10-21"),
        ("auto", "2026-10-21", {"temperature": 0}, "2023-06-01"),
        ("auto", "2026-10-21", {"top_p": 1}, "2023-06-01"),
        ("auto", "2026-10-21", {"top_k": 1}, "2023-06-01"),
        ("auto", "2026-10-21", {"temperature": None}, "2026-10-21"),
        ("auto", "", {}, "2023-06-01"),
        ("auto", "1999-01-01\r\nx: y", {}, "2023-06-01"),
        ("2023-06-01", "2026-10-21", {}, "2023-06-01"),
    ],
)
def test_the_version_that_goes_upstream(
    profile_version: str, client_version: str, fields: dict[str, Any], expected: str
) -> None:
    target = RouteTarget("up", UpstreamProfile(api_version=profile_version), client_version, client_beta="a-1,b-2")
    headers = MessagesCodec().render_request(request_of(**fields), target).headers
    assert (headers["anthropic-version"], headers["anthropic-beta"]) == (expected, "a-1,b-2")


def test_fields_that_a_profile_refuses() -> None:
    target = RouteTarget("up", UpstreamProfile(refuse_fields=("speed",)))
    for codec in CODECS.values():
        codec.render_request(request_of(), target)
        with pytest.raises(InvalidRequestError, match="speed: Extra inputs are not permitted"):
            codec.render_request(request_of(speed="fast"), target)


def test_a_thinking_budget_lies_below_max_tokens_unless_it_is_for_several_replies() -> None:
    """With interleaved thinking the budget is for the whole turn, which may take many requests of that max_tokens."""
    request = request_of(thinking={"type": "enabled", "budget_tokens": 1024})
    beta = "other-1, interleaved-thinking-2025-05-14"
    for codec in CODECS.values():
        codec.render_request(request_of(max_tokens=1025, thinking=request.body["thinking"]), RouteTarget("up"))
        with pytest.raises(InvalidRequestError, match=r"^`max_tokens` must be greater than"):
            codec.render_request(request, RouteTarget("up"))
    MessagesCodec().render_request(request, RouteTarget("up", client_beta=beta))
    with pytest.raises(InvalidRequestError):
        CODECS["chat_completions"].render_request(request, RouteTarget("up", client_beta=beta))
    without_max_tokens = {name: value for name, value in request.body.items() if name != "max_tokens"}
    MessagesCodec().render_count_tokens(parse_count_tokens_request(orjson.dumps(without_max_tokens)), RouteTarget("up"))


@pytest.mark.parametrize(
    ("protocol", "auth", "expected"),
    [
        ("messages", "", {"x-api-key": "secret"}),
        ("messages", "bearer", {"authorization": "Bearer secret"}),
        ("chat_completions", "", {"authorization": "Bearer secret"}),
        ("chat_completions", "x-api-key", {"x-api-key": "secret"}),
        ("chat_completions", "none", {}),
    ],
)
def test_credentials(protocol: str, auth: str, expected: dict[str, str]) -> None:
    codec = CODECS[protocol]
    assert codec.credential_headers("secret", UpstreamProfile(auth=auth)) == expected
    assert codec.credential_headers("", UpstreamProfile(auth=auth)) == {}


def test_token_counts_of_the_upstream() -> None:
    codec = MessagesCodec()
    body = {"model": "m", "messages": [{"role": "user", "content": "a"}], "tools": [TOOL]}
    request = parse_count_tokens_request(orjson.dumps(body))
    call = codec.render_count_tokens(request, RouteTarget("up", UpstreamProfile(path="/x/messages")))
    assert call.path == "/v1/messages/count_tokens"
    assert call.body == orjson.dumps({**body, "model": "up"})
    assert codec.serves_count_tokens(UpstreamProfile())
    assert not codec.serves_count_tokens(UpstreamProfile(count_tokens=False))


def test_chat_completions_counts_no_tokens() -> None:
    codec = CODECS["chat_completions"]
    assert not codec.serves_count_tokens(UpstreamProfile())
    with pytest.raises(UpstreamProtocolError):
        codec.render_count_tokens(request_of(), RouteTarget("up"))
    with pytest.raises(UpstreamProtocolError):
        codec.decode_count_tokens(b"{}")


def test_estimated_token_counts() -> None:
    plain = request_of()
    assert estimate_input_tokens(plain, max_image_tokens=1600, bytes_per_token=2) == -(-plain.body_bytes // 2)
    image = parse_messages_request(orjson.dumps(user(IMAGE)))
    expected = -(-(image.body_bytes - len(PNG)) // 2) + 1600
    assert estimate_input_tokens(image, max_image_tokens=1600, bytes_per_token=2) == expected
    tools = request_of(tools=[TOOL])
    assert (
        estimate_input_tokens(tools, max_image_tokens=0, bytes_per_token=1)
        == tools.body_bytes + TOOL_INSTRUCTION_TOKENS
    )
    typed = request_of(tools=[{"type": "bash_20250124", "name": "bash"}, {"type": "browser_toolset_20260801"}])
    assert estimate_input_tokens(typed, max_image_tokens=0, bytes_per_token=1) == (
        typed.body_bytes + TOOL_INSTRUCTION_TOKENS + TYPED_TOOL_TOKENS + TOOLSET_TOKENS
    )
    assert encode_token_count(7) == b'{"input_tokens":7}'


def test_a_profile_from_the_catalog() -> None:
    table = {
        "api_version": "2023-06-01",
        "drop_fields": ["a"],
        "headers": {"x": "y"},
        "top_k": True,
        "max_stop_sequences": 16,
    }
    profile = read_profile(table)
    assert profile == UpstreamProfile(
        api_version="2023-06-01", drop_fields=("a",), headers={"x": "y"}, top_k=True, max_stop_sequences=16
    )
    assert read_profile({}) == UpstreamProfile()


@pytest.mark.parametrize(
    "table",
    [
        {"novel": 1},
        {"drop_fields": "temperature"},
        {"drop_fields": [3]},
        {"drop_fields": ["a"] * 101},
        {"headers": ["a"]},
        {"headers": {"a": 3}},
        {"extra_body": []},
        {"top_k": 1},
        {"max_stop_sequences": True},
        {"max_stop_sequences": -1},
        {"max_tool_name_chars": 3},
        {"auth": "basic"},
        {"reasoning": "deep"},
        {"path": 3},
    ],
)
def test_a_profile_that_means_nothing(table: dict[str, Any]) -> None:
    with pytest.raises(InvalidProfileError, match=rf"profile\.{next(iter(table))}: "):
        read_profile(table)


def test_every_error_has_one_root() -> None:
    for error in (InvalidRequestError("a"), InvalidProfileError("a"), UpstreamProtocolError("a")):
        assert isinstance(error, ProtocolError)
