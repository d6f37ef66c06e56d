"""Messages requests as Chat Completions bodies: rows 3, 5 and 6 of what OpenAI-compatible upstreams need."""

from typing import Any

import orjson
import pytest

from gateway.protocol.chat.codec import ChatCodec
from gateway.protocol.chat.names import CallIds, SentCallIds, shorten_call_id
from gateway.protocol.codec import RouteTarget
from gateway.protocol.errors import InvalidRequestError
from gateway.protocol.messages.request import parse_messages_request
from gateway.protocol.profile import UpstreamProfile
from tests.gateway.protocol.streams import IDENTITY
from tests.gateway.protocol.test_messages_request import IMAGE, IMAGE_BY_URL, PNG, TOOL, body_of

IMAGE_PART = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}
FUNCTION = {"name": "get_weather", "description": "Weather.", "parameters": {"type": "object", "properties": {}}}
PDF = {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}


def render(profile: UpstreamProfile | None = None, **fields: Any) -> dict[str, Any]:
    request = parse_messages_request(orjson.dumps(body_of(**fields)))
    call = ChatCodec().render_request(request, RouteTarget("up-large", profile or UpstreamProfile()))
    assert (call.path, call.headers) == ("/chat/completions", {"content-type": "application/json"})
    body = orjson.loads(call.body)
    assert isinstance(body, dict)
    return body


def messages_of(*messages: dict[str, Any], **fields: Any) -> list[dict[str, Any]]:
    rendered = render(messages=list(messages), **fields)["messages"]
    assert isinstance(rendered, list)
    return rendered


def turn(role: str, *blocks: dict[str, Any]) -> dict[str, Any]:
    return {"role": role, "content": list(blocks)}


def text(value: str) -> dict[str, Any]:
    return {"type": "text", "text": value, "cache_control": {"type": "ephemeral"}}


