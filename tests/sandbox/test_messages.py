"""The Messages protocol of the sandbox."""

from typing import Any

import httpx
import pytest

from sandbox.replies import SENTENCE
from sandbox.tokens import text_tokens
from tests.sandbox.conftest import LastRecord
from tests.sandbox.conversation import ask, stream, text_of

PATH = "/v1/messages"


async def reply_to(client: httpx.AsyncClient, text: str = "Hello", **fields: Any) -> dict[str, Any]:
    response = await client.post(PATH, json=ask(text, **fields))
    assert response.status_code == 200, response.text
    message: dict[str, Any] = response.json()
    return message


async def test_a_whole_reply(client: httpx.AsyncClient, last_record: LastRecord) -> None:
    response = await client.post(
        PATH, json=ask("Hello", system="Be kind."), headers={"x-crossmodel-request-id": "ab" * 16}
    )
    message = response.json()
    assert message == {
        "id": message["id"],
        "type": "message",
        "role": "assistant",
        "model": "sandbox-large",
        "content": [{"type": "text", "text": SENTENCE}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 4,
            "output_tokens": text_tokens(SENTENCE),
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
            "service_tier": "standard",
        },
    }
    record = last_record()
    assert record.is_complete
    assert (record.protocol, record.request_id, record.key_last4) == ("messages", "ab" * 16, "abcd")
    assert (record.status, record.streamed, record.bytes) == (200, False, len(response.content))
    assert record.usage is not None
    assert (record.usage["input"], record.usage["output"]) == (4, text_tokens(SENTENCE))


async def test_headers_that_a_gateway_must_not_pass_on(client: httpx.AsyncClient) -> None:
    headers = (await client.post(PATH, json=ask())).headers
    for name in (
        "request-id",
        "anthropic-organization-id",
        "anthropic-ratelimit-tokens-limit",
        "via",
        "set-cookie",
        "cf-ray",
    ):
        assert headers[name]


async def test_a_stream_has_every_event_in_order(client: httpx.AsyncClient, last_record: LastRecord) -> None:
    events = await stream(client, PATH, ask("Hi [[sandbox: tokens=12]]"))
    assert [name for name, _ in events] == [
        "message_start",
        "content_block_start",
        "ping",
        "content_block_delta",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert all(event["type"] == name for name, event in events)
    assert events[0][1]["message"]["usage"]["output_tokens"] == 1
    assert events[-2][1]["usage"] == {
        "input_tokens": text_tokens("Hi [[sandbox: tokens=12]]"),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": 12,
    }
    assert text_of(events) == SENTENCE[:48]
    record = last_record()
    assert (record.delivered, record.deltas, record.text_chars) == ("complete", 3, 48)


async def test_the_same_request_gets_the_same_text_streamed_or_not(client: httpx.AsyncClient) -> None:
    asked = "A story [[sandbox: tokens=300]]"
    whole = (await reply_to(client, asked))["content"][0]["text"]
    assert text_of(await stream(client, PATH, ask(asked))) == whole
    assert whole.startswith(SENTENCE) and text_tokens(whole) == 300
    assert (await reply_to(client, "Another [[sandbox: tokens=300]]"))["content"][0]["text"] != whole


async def test_max_tokens_cuts(client: httpx.AsyncClient) -> None:
    message = await reply_to(client, "Hi [[sandbox: tokens=500]]", max_tokens=7)
    assert message["stop_reason"] == "max_tokens"
    assert message["usage"]["output_tokens"] == 7
    assert len(message["content"][0]["text"]) == 28


async def test_stop_sequence_that_comes_first_wins(client: httpx.AsyncClient) -> None:
    message = await reply_to(client, stop_sequences=["model", "sandbox"])
    assert (message["stop_reason"], message["stop_sequence"]) == ("stop_sequence", "sandbox")
    assert message["content"][0]["text"] == "This is CrossModel's "


@pytest.mark.parametrize("thinking", [{"type": "enabled", "budget_tokens": 1024}, {"type": "adaptive"}])
async def test_thinking_comes_first_with_a_signature(client: httpx.AsyncClient, thinking: dict[str, Any]) -> None:
    message = await reply_to(client, thinking=thinking)
    assert [block["type"] for block in message["content"]] == ["thinking", "text"]
    assert message["content"][0]["signature"]
    parts = [message["content"][0]["thinking"], message["content"][1]["text"]]
    assert message["usage"]["output_tokens"] == sum(map(text_tokens, parts))


async def test_hidden_thinking_is_billed_all_the_same(client: httpx.AsyncClient) -> None:
    shown = await reply_to(client, thinking={"type": "adaptive"})
    hidden = await reply_to(client, thinking={"type": "adaptive", "display": "omitted"})
    assert hidden["content"][0]["thinking"] == ""
    assert hidden["usage"] == shown["usage"]


WEATHER = {
    "name": "get_weather",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}},
}


