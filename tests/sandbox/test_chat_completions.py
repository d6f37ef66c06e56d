"""The Chat Completions protocol of the sandbox."""

from typing import Any

import httpx
import orjson
import pytest

from sandbox.replies import SENTENCE
from sandbox.tokens import text_tokens
from tests.sandbox.conftest import LastRecord
from tests.sandbox.conversation import Event, ask, stream

PATH = "/v1/chat/completions"
WITH_USAGE = {"stream_options": {"include_usage": True}}
TOOLS = [
    {
        "type": "function",
        "function": {"name": name, "parameters": {"type": "object", "properties": {"a": {"type": "string"}}}},
    }
    for name in ("one", "two")
]


def joined(events: list[Event], name: str) -> str:
    return "".join(
        event["choices"][0]["delta"].get(name) or ""
        for _, event in events
        if isinstance(event, dict) and event["choices"]
    )


def finish_reasons(events: list[Event]) -> list[str]:
    chunks = [event for _, event in events if isinstance(event, dict) and event["choices"]]
    return [chunk["choices"][0]["finish_reason"] for chunk in chunks if chunk["choices"][0]["finish_reason"]]


async def test_a_whole_reply(client: httpx.AsyncClient, last_record: LastRecord) -> None:
    completion = (await client.post(PATH, json=ask("Hello"))).json()
    assert completion["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": SENTENCE, "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]
    output = text_tokens(SENTENCE)
    assert completion["usage"]["prompt_tokens"] == 2
    assert completion["usage"]["completion_tokens"] == output
    assert completion["usage"]["total_tokens"] == 2 + output
    assert (last_record().protocol, last_record().delivered) == ("chat_completions", "complete")


async def test_usage_comes_in_a_chunk_of_its_own_only_when_asked(client: httpx.AsyncClient) -> None:
    plain = await stream(client, PATH, ask("Hi [[sandbox: tokens=12]]"))
    assert all("usage" not in event for _, event in plain[:-1]) and plain[-1][1] == "[DONE]"
    events = await stream(client, PATH, ask("Hi [[sandbox: tokens=12]]", **WITH_USAGE))
    assert events[-2][1]["choices"] == [] and events[-2][1]["usage"]["completion_tokens"] == 12
    assert joined(events, "content") == SENTENCE[:48]
    assert finish_reasons(events) == ["stop"]


@pytest.mark.parametrize("place", ["last", "never"])
async def test_usage_elsewhere(client: httpx.AsyncClient, last_record: LastRecord, place: str) -> None:
    events = await stream(client, PATH, ask(f"Hi [[sandbox: usage={place}; tokens=3]]", **WITH_USAGE))
    reporting = [event for _, event in events if isinstance(event, dict) and event.get("usage")]
    assert [chunk["choices"][0]["finish_reason"] for chunk in reporting] == (["stop"] if place == "last" else [])
    assert (last_record().usage is None) == (place == "never")


async def test_details_may_be_null(client: httpx.AsyncClient) -> None:
    usage = (await client.post(PATH, json=ask("Hi [[sandbox: null_details]]"))).json()["usage"]
    assert usage["prompt_tokens_details"] is None and usage["completion_tokens_details"] is None


async def test_cached_tokens_are_part_of_the_prompt(client: httpx.AsyncClient, last_record: LastRecord) -> None:
    long = [{"role": "system", "content": "x" * 8_000}, {"role": "user", "content": "Cached, chat?"}]
    first = (await client.post(PATH, json=ask(messages=long))).json()["usage"]
    second = (await client.post(PATH, json=ask(messages=long))).json()["usage"]
    assert first["prompt_tokens"] == second["prompt_tokens"] == 2_004
    assert first["prompt_tokens_details"]["cached_tokens"] == 0
    assert second["prompt_tokens_details"]["cached_tokens"] == 1_920
    usage = last_record().usage
    assert usage is not None and (usage["input"], usage["cache_read"]) == (84, 1_920)


async def test_reasoning_is_inside_the_completion(client: httpx.AsyncClient) -> None:
    events = await stream(client, PATH, ask("Hi [[sandbox: thinking=10; tokens=30]]", **WITH_USAGE))
    assert text_tokens(joined(events, "reasoning_content")) == 10
    usage = events[-2][1]["usage"]
    assert (usage["completion_tokens"], usage["completion_tokens_details"]["reasoning_tokens"]) == (30, 10)


def fragments(events: list[Event]) -> list[dict[str, Any]]:
    return [
        call
        for _, event in events
        if isinstance(event, dict) and event["choices"]
        for call in event["choices"][0]["delta"].get("tool_calls", ())
    ]


async def test_tool_fragments_interleave(client: httpx.AsyncClient) -> None:
    parts = fragments(
        await stream(client, PATH, ask("Hi [[sandbox: tool=one,two; interleaved_tools; delta=6]]", tools=TOOLS))
    )
    assert [part["index"] for part in parts][:4] == [0, 1, 0, 1]
    assert ["id" in part for part in parts] == [True, True] + [False] * (len(parts) - 2)
    for index in (0, 1):
        arguments = "".join(part["function"]["arguments"] for part in parts if part["index"] == index)
        assert orjson.loads(arguments) == {"a": "sandbox"}


async def test_tool_calls_that_are_odd(client: httpx.AsyncClient) -> None:
    events = await stream(client, PATH, ask("Hi [[sandbox: tool=one; finish=stop]]", tools=TOOLS))
    assert finish_reasons(events) == ["stop"] and fragments(events)
    empty = fragments(await stream(client, PATH, ask("Hi [[sandbox: tool=one; empty_arguments]]", tools=TOOLS)))
    assert [part["function"]["arguments"] for part in empty] == [""]
    cut = fragments(await stream(client, PATH, ask("Hi [[sandbox: tool=one; truncated_tool_json]]", tools=TOOLS)))
    assert "".join(part["function"]["arguments"] for part in cut) == '{"a":"s'
    odd = fragments(await stream(client, PATH, ask("Hi [[sandbox: tool=one; odd_tool_id]]", tools=TOOLS)))
    assert "λ" in odd[0]["id"]


async def test_forced_tool(client: httpx.AsyncClient) -> None:
    completion = (await client.post(PATH, json=ask("Hi", tools=TOOLS, tool_choice="required"))).json()
    [choice] = completion["choices"]
    assert (choice["finish_reason"], choice["message"]["content"]) == ("tool_calls", None)
    assert choice["message"]["tool_calls"][0]["function"] == {"name": "one", "arguments": '{"a":"sandbox"}'}


@pytest.mark.parametrize("finish", ["length", "content_filter"])
async def test_finish_reasons(client: httpx.AsyncClient, finish: str) -> None:
    assert finish_reasons(await stream(client, PATH, ask(f"Hi [[sandbox: finish={finish}]]"))) == [finish]


async def test_streams_that_end_badly(client: httpx.AsyncClient, last_record: LastRecord) -> None:
    events = await stream(client, PATH, ask("Hi [[sandbox: tokens=40; error=mid]]"))
    assert events[-1][1]["error"]["message"] == "Overloaded"
    assert last_record().delivered == "failed:error=mid"
    events = await stream(client, PATH, ask("Hi [[sandbox: no_done]]", **WITH_USAGE))
    assert events[-1][1]["usage"] and last_record().delivered == "failed:no_done"
    events = await stream(client, PATH, ask("Hi [[sandbox: finish=none]]"))
    assert finish_reasons(events) == [] and last_record().delivered == "failed:finish=none"


async def test_refusals_have_openai_form(client: httpx.AsyncClient) -> None:
    response = await client.post(PATH, json=ask(stop=["a", "b", "c", "d", "e"]))
    assert response.status_code == 400 and response.json()["error"]["type"] == "invalid_request_error"
    assert "type" not in response.json()
    client.headers.pop("anthropic-version")
    assert (await client.get("/v1/models")).json()["object"] == "list"