def result(call_id: str, content: Any, **fields: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": call_id, "content": content, **fields}


def test_a_plain_request() -> None:
    assert render() == {
        "model": "up-large",
        "messages": [{"role": "user", "content": "Hello!"}],
        "max_tokens": 1024,
    }


def test_a_streamed_request_asks_for_usage() -> None:
    body = render(stream=True)
    assert (body["stream"], body["stream_options"]) == (True, {"include_usage": True})
    assert "stream_options" not in render(UpstreamProfile(stream_usage=False), stream=True)


def test_system_is_joined_in_order_without_the_billing_header() -> None:
    blocks = [text("x-anthropic-billing-header: cc_version=2.1; cch=5f;"), text("You are."), text(""), text("Helpful.")]
    assert messages_of(turn("user", text("Hi")), system=blocks) == [
        {"role": "system", "content": "You are.\n\nHelpful."},
        {"role": "user", "content": "Hi"},
    ]
    assert messages_of(turn("user", text("Hi")), system="Be.")[0] == {"role": "system", "content": "Be."}
    assert render(UpstreamProfile(system_role="developer"), system="Be.")["messages"][0]["role"] == "developer"
    inner = messages_of(turn("user", text("Hi")), {"role": "system", "content": [text("Now be brief.")]})
    assert inner[1] == {"role": "system", "content": "Now be brief."}


def test_tool_results_follow_the_assistant_before_the_text_of_the_user() -> None:
    use = {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"city": "Oslo"}}
    assert messages_of(
        turn("user", text("Weather?")),
        turn("assistant", {"type": "thinking", "thinking": "hm", "signature": "s"}, text("Let me see."), use),
        turn("user", text("Quick!"), result("toolu_1", [text("5 °C"), text("rain")])),
    ) == [
        {"role": "user", "content": "Weather?"},
        {
            "role": "assistant",
            "content": "Let me see.",
            "tool_calls": [
                {
                    "id": "toolu_1",
                    "type": "function",
                    "function": {"name": "get_weather", "arguments": '{"city":"Oslo"}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "toolu_1", "content": "5 °C\n\nrain"},
        {"role": "user", "content": "Quick!"},
    ]


def test_several_results_stay_together_and_errors_say_so() -> None:
    messages = messages_of(
        turn("user", result("a", "one"), text("between"), result("b", None), result("c", "no such file", is_error=True))
    )
    assert messages == [
        {"role": "tool", "tool_call_id": "a", "content": "one"},
        {"role": "tool", "tool_call_id": "b", "content": ""},
        {"role": "tool", "tool_call_id": "c", "content": "Error: no such file"},
        {"role": "user", "content": "between"},
    ]


def test_results_follow_the_assistant_however_the_turn_is_cut_into_messages() -> None:
    """Messages joins neighbours of one role; Chat Completions wants each result right behind the call."""
    use = {"type": "tool_use", "id": "a", "name": "n", "input": {}}
    messages = messages_of(
        turn("user", text("Go.")),
        turn("assistant", text("One."), use),
        turn("assistant", {**use, "id": "b"}),
        {"role": "assistant", "content": "Two."},
        {"role": "user", "content": "Quick!"},
        turn("user", result("a", "one"), text("Well?")),
        turn("user", result("b", [IMAGE])),
    )
    call = {"type": "function", "function": {"name": "n", "arguments": "{}"}}
    assert messages == [
        {"role": "user", "content": "Go."},
        {"role": "assistant", "content": "One.\n\nTwo.", "tool_calls": [{"id": "a", **call}, {"id": "b", **call}]},
        {"role": "tool", "tool_call_id": "a", "content": "one"},
        {"role": "tool", "tool_call_id": "b", "content": "The result is in the images of the next message."},
        {"role": "user", "content": "Quick!"},
        {"role": "user", "content": "Well?"},
        {
            "role": "user",
            "content": [{"type": "text", "text": "Images in the result of tool call b:"}, IMAGE_PART],
        },
    ]


def test_images_in_a_result_follow_in_a_message_of_the_user() -> None:
    messages = messages_of(
        turn("user", result("a", [text("chart"), IMAGE]), result("b", [IMAGE_BY_URL]), text("What?"))
    )
    assert messages == [
        {"role": "tool", "tool_call_id": "a", "content": "chart"},
        {"role": "tool", "tool_call_id": "b", "content": "The result is in the images of the next message."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Images in the result of tool call a:"},
                IMAGE_PART,
                {"type": "text", "text": "Images in the result of tool call b:"},
                {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
                {"type": "text", "text": "What?"},
            ],
        },
    ]


def test_images_and_texts_of_the_user_keep_their_order() -> None:
    [message] = messages_of(turn("user", text("a"), IMAGE, text("b")))
    assert message["content"] == [{"type": "text", "text": "a"}, IMAGE_PART, {"type": "text", "text": "b"}]


def test_thinking_and_what_server_tools_left_are_dropped_from_the_history() -> None:
    messages = messages_of(
        turn("user", text("a")),
        turn("assistant", {"type": "thinking", "thinking": "hm"}, {"type": "redacted_thinking", "data": "x"}),
        turn("assistant", {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}, text("found")),
        {"role": "assistant", "content": "as a string"},
    )
    assert messages[1:] == [{"role": "assistant", "content": "found"}, {"role": "assistant", "content": "as a string"}]


def test_an_assistant_that_only_called_has_no_content() -> None:
    [_, message] = messages_of(
        turn("user", text("a")), turn("assistant", {"type": "tool_use", "id": "t", "name": "n", "input": {}})
    )
    assert message["content"] is None
    assert message["tool_calls"][0]["function"]["arguments"] == "{}"


def test_documents_where_the_language_model_takes_them() -> None:
    document = {"type": "document", "source": PDF, "title": "plan.pdf"}
    plain = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "words"}}
    [message] = messages_of(turn("user", document, plain))
    assert message["content"] == [
        {"type": "file", "file": {"filename": "plan.pdf", "file_data": "data:application/pdf;base64,JVBERi0="}},
        {"type": "text", "text": "words"},
    ]
    with pytest.raises(InvalidRequestError, match="Documents by URL are not supported on this model"):
        render(messages=[turn("user", {"type": "document", "source": {"type": "url", "url": "https://a/b.pdf"}})])


def test_documents_of_blocks_are_their_blocks() -> None:
    for content in ("words", [text("words")]):
        document = {"type": "document", "source": {"type": "content", "content": content}}
        assert messages_of(turn("user", document)) == [{"role": "user", "content": "words"}]


def test_a_format_under_the_name_of_its_beta() -> None:
    wanted = {"type": "json_schema", "schema": {"type": "object"}}
    assert render(output_format=wanted) == render(output_config={"format": wanted})
    assert "response_format" in render(output_format=wanted)


def test_warming_a_cache_is_refused_for_what_it_is() -> None:
    with pytest.raises(InvalidRequestError, match="max_tokens: 0 warms a prompt cache without a reply"):
        render(max_tokens=0)


def test_null_in_a_schema_says_nothing() -> None:
    tool = {"name": "a", "input_schema": {"type": "object", "properties": None, "required": None}}
    assert render(tools=[tool])["tools"][0]["function"]["parameters"] == {"type": "object", "properties": {}}


def test_unknown_blocks_of_the_user_are_refused() -> None:
    with pytest.raises(InvalidRequestError, match=r"messages.0.content.1: Input tag 'novel' found using 'type'"):
        render(messages=[turn("user", text("a"), {"type": "novel"})])


def test_tools_lose_what_the_protocol_does_not_know() -> None:
    schema = {"$schema": "http://json-schema.org/draft-07/schema#", "type": "object", "properties": {"a": {}}}
    tool = {
        **TOOL,
        "input_schema": schema,
        "cache_control": {"type": "ephemeral"},
        "defer_loading": True,
        "strict": True,
    }
    server = {"type": "web_search_20250305", "name": "web_search"}
    bare = [{"name": "b", "input_schema": {}}, {"name": "c"}]
    body = render(tools=[server, tool, *bare], context_management={"edits": []}, top_k=4)
    assert body["tools"] == [
        {
            "type": "function",
            "function": {
                **FUNCTION,
                "parameters": {"type": "object", "properties": {"a": {}}},
                "strict": True,
            },
        },
        {"type": "function", "function": {"name": "b", "parameters": {"type": "object", "properties": {}}}},
        {"type": "function", "function": {"name": "c", "parameters": {"type": "object", "properties": {}}}},
    ]
    assert not {"context_management", "top_k", "metadata", "system"} & set(body)
    assert b"cache_control" not in orjson.dumps(body) and b"defer_loading" not in orjson.dumps(body)


def test_server_tools_are_dropped_or_refused_as_the_profile_says() -> None:
    server = {"type": "web_search_20250305", "name": "web_search"}
    body = render(tools=[server], tool_choice={"type": "tool", "name": "web_search"})
    assert not {"tools", "tool_choice"} & set(body)
    assert "tool_choice" not in render(tools=[server, TOOL], tool_choice={"type": "tool", "name": "web_search"})
    with pytest.raises(InvalidRequestError, match=r"tools\.0\.type"):
        render(UpstreamProfile(server_tools="refuse"), tools=[server])


@pytest.mark.parametrize("tools", [None, [], [TOOL]])
def test_a_choice_of_what_is_not_there_is_refused_in_anthropics_words(tools: Any) -> None:
    with pytest.raises(InvalidRequestError, match=r"^Tool 'gone' not found in provided tools$"):
        render(tools=tools, tool_choice={"type": "tool", "name": "gone"})
    for kind in ("auto", "none") if not tools else ("auto", "none", "any"):
        assert ("tool_choice" in render(tools=tools, tool_choice={"type": kind})) is bool(tools)
    if not tools:
        with pytest.raises(InvalidRequestError, match=r"^tool_choice.any may only be specified while providing tools$"):
            render(tools=tools, tool_choice={"type": "any"})


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"type": "auto"}, "auto"),
        ({"type": "any"}, "required"),
        ({"type": "none"}, "none"),
        ({"type": "tool", "name": "get_weather"}, {"type": "function", "function": {"name": "get_weather"}}),
    ],
)
def test_tool_choice(choice: dict[str, Any], expected: Any) -> None:
    body = render(tools=[TOOL], tool_choice=choice)
    assert body["tool_choice"] == expected
    assert "parallel_tool_calls" not in body
    choice = {**choice, "disable_parallel_tool_use": True}
    assert render(tools=[TOOL], tool_choice=choice)["parallel_tool_calls"] is False
    profile = UpstreamProfile(parallel_tool_calls=False)
    assert "parallel_tool_calls" not in render(profile, tools=[TOOL], tool_choice=choice)


