"""Nothing unpriced is sold, and nobody reaches into the account that all share: what is refused, and what passes."""

from typing import Any

import orjson
import pytest

from gateway.protocol.codec import RouteTarget
from gateway.protocol.errors import InvalidRequestError
from gateway.protocol.messages.codec import MessagesCodec
from gateway.protocol.messages.guarded_fields import passing_betas
from gateway.protocol.messages.request import parse_count_tokens_request
from tests.gateway.protocol.test_messages_request import TOOL, body_of, parse, user

FILE = {"type": "file", "file_id": "file_011CNha8iCJcU1wXNR6q4V8w"}
EXTRA = "Extra inputs are not permitted: "

REFUSED_FIELDS: list[tuple[str, Any]] = [
    ("anthropic_beta", ["code-execution-2025-08-25"]),
    ("betas", ["fast-mode-2026-02-01"]),
    ("billing_policy", {"type": "billing_policy", "bill_to": "user_profile"}),
    ("container", "container_011CPR5CNjB747bTd36fQLFk"),
    ("container", {"skills": [{"type": "custom", "skill_id": "skill_01", "version": "latest"}]}),
    ("fallback_credit_token", "fct_1"),
    ("fallbacks", "default"),
    ("fallbacks", [{"model": "claude-opus-5-5"}]),
    ("inference_geo", "us"),
    ("models", ["anthropic/claude-fable-5.1"]),
    ("plugins", [{"id": "web"}]),
    ("preset", "ours"),
    ("provider", {"order": ["dear"]}),
    ("mcp_servers", [{"type": "url", "name": "a", "url": "https://mcp.example.org"}]),
    ("service_tier", "priority"),
    ("service_tier", 0),
    ("skills", ["pdf"]),
    ("speed", "fast"),
    ("speed", False),
    ("user_profile_id", "uprof_1"),
    ("workspace_id", "wrkspc_1"),
]


@pytest.mark.parametrize(("name", "value"), REFUSED_FIELDS)
def test_fields_that_cost_or_cross_are_refused(name: str, value: Any) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse(body_of(**{name: value}))
    assert caught.value.message.startswith(f"{name}: {EXTRA}")
    assert (caught.value.code, caught.value.param) == ("not_on_sale", name)
    with pytest.raises(InvalidRequestError):  # Nor may a count look into what belongs to others.
        parse_count_tokens_request(orjson.dumps(body_of(**{name: value})))


HARMLESS_FIELDS: list[tuple[str, Any, bool]] = [
    ("billing_policy", {"type": "billing_policy", "bill_to": "self"}, False),
    ("container", None, False),
    ("fallbacks", [], False),
    ("inference_geo", "global", True),
    ("inference_geo", None, True),
    ("mcp_servers", [], False),
    ("service_tier", "auto", True),
    ("service_tier", "standard_only", True),
    ("speed", "standard", False),
    ("speed", None, False),
    ("a_field_of_next_year", {"file_id": "whatever"}, True),
    ("context_management", {"edits": [{"type": "clear_thinking_20251015"}]}, True),
    ("output_config", {"effort": "high", "task_budget": {"type": "tokens", "total": 5}}, True),
]


@pytest.mark.parametrize(("name", "value", "is_sent"), HARMLESS_FIELDS)
def test_harmless_values_pass(name: str, value: Any, is_sent: bool) -> None:
    """What means the same as nothing is left out: without its beta value the upstream would not know the field."""
    call = MessagesCodec().render_request(parse(body_of(**{name: value})), RouteTarget("claude-sonnet-4-6"))
    assert orjson.loads(call.body).get(name, "missing") == (value if is_sent else "missing")


REFUSED_TOOLS: list[Any] = [
    {"type": "advisor_20260301", "name": "advisor", "model": "claude-opus-5-5"},
    {"type": "code_execution_20260521", "name": "code_execution"},
    {"type": "mcp_toolset", "mcp_server_name": "a"},
    {"type": "web_search", "name": "web_search"},
    {"type": "web_searching_20250305", "name": "web_search"},
    {"type": "bash_", "name": "bash"},
    {"type": "novel_20270101", "name": "novel"},
    {"type": ""},
    {"type": 3},
]


def definition(tool: Any) -> dict[str, Any]:
    return {"type": "tool_addition", "tool": {"type": "tool_definition", "definition": tool}}


def compacted(change: Any) -> dict[str, Any]:
    return {"type": "compaction", "content": "It was about tools.", "tool_changes": [change]}


@pytest.mark.parametrize("tool", REFUSED_TOOLS)
def test_tools_that_have_no_price_are_refused_wherever_they_are_declared(tool: Any) -> None:
    for body in (body_of(tools=[TOOL, tool]), user(definition(tool)), user(compacted(definition(tool)))):
        with pytest.raises(InvalidRequestError) as caught:
            parse(body)
        assert caught.value.param is not None
        assert caught.value.param.startswith(("tools.1", "messages.0.content.0."))


def test_a_refused_tool_is_told_in_anthropics_words() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse(body_of(tools=[{"type": "advisor_20260301", "name": "advisor"}]))
    assert caught.value.message == (
        "tools.0: Input tag 'advisor_20260301' found using 'type' does not match any of the expected tags: "
        "'bash_20250124', 'custom', 'memory_20250818', 'text_editor_20250728', 'web_search_20250305'"
    )