async def test_tool_choice_makes_a_tool_call(client: httpx.AsyncClient) -> None:
    message = await reply_to(client, tools=[WEATHER], tool_choice={"type": "any"})
    assert message["stop_reason"] == "tool_use"
    [call] = message["content"]
    assert (call["type"], call["name"], call["input"]) == ("tool_use", "get_weather", {"city": "sandbox", "days": 1})


async def test_tool_directive_streams_json_that_adds_up(client: httpx.AsyncClient) -> None:
    events = await stream(client, PATH, ask("Hi [[sandbox: tool=get_weather; delta=4]]", tools=[WEATHER]))
    parts = [
        event["delta"]["partial_json"]
        for name, event in events
        if name == "content_block_delta" and event["delta"]["type"] == "input_json_delta"
    ]
    assert "".join(parts) == '{"city":"sandbox","days":1}' and len(parts) > 4
    assert [event["index"] for name, event in events if name == "content_block_start"] == [0, 1]


async def test_after_a_tool_result_the_reply_is_text(client: httpx.AsyncClient) -> None:
    call = (await reply_to(client, "Hi [[sandbox: tool=get_weather]]", tools=[WEATHER]))["content"]
    result = [{"type": "tool_result", "tool_use_id": call[-1]["id"], "content": "Rain."}]
    messages = [
        {"role": "user", "content": "Hi [[sandbox: tool=get_weather]]"},
        {"role": "assistant", "content": call},
        {"role": "user", "content": result},
    ]
    message = await reply_to(client, messages=messages, tools=[WEATHER])
    assert (message["stop_reason"], message["content"]) == ("end_turn", [{"type": "text", "text": SENTENCE}])


async def test_web_searches_are_counted(client: httpx.AsyncClient) -> None:
    tool = {"type": "web_search_20250305", "name": "web_search"}
    message = await reply_to(client, "News [[sandbox: web_searches=2]]", tools=[tool])
    assert message["usage"]["server_tool_use"] == {"web_search_requests": 2}
    assert [block["type"] for block in message["content"]].count("web_search_tool_result") == 2
    assert (await reply_to(client, tools=[tool]))["usage"]["server_tool_use"] == {"web_search_requests": 1}


async def test_images_count_a_fixed_number_whatever_their_size(client: httpx.AsyncClient) -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "A" * 40_000}}
    message = await reply_to(client, messages=[{"role": "user", "content": [image, {"type": "text", "text": "See"}]}])
    assert message["usage"]["input_tokens"] == 1_601


async def test_count_tokens_agrees_with_the_bill(client: httpx.AsyncClient, last_record: LastRecord) -> None:
    body = ask("How many?", system=[{"type": "text", "text": "Count."}], tools=[WEATHER])
    counted = (await client.post(f"{PATH}/count_tokens?beta=true", json=body)).json()
    assert last_record().protocol == "count_tokens"
    assert counted == {"input_tokens": (await client.post(PATH, json=body)).json()["usage"]["input_tokens"]}