def test_long_names_and_ids_are_shortened_alike_everywhere() -> None:
    name = "mcp__" + "a" * 90
    call_id = "toolu_" + "b" * 80
    body = render(
        tools=[{**TOOL, "name": name}, {**TOOL, "name": name + "2"}],
        tool_choice={"type": "tool", "name": name},
        messages=[
            turn("user", text("a")),
            turn("assistant", {"type": "tool_use", "id": call_id, "name": name, "input": {}}),
            turn("user", result(call_id, "ok")),
        ],
    )
    short, other = (tool["function"]["name"] for tool in body["tools"])
    call = body["messages"][1]["tool_calls"][0]
    assert len(short) == len(other) == 64 and short != other
    assert body["tool_choice"]["function"]["name"] == call["function"]["name"] == short
    assert call["id"] == body["messages"][2]["tool_call_id"] == shorten_call_id(call_id)
    assert len(call["id"]) <= 40
    assert (
        render(UpstreamProfile(max_tool_name_chars=128), tools=[{**TOOL, "name": name}])["tools"][0]["function"]["name"]
        == name
    )


def test_stop_sequences_sampling_and_the_token_limit() -> None:
    body = render(stop_sequences=list("abcdef"), temperature=0.5, top_p=0.9, top_k=4)
    assert (body["stop"], body["temperature"], body["top_p"]) == (["a", "b", "c", "d"], 0.5, 0.9)
    assert render(UpstreamProfile(top_k=True), top_k=4)["top_k"] == 4
    assert "stop" not in render(stop_sequences=[])
    newer = render(UpstreamProfile(max_tokens_field="max_completion_tokens"))
    assert newer["max_completion_tokens"] == 1024 and "max_tokens" not in newer