@pytest.mark.parametrize(
    "tool",
    [
        {"type": "bash_20250124", "name": "bash"},
        {"type": "browser_toolset_20260801"},
        {"type": "computer_20251124", "name": "computer", "display_width_px": 1, "display_height_px": 1},
        {"type": "computer_toolset_20260801"},
        {"type": "memory_20250818", "name": "memory"},
        {"type": "text_editor_20250728", "name": "str_replace_based_edit_tool"},
        {"type": "tool_search_tool_regex_20251119", "name": "tool_search_tool_regex"},
        {"type": "web_search_20250305", "name": "web_search", "max_uses": 5},
        {"type": "web_fetch_20260318", "name": "web_fetch", "max_content_tokens": 5000},
        TOOL,
    ],
)
def test_tools_that_the_client_runs_and_those_that_are_sold_pass(tool: Any) -> None:
    request = parse(body_of(tools=[tool]))
    added = parse(user(definition(tool), compacted(definition(tool))))
    if tool is TOOL:
        assert request.provider_tools == added.provider_tools == []
    else:
        assert request.provider_tools == [("tools.0", tool)]
        assert [declared for _, declared in added.provider_tools] == [tool, tool]


def test_references_to_declared_tools_pass() -> None:
    reference = {"type": "tool_addition", "tool": {"type": "tool_reference", "name": "get_weather"}}
    assert parse(user(reference, {"type": "tool_removal", "tool": reference["tool"]})).unknown_blocks == 0
    with pytest.raises(InvalidRequestError):
        parse(user({"type": "tool_addition", "tool": {"type": "mcp_toolset_reference", "mcp_server_name": "a"}}))


@pytest.mark.parametrize(
    "block",
    [
        {"type": "container_upload", "file_id": "file_1"},
        {"type": "document", "source": FILE},
        {"type": "image", "source": FILE},
        {"type": "novel", "source": FILE},
        {"type": "novel", "file_id": "file_1"},
        {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "document", "source": FILE}]},
        {"type": "document", "source": {"type": "content", "content": [{"type": "image", "source": FILE}]}},
        {
            "type": "web_fetch_tool_result",
            "tool_use_id": "t",
            "content": {"type": "web_fetch_result", "url": "u", "content": {"type": "document", "source": FILE}},
        },
        {
            "type": "code_execution_tool_result",
            "tool_use_id": "t",
            "content": {
                "type": "code_execution_result",
                "content": [{"type": "code_execution_output", "file_id": "file_1"}],
            },
        },
    ],
)
def test_no_block_names_a_file_of_the_shared_account(block: Any) -> None:
    for body in (user(block), body_of(system=[block])):
        with pytest.raises(InvalidRequestError):
            parse(body)


def test_a_tool_of_the_client_may_have_a_file_id() -> None:
    schema = {"type": "object", "properties": {"file_id": {"type": "string"}}}
    call = {"type": "tool_use", "id": "t", "name": "read", "input": {"file_id": "mine", "source": FILE}}
    body = {**user(call), "tools": [{"name": "read", "input_schema": schema, "input_examples": [{"file_id": "a"}]}]}
    assert parse(body).unknown_blocks == 0


def test_blocks_that_may_grow_are_counted() -> None:
    documents = [
        {"type": "document", "source": {"type": "url", "url": "https://example.org/a.pdf"}},
        {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}},
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "as long as it is"}},
    ]
    request = parse(user(*documents, {"type": "tool_result", "tool_use_id": "t", "content": documents}))
    assert (request.expandable_documents, request.unknown_blocks) == (4, 0)
    inert = [
        {"type": "server_tool_use", "id": "t", "name": "web_search", "input": {}},
        {"type": "web_search_tool_result", "tool_use_id": "t", "content": [{"type": "web_search_result", "url": "u"}]},
        {"type": "search_result", "source": "s", "title": "t", "content": [{"type": "text", "text": "a"}]},
    ]
    assert parse(user(*inert)).unknown_blocks == 0
    assert parse(user({"type": "novel"}, {"type": "another"})).unknown_blocks == 2


def test_betas_that_unlock_what_is_not_sold_are_left_out() -> None:
    sent = "interleaved-thinking-2025-05-14, fast-mode-2026-02-01,mcp-client-2025-11-20,context-1m-2025-08-07"
    assert passing_betas(sent) == "interleaved-thinking-2025-05-14,context-1m-2025-08-07"
    assert passing_betas("files-api-2025-04-14") == passing_betas("") == ""
    for betas, expected in ((sent, True), ("skills-2025-10-02", False)):
        call = MessagesCodec().render_request(parse(body_of()), RouteTarget("claude", client_beta=betas))
        assert ("anthropic-beta" in call.headers) is expected


def test_a_thread_is_refused_with_the_details_that_sdks_heal_from() -> None:
    for thread in ({"type": "create"}, {"type": "continue", "previous_message_id": "msg_1"}):
        with pytest.raises(InvalidRequestError) as caught:
            parse(body_of(thread=thread))
        assert caught.value.details == {"error_code": "thread_unsupported_request", "unsupported": ["thread"]}
    parse(body_of(thread=None))
