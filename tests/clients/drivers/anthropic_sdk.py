"""The official Python SDK, any version."""

from typing import Any

import anthropic
from loop import Answer, Job, serve

TOOL: Any = {
    "name": "get_weather",
    "description": "Get current weather for a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


def client(job: Job) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=job["base_url"], max_retries=0, **{job.get("auth", "api_key"): job["key"]})


def question(job: Job) -> dict[str, Any]:
    return {"model": job["model"], "max_tokens": 2048, "messages": [{"role": "user", "content": job["text"]}]}


def create(job: Job) -> Answer:
    return read(client(job).messages.create(**question(job)))


def stream(job: Job) -> Answer:
    pieces = []
    with client(job).messages.stream(**question(job)) as events:
        pieces.extend(events.text_stream)
        answer = read(events.get_final_message())
    assert answer["text"] == "".join(pieces)
    return {**answer, "pieces": len(pieces)}


def tools(job: Job) -> Answer:
    sdk, asked = client(job), question(job)
    call = sdk.messages.create(**asked, tools=[TOOL])
    [used] = [block for block in call.content if block.type == "tool_use"]
    asked["messages"] += [
        {"role": "assistant", "content": [block.model_dump(exclude_none=True) for block in call.content]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": used.id, "content": "sunny"}]},
    ]
    final = sdk.messages.create(**asked, tools=[TOOL])
    answer = read(final)
    answer["prompt_tokens"] += prompt_tokens(call)
    answer["output_tokens"] += call.usage.output_tokens
    return {**answer, "tool": {"name": used.name, "input": used.input, "stop_reason": call.stop_reason}}


def thinking(job: Job) -> Answer:
    pieces = []
    with client(job).messages.stream(**question(job), thinking={"type": "enabled", "budget_tokens": 1024}) as events:
        pieces.extend(event.thinking for event in events if event.type == "thinking")
        answer = read(events.get_final_message())
    assert answer["thinking"] == "".join(pieces)
    return answer


def read(reply: anthropic.types.Message) -> Answer:
    return {
        "id": reply.id,
        "model": reply.model,
        "text": "".join(block.text for block in reply.content if block.type == "text"),
        "thinking": "".join(block.thinking for block in reply.content if block.type == "thinking"),
        "stop_reason": reply.stop_reason,
        "prompt_tokens": prompt_tokens(reply),
        "output_tokens": reply.usage.output_tokens,
    }


def prompt_tokens(reply: anthropic.types.Message) -> int:
    usage = reply.usage
    return usage.input_tokens + (usage.cache_creation_input_tokens or 0) + (usage.cache_read_input_tokens or 0)


if __name__ == "__main__":
    serve({"create": create, "stream": stream, "tools": tools, "thinking": thinking})
