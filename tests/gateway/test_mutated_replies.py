"""Wrong values anywhere in an upstream's replies, on a whole CrossModel: each answer ends, and is billed once."""

import random
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from billing.models import FailedRequest, Upstream, UsageRecord
from gateway.protocol.codec import UpstreamCodec
from gateway.protocol.sse import SseParser
from tests.gateway.catalog_factory import sell_catalog_model
from tests.gateway.protocol import test_chat_stream, test_messages_replies
from tests.gateway.protocol.mutations import SEED, mutated_streams, mutations_of
from tests.gateway.protocol.test_reply_fuzz import CHAT, CHAT_REPLY, MESSAGE, MESSAGES, encoded
from tests.gateway.scripted_upstream import STREAM_HEAD, ScriptedUpstream, scripted_upstream, whole
from tests.support.live_stack import HTTP, LiveStack, Tenant, body, request_id_of

REPLIES = 25
TOOLS = [{"name": "get_weather", "input_schema": {"type": "object"}}, {"name": "f", "input_schema": {"type": "object"}}]
CODECS: dict[Upstream.Protocol, UpstreamCodec] = {
    Upstream.Protocol.CHAT_COMPLETIONS: CHAT,
    Upstream.Protocol.MESSAGES: MESSAGES,
}
WHOLE = {Upstream.Protocol.CHAT_COMPLETIONS: CHAT_REPLY, Upstream.Protocol.MESSAGES: MESSAGE}
STREAMS = {
    Upstream.Protocol.CHAT_COMPLETIONS: test_chat_stream.FULL,
    Upstream.Protocol.MESSAGES: test_messages_replies.FULL,
}


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    with scripted_upstream() as upstream:
        yield upstream


@pytest.mark.long
@pytest.mark.parametrize("is_streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("protocol", list(CODECS))
def test_replies_with_a_wrong_value(
    stack: LiveStack, alice: Tenant, upstream: ScriptedUpstream, protocol: Upstream.Protocol, is_streamed: bool
) -> None:
    sold = sell_catalog_model(stack, alice, [stack.base_url], upstream_urls=[upstream.url], protocol=protocol)
    randomness = random.Random(SEED)
    mutated: list[Any] = list(mutated_streams(STREAMS[protocol]) if is_streamed else mutations_of(WHOLE[protocol]))
    for mutation in randomness.sample(mutated, REPLIES):
        if is_streamed:
            upstream.script = STREAM_HEAD + encoded(CODECS[protocol], mutation.value)
        else:
            upstream.script = whole(orjson.dumps(mutation.value))
        response = HTTP.post(
            stack.base_url + "/v1/messages",
            headers=alice.headers,
            json=body(model=sold.model_id, tools=TOOLS, stream=is_streamed),
        )
        assert response.status_code in (200, 502), (mutation.where, response.text)
        has_content, ended = judge(response.status_code, response.content, is_streamed=is_streamed)
        assert ended, (mutation.where, response.text)
        check_billing(stack, response, mutation.where, has_content=has_content)
    assert len(upstream.requests) == REPLIES
    assert "Traceback" not in stack.log("uvicorn")


def judge(status: int, content: bytes, *, is_streamed: bool) -> tuple[bool, bool]:
    """Return whether the client was given something that was generated, and whether its answer has an end."""
    if status != 200 or not is_streamed:
        return status == 200 and bool(orjson.loads(content)["content"]), True
    events = SseParser().feed(content)
    names = [event.event for event in events]
    return "content_block_delta" in names, names[-1] in ("message_stop", "error")


def check_billing(stack: LiveStack, response: Any, where: str, *, has_content: bool) -> None:
    request_id = request_id_of(response)

    def ended() -> bool:
        rows = (model.objects.filter(request_id=request_id).count() for model in (UsageRecord, FailedRequest))
        return sum(rows) == 1

    stack.wait_until(ended, f"{where} is billed or released")
    if has_content:
        record = UsageRecord.objects.get(request_id=request_id)
        assert record.output_tokens > 0 and record.cost_nanos > 0, where