async def test_cache_is_written_with_its_split_and_then_read(client: httpx.AsyncClient) -> None:
    system = [
        {"type": "text", "text": "L" * 400, "cache_control": {"type": "ephemeral", "ttl": "1h"}},
        {"type": "text", "text": "S" * 200, "cache_control": {"type": "ephemeral"}},
    ]
    first = (await reply_to(client, "Cached?", system=system))["usage"]
    assert (first["input_tokens"], first["cache_creation_input_tokens"], first["cache_read_input_tokens"]) == (
        2,
        150,
        0,
    )
    assert first["cache_creation"] == {"ephemeral_5m_input_tokens": 50, "ephemeral_1h_input_tokens": 100}
    second = (await reply_to(client, "Cached?", system=system))["usage"]
    assert (second["input_tokens"], second["cache_creation_input_tokens"], second["cache_read_input_tokens"]) == (
        2,
        0,
        150,
    )


async def test_a_growing_conversation_reads_what_its_moving_mark_wrote(client: httpx.AsyncClient) -> None:
    mark = {"cache_control": {"type": "ephemeral"}}
    opening = {"type": "text", "text": "moving " * 60}
    first = await reply_to(client, messages=[{"role": "user", "content": [{**opening, **mark}]}])
    follow_up = [
        {"role": "user", "content": [opening]},
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": [{"type": "text", "text": "Go on.", **mark}]},
    ]
    second = (await reply_to(client, messages=follow_up))["usage"]
    assert second["cache_read_input_tokens"] == first["usage"]["cache_creation_input_tokens"] == 105
    assert second["cache_creation_input_tokens"] == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_tokens": 0}, "max_tokens: Input should be greater than or equal to 1"),
        ({"messages": []}, "messages: at least one message is required"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages.0.role: Input should be 'user' or 'assistant'"),
        ({"model": 3}, "model: Input should be a valid string"),
        ({"messages": [{"role": "user", "content": "[[sandbox: typo=1]]"}]}, "unknown sandbox directive 'typo'"),
        ({"stop_sequences": [5]}, "sandbox: TypeError"),
    ],
)
async def test_bad_requests_are_refused(
    client: httpx.AsyncClient, last_record: LastRecord, change: dict[str, Any], message: str
) -> None:
    response = await client.post(PATH, json=ask() | change)
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["type"] == "invalid_request_error" and error["message"].startswith(message)
    assert last_record().delivered == "failed:400"


async def test_sampling_fields_and_api_versions(client: httpx.AsyncClient) -> None:
    newer = {"anthropic-version": "2026-10-21"}
    assert (await client.post(PATH, json=ask(temperature=0.5))).status_code == 200
    assert (await client.post(PATH, json=ask(), headers=newer)).status_code == 200
    refused = await client.post(PATH, json=ask(temperature=0.5), headers=newer)
    assert (refused.status_code, refused.json()["error"]["message"]) == (
        400,
        "temperature: Extra inputs are not permitted",
    )


async def test_a_key_is_required_in_either_header(client: httpx.AsyncClient, last_record: LastRecord) -> None:
    client.headers.pop("x-api-key")
    assert (await client.post(PATH, json=ask())).status_code == 401
    bearer = await client.post(PATH, json=ask(), headers={"authorization": "Bearer one-1234"})
    assert bearer.status_code == 200
    assert last_record().key_last4 == "1234"


async def test_too_large_a_body(client: httpx.AsyncClient) -> None:
    response = await client.post(PATH, content=b'{"x":"' + b"y" * (33 * 1024 * 1024) + b'"}')
    assert (response.status_code, response.json()["error"]["type"]) == (413, "request_too_large")


async def test_everything_else_is_a_json_error(client: httpx.AsyncClient) -> None:
    assert (await client.get("/nowhere")).json()["error"]["type"] == "not_found_error"
    assert (await client.get(PATH)).status_code == 405
    assert (await client.post(PATH, content=b"{")).json()["error"]["type"] == "invalid_request_error"
    assert "not a real provider" in (await client.get("/")).text
    assert (await client.get("/v1/models?limit=1000")).json()["data"][0]["type"] == "model"
