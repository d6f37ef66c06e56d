"""Usage that a Chat upstream says behind `[DONE]`: read within a moment, and missed by nobody who waits for the end."""

from collections.abc import Sequence

import pytest

from billing.models import Upstream
from tests.gateway.catalog_factory import sell_catalog_model
from tests.gateway.protocol.streams import chat_chunk, chat_sse
from tests.gateway.scripted_upstream import STREAM_HEAD, scripted_upstream
from tests.support.live_stack import LiveStack, Tenant

SAID = STREAM_HEAD + chat_sse(chat_chunk({"content": "Hello"}), chat_chunk(finish="stop"))
LATE = chat_sse({"choices": [], "usage": {"prompt_tokens": 30, "completion_tokens": 12}}, done=False)
LONG_SECONDS = 4.0


@pytest.mark.parametrize(
    ("script", "source"),
    [
        ([SAID, 0.2, LATE, LONG_SECONDS], "provider"),
        ([SAID, LONG_SECONDS, LATE], "estimated"),
        ([SAID, 0.1, b": wait\n\n"], "estimated"),
    ],
    ids=["late", "too late", "never"],
)
def test_usage_behind_the_end(stack: LiveStack, alice: Tenant, script: Sequence[bytes | float], source: str) -> None:
    with scripted_upstream() as upstream:
        upstream.script = script
        sold = sell_catalog_model(
            stack,
            alice,
            [stack.base_url],
            upstream_urls=[upstream.url],
            protocol=Upstream.Protocol.CHAT_COMPLETIONS,
        )
        response = stack.post(alice, model=sold.model_id, stream=True)
        assert response.text.endswith('{"type":"message_stop"}\n\n')
        record = stack.record(response)
        assert record.usage_source == source
        assert (record.output_tokens == 12) is (source == "provider")
