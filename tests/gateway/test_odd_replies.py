"""Replies in forms that no documentation has: the client gets the documented one, and pays what was counted."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from billing.models import Upstream
from tests.gateway.catalog_factory import sell_catalog_model
from tests.gateway.checks import assert_billed_once, wait_for_record
from tests.gateway.scripted_upstream import (
    COMPLETE,
    MESSAGE,
    STREAM_HEAD,
    ScriptedUpstream,
    scripted_upstream,
    streamed,
    whole,
)
from tests.gateway.test_chat_upstream import reply_to
from tests.support.live_stack import LiveStack, Tenant

CHAT, MESSAGES = Upstream.Protocol.CHAT_COMPLETIONS, Upstream.Protocol.MESSAGES
EITHER_WAY = pytest.mark.parametrize("is_streamed", [False, True], ids=["whole", "streamed"])
HI = [{"type": "text", "text": "Hi"}]
CALL = {"name": "f", "arguments": '{"a": 1}'}
USAGE = {"prompt_tokens": 7, "completion_tokens": 5}
MESSAGES_USAGE = {"input_tokens": 7, "output_tokens": 5}
TOOLS = [{"name": "f", "input_schema": {"type": "object"}}]


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    with scripted_upstream() as upstream:
        yield upstream


def chat_reply(message: dict[str, Any], finish: str = "stop", usage: dict[str, Any] = USAGE) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    return json.dumps({"id": "c", "choices": [choice], "usage": usage}).encode()


def chat_stream(*payloads: bytes) -> bytes:
    return STREAM_HEAD + b"".join(b"data: %b\n\n" % payload for payload in (*payloads, b"[DONE]"))


NOTHING_DELTA = (
    "content_block_delta",
    b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":null}}',
)
# The same bytes whichever way was asked for: one of both is the other form.
REPLIES = {
    "chat, whole": (CHAT, whole(chat_reply({"content": "Hi"})), HI),
    "chat, streamed": (CHAT, chat_stream(chat_reply({"content": "Hi"}).replace(b'"message"', b'"delta"')), HI),
    "chat, a message for a delta": (CHAT, chat_stream(chat_reply({"content": "Hi"})), HI),
    "chat, parts": (CHAT, whole(chat_reply({"content": ["H", {"type": "output_text", "text": "i"}]})), HI),
    "chat, other names of counts": (
        CHAT,
        whole(chat_reply({"content": "Hi"}, usage={"input_tokens": 7, "output_tokens": 5})),
        HI,
    ),
    "chat, function_call": (
        CHAT,
        whole(chat_reply({"content": None, "function_call": CALL}, "function_call")),
        [{"type": "tool_use", "name": "f", "input": {"a": 1}}],
    ),
    "chat, filtered": (CHAT, whole(b'{"choices": [], "usage": %b}' % json.dumps(USAGE).encode()), []),
    "messages, whole": (
        MESSAGES,
        whole(json.dumps({**MESSAGE, "content": HI, "stop_reason": "end_turn", "usage": MESSAGES_USAGE}).encode()),
        HI,
    ),
    "messages, streamed": (MESSAGES, streamed(*COMPLETE), HI),
    "messages, no last event": (MESSAGES, streamed(*COMPLETE[:-1]), HI),
    "messages, nothing among the events": (
        MESSAGES,
        streamed(COMPLETE[0], ("ping", b"null"), *COMPLETE[1:3], NOTHING_DELTA, *COMPLETE[3:]),
        HI,
    ),
    "messages, nothing among the content": (
        MESSAGES,
        whole(
            json.dumps(
                {**MESSAGE, "content": [None, *HI, 3], "usage": {"input_tokens": 7, "output_tokens": 5}}
            ).encode()
        ),
        HI,
    ),
    "chat, nothing among the choices": (
        CHAT,
        whole(
            chat_reply({"content": [None, "Hi"], "tool_calls": [None]}).replace(b'"choices": [', b'"choices": [null, ')
        ),
        HI,
    ),
    "chat, nothing among the chunks": (
        CHAT,
        chat_stream(
            b"null",
            b'{"choices": null, "usage": null}',
            b'{"choices": [null, {"index": 0, "delta": null}]}',
            b'{"choices": [{"index": 0, "delta": {"content": "Hi", "tool_calls": [null]}}]}',
            b'{"choices": [{"index": 0, "delta": {"content": [null]}, "finish_reason": "stop"}], "usage": %b}'
            % json.dumps(USAGE).encode(),
        ),
        HI,
    ),
}


@EITHER_WAY
@pytest.mark.parametrize(("protocol", "answer", "content"), REPLIES.values(), ids=REPLIES.keys())
def test_a_reply_in_an_odd_form(
    stack: LiveStack,
    alice: Tenant,
    upstream: ScriptedUpstream,
    protocol: Upstream.Protocol,
    answer: bytes,
    content: list[dict[str, Any]],
    is_streamed: bool,
) -> None:
    sold = sell_catalog_model(stack, alice, [stack.base_url], upstream_urls=[upstream.url], protocol=protocol)
    upstream.script = answer
    reply = reply_to(stack, alice, sold, "Hello", streamed=is_streamed, tools=TOOLS)
    assert [{name: value for name, value in block.items() if name != "id"} for block in reply["content"]] == content
    assert (reply["usage"]["input_tokens"], reply["usage"]["output_tokens"]) == (7, 5)
    record = wait_for_record(stack, alice)
    assert (record.usage_source, record.input_tokens, record.output_tokens) == ("provider", 7, 5)
    assert_billed_once(stack, alice, record)
    assert len(upstream.requests) == 1
