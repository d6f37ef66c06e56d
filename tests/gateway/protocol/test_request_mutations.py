"""A rich request made wrong at every place: it is refused as documented, or can be sent, also to be counted."""

from typing import Any

import orjson
import pytest

from gateway.protocol.chat.codec import ChatCodec
from gateway.protocol.codec import RouteTarget, UpstreamCodec
from gateway.protocol.errors import InvalidRequestError
from gateway.protocol.messages.capabilities import check_capabilities
from gateway.protocol.messages.codec import MessagesCodec
from gateway.protocol.messages.count_tokens import estimate_input_tokens
from gateway.protocol.messages.request import MessagesRequest, parse_count_tokens_request, parse_messages_request
from gateway.protocol.profile import UpstreamProfile
from tests.gateway.protocol.mutations import mutations_of
from tests.gateway.protocol.test_capabilities import ALL_CAPABILITIES
from tests.gateway.protocol.test_messages_request import IMAGE, TOOL

CHAT, MESSAGES = ChatCodec(), MessagesCodec()
PROFILES = (
    UpstreamProfile(),
    UpstreamProfile(reasoning="reasoning", thinking_history="reasoning_content", top_k=True, server_tools="refuse"),
    UpstreamProfile(reasoning="reasoning_effort", max_tool_name_chars=8, parallel_tool_calls=False),
)
BODY: dict[str, Any] = {
    "model": "m",
    "max_tokens": 2000,
    "system": [{"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
    "messages": [
        {"role": "user", "content": "Hi"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "s"},
                {"type": "text", "text": "Let me see.", "citations": []},
                {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"city": "Oslo"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "toolu_1",
                    "is_error": False,
                    "content": [{"type": "text", "text": "4 C"}, IMAGE],
                },
                {
                    "type": "document",
                    "title": "Notes",
                    "source": {"type": "text", "media_type": "text/plain", "data": "It rains."},
                },
                {
                    "type": "search_result",
                    "source": "https://example.org",
                    "title": "T",
                    "content": [{"type": "text", "text": "x"}],
                },
                IMAGE,
            ],
        },
        {"role": "system", "content": "Be brief."},
    ],
    "tools": [TOOL, {"type": "web_search_20250305", "name": "web_search", "max_uses": 2}],
    "tool_choice": {"type": "tool", "name": "get_weather", "disable_parallel_tool_use": True},
    "thinking": {"type": "enabled", "budget_tokens": 1024},
    "metadata": {"user_id": "u"},
    "stop_sequences": ["END"],
    "temperature": 1.0,
    "top_p": 0.5,
    "top_k": 5,
    "stream": True,
    "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": {"type": "object"}}},
    "service_tier": "auto",
    "context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]},
    "container": None,
}


def refusal_or_request(parse: Any, raw: bytes) -> MessagesRequest | InvalidRequestError:
    try:
        request: MessagesRequest = parse(raw)
        check_capabilities(request, ALL_CAPABILITIES)
    except InvalidRequestError as error:
        return error
    return request


def test_the_body_itself_is_taken() -> None:
    request = refusal_or_request(parse_messages_request, orjson.dumps(BODY))
    assert isinstance(request, MessagesRequest), request
    render(CHAT, request, PROFILES[0])
    render(MESSAGES, request, PROFILES[0])


def render(codec: UpstreamCodec, request: MessagesRequest, profile: UpstreamProfile) -> None:
    target = RouteTarget("theirs", profile)
    call = codec.render_request(request, target)
    assert orjson.loads(call.body)["model"] == "theirs"
    if codec.serves_count_tokens(profile):
        codec.render_count_tokens(request, target)


@pytest.mark.parametrize("part", sorted(BODY))
def test_a_wrong_value_is_refused_or_can_be_sent(part: str) -> None:
    for where, value in mutations_of(BODY[part]):
        raw = orjson.dumps({**BODY, part: value})
        request = refusal_or_request(parse_messages_request, raw)
        counted = refusal_or_request(parse_count_tokens_request, raw)
        if part != "max_tokens":
            assert type(request) is type(counted), (where, request, counted)
        for read in (request, counted):
            if isinstance(read, InvalidRequestError):
                assert read.message and read.code, where
                assert len(read.message) < 2_000, where
                continue
            assert estimate_input_tokens(read, max_image_tokens=1, bytes_per_token=2) > 0
        if isinstance(request, InvalidRequestError):
            continue
        for codec in (CHAT, MESSAGES):
            for profile in PROFILES:
                try:
                    render(codec, request, profile)
                except InvalidRequestError as error:
                    assert error.message and len(error.message) < 2_000, where  # noqa: PT017 - Either is right.
