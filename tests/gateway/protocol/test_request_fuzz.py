"""Any JSON and any bytes: a request is accepted whole, or refused as documented."""

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.protocol.errors import InvalidRequestError
from gateway.protocol.messages.capabilities import check_capabilities
from gateway.protocol.messages.request import MessagesRequest, parse_messages_request, render_upstream_body
from tests.gateway.protocol.test_capabilities import ALL_CAPABILITIES
from tests.gateway.protocol.test_messages_request import body_of, parse, user

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["type", "text", "source", "id"]), inner)
    ),
    max_leaves=12,
)
FIELDS = [
    "messages",
    "system",
    "tools",
    "tool_choice",
    "thinking",
    "metadata",
    "stop_sequences",
    "stream",
    "max_tokens",
]
BLOCK_TYPES = ["text", "image", "document", "tool_use", "tool_result", "thinking", "redacted_thinking", "novel"]


@given(st.dictionaries(st.sampled_from(FIELDS), JSON))
def test_any_json_is_accepted_or_refused(fields: dict[str, Any]) -> None:
    try:
        request = parse(body_of(**fields))
    except InvalidRequestError:
        return
    check_passes(request)


@settings(max_examples=300)
@given(
    st.lists(
        st.fixed_dictionaries(
            {"type": st.sampled_from(BLOCK_TYPES)},
            optional=dict.fromkeys(("text", "source", "id", "name", "input", "tool_use_id", "content", "data"), JSON),
        ),
        max_size=3,
    )
)
def test_any_blocks_are_accepted_or_refused(blocks: list[dict[str, Any]]) -> None:
    try:
        request = parse(user(*blocks))
    except InvalidRequestError:
        return
    check_passes(request)


def check_passes(request: MessagesRequest) -> None:
    """What was accepted can be rendered, hashed and asked about."""
    assert orjson.loads(render_upstream_body(request, "up"))["model"] == "up"
    assert len(request.conversation_fingerprint()) == 32
    assert 0 <= request.image_data_bytes <= request.body_bytes
    check_capabilities(request, ALL_CAPABILITIES)


@given(st.binary(max_size=200))
def test_any_bytes_are_accepted_or_refused(raw: bytes) -> None:
    with pytest.raises(InvalidRequestError):
        parse_messages_request(raw)
