"""What Chat Completions has no block for, and can say as text; and tools that nobody there would call."""

import pytest

from gateway.protocol.errors import InvalidRequestError
from tests.gateway.protocol.test_chat_request import messages_of, render, result, text, turn
from tests.gateway.protocol.test_messages_request import TOOL


def test_what_a_document_is_called_goes_with_it() -> None:
    plain = {"type": "text", "media_type": "text/plain", "data": "words"}
    document = {
        "type": "document",
        "source": plain,
        "title": "Plan",
        "context": "Of May.",
        "citations": {"enabled": True},
    }
    [message] = messages_of(turn("user", document, text("What?")))
    assert message["content"] == "Title: Plan\nContext: Of May.\n\nwords\n\nWhat?"


def test_search_results_are_text_with_their_source() -> None:
    found = {
        "type": "search_result",
        "source": "https://a.example",
        "title": "A",
        "content": [text("one"), text("two")],
    }
    told = "Title: A\nSource: https://a.example\n\none\n\ntwo"
    assert messages_of(turn("user", found)) == [{"role": "user", "content": told}]
    assert messages_of(turn("user", result("t", [found])))[0]["content"] == told
    for content in (None, [], [{"type": "text"}], "one"):
        with pytest.raises(InvalidRequestError, match=r"messages\.0\.content\.0\.search_result\.content"):
            messages_of(turn("user", {**found, "content": content}))


def test_the_summary_of_a_compacted_conversation_is_not_lost() -> None:
    summary = {"type": "compaction", "content": "They agreed."}
    assert messages_of(turn("user", text("a")), turn("assistant", summary, text("So?"))) == [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "They agreed.\n\nSo?"},
    ]
    assert messages_of(turn("user", text("a")), turn("assistant", {**summary, "content": None})) == [
        {"role": "user", "content": "a"}
    ]


@pytest.mark.parametrize("tool_type", ["bash_20250124", "text_editor_20250728", "computer_20250124", "memory_20250818"])
def test_who_offers_a_tool_of_anthropics_is_told_that_nobody_would_call_it(tool_type: str) -> None:
    with pytest.raises(InvalidRequestError, match=rf"tools\.1\.type: '{tool_type}' is not supported on this model"):
        render(tools=[TOOL, {"type": tool_type, "name": "a"}])
