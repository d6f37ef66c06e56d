"""What a language model cannot do is refused, in words that Claude Code heals from; each capability lets it pass."""

from typing import Any

import pytest

from gateway.protocol.errors import InvalidRequestError
from gateway.protocol.messages.capabilities import check_capabilities
from tests.gateway.protocol.test_messages_request import IMAGE, TOOL, body_of, parse, user

ALL_CAPABILITIES = ("documents", "images", "system_messages", "thinking", "tools", "web_search")
DOCUMENT = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}}


@pytest.mark.parametrize(
    ("capability", "body", "message", "param"),
    [
        (
            "system_messages",
            body_of(messages=[{"role": "user", "content": "a"}, {"role": "system", "content": "b"}]),
            'messages: Unexpected role "system". The Messages API accepts a top-level `system` parameter, not "system"'
            " as an input message role.",
            "messages.1.role",
        ),
        ("documents", user(DOCUMENT), "This model does not support PDF input.", "messages.0.content.0"),
        (
            "documents",
            user({"type": "tool_result", "tool_use_id": "t", "content": [DOCUMENT]}),
            "This model does not support PDF input.",
            "messages.0.content.0.tool_result.content.0",
        ),
        ("images", user(IMAGE), "This model does not support image input.", "messages.0.content.0"),
        ("tools", body_of(tools=[TOOL]), "This model does not support tool use.", "tools"),
        (
            "web_search",
            body_of(tools=[TOOL, {"type": "web_search_20250305", "name": "web_search"}]),
            "This model does not support the web search tool.",
            "tools.1",
        ),
        (
            "thinking",
            body_of(thinking={"type": "adaptive"}),
            "adaptive thinking is not supported on this model",
            "thinking",
        ),
        (
            "thinking",
            body_of(max_tokens=2000, thinking={"type": "enabled", "budget_tokens": 1024}),
            "thinking is not supported on this model",
            "thinking",
        ),
        (
            "thinking",
            body_of(output_config={"effort": "high"}),
            "This model does not support the effort parameter.",
            "output_config.effort",
        ),
    ],
)
def test_each_capability_lets_pass_what_is_refused_without_it(
    capability: str, body: dict[str, Any], message: str, param: str
) -> None:
    request = parse(body)
    check_capabilities(request, ALL_CAPABILITIES)
    with pytest.raises(InvalidRequestError) as caught:
        check_capabilities(request, [name for name in ALL_CAPABILITIES if name != capability])
    assert (caught.value.message, caught.value.param) == (message, param)
    assert caught.value.code == "unsupported_by_model"


def test_a_plain_request_needs_no_capability() -> None:
    check_capabilities(parse(body_of(thinking={"type": "disabled"}, output_config={"format": None})), ())