@pytest.mark.parametrize(
    ("way", "fields", "expected"),
    [
        ("drop", {"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}}, {}),
        ("reasoning_effort", {"thinking": {"type": "adaptive"}}, {}),
        ("reasoning_effort", {"output_config": {"effort": "max"}}, {"reasoning_effort": "high"}),
        ("reasoning_effort", {"output_config": {"effort": ["odd"]}}, {}),
        ("reasoning_effort", {"thinking": {"type": "disabled"}, "output_config": {"effort": "low"}}, {}),
        ("reasoning_effort", {"thinking": {"type": "enabled", "budget_tokens": 2048}}, {"reasoning_effort": "low"}),
        ("reasoning_effort", {"thinking": {"type": "enabled", "budget_tokens": 8192}}, {"reasoning_effort": "medium"}),
        ("reasoning_effort", {"thinking": {"type": "enabled", "budget_tokens": 31999}}, {"reasoning_effort": "high"}),
        ("reasoning", {"thinking": {"type": "enabled", "budget_tokens": 2048}}, {"reasoning": {"max_tokens": 2048}}),
        ("reasoning", {"thinking": {"type": "adaptive"}}, {"reasoning": {"enabled": True}}),
        ("reasoning", {"thinking": {"type": "disabled"}}, {"reasoning": {"enabled": False}}),
        ("reasoning", {"output_config": {"effort": "low"}}, {"reasoning": {"effort": "low"}}),
        ("reasoning", {}, {}),
    ],
)
def test_thinking_goes_where_the_upstream_expects_it(
    way: str, fields: dict[str, Any], expected: dict[str, Any]
) -> None:
    body = render(UpstreamProfile(reasoning=way), max_tokens=32_000, **fields)
    assert {name: body[name] for name in ("reasoning_effort", "reasoning") if name in body} == expected
    assert "thinking" not in body and "output_config" not in body


def test_a_schema_for_the_reply() -> None:
    schema = {"type": "object", "properties": {}}
    body = render(output_config={"format": {"type": "json_schema", "schema": schema}})
    assert body["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "reply", "schema": schema, "strict": True},
    }


def test_the_profile_drops_adds_and_refuses() -> None:
    profile = UpstreamProfile(drop_fields=("temperature",), extra_body={"provider": {"sort": "price"}})
    body = render(profile, temperature=0.5)
    assert "temperature" not in body and body["provider"] == {"sort": "price"}
    with pytest.raises(InvalidRequestError, match="speed: Extra inputs are not permitted"):
        render(UpstreamProfile(refuse_fields=("speed",)), speed="fast")


def calls_of(*call_ids: str) -> list[dict[str, Any]]:
    """Return a conversation in which each turn has one call, and its result."""
    turns = []
    for call_id in call_ids:
        thought = {"type": "thinking", "thinking": f"Hm, {call_id}", "signature": ""}
        use = {"type": "tool_use", "id": call_id, "name": "get_weather", "input": {}}
        turns += [turn("assistant", thought, use), turn("user", result(call_id, "5"))]
    return [turn("user", text("Weather?")), *turns]


def test_ids_that_a_provider_counts_are_unique_for_clients_and_its_own_for_the_provider() -> None:
    given = [CallIds(f"msg_{number:032x}").accept("functions.a:0") for number in (1, 2)]
    assert len(set(given)) == 2
    rendered = messages_of(*calls_of(*given))
    sent = [message["tool_calls"][0]["id"] for message in rendered if "tool_calls" in message]
    told = [message["tool_call_id"] for message in rendered if message["role"] == "tool"]
    # Its own where that names one call only.
    assert sent == told == ["functions.a:0", given[1]]


@pytest.mark.parametrize("call_id", ["call_abcDEF123456", "toolu_01AbCdEf", "chatcmpl-tool-0a1b2c3d4e5f"])
def test_ids_that_are_unique_stay_as_they_are(call_id: str) -> None:
    assert CallIds(IDENTITY.message_id).accept(call_id) == call_id
    assert SentCallIds().send(call_id) == call_id


def test_thinking_goes_back_with_its_calls_where_the_provider_wants_it() -> None:
    conversation = calls_of("call_abcdef", "call_ghijkl")
    rendered = render(UpstreamProfile(thinking_history="reasoning_content"), messages=conversation)["messages"]
    thoughts = [message["reasoning_content"] for message in rendered if message["role"] == "assistant"]
    assert thoughts == ["Hm, call_abcdef", "Hm, call_ghijkl"]
    assert b"Hm" not in orjson.dumps(render(messages=conversation))
