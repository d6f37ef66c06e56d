"""litellm as a library: OpenAI's types outside, the Messages protocol to us."""

import json
from typing import Any

import litellm
from loop import Answer, Job, serve

TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get current weather for a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def ask(job: Job, messages: list[Any] | None = None, **options: Any) -> Any:
    return litellm.completion(
        model=job["model"],
        api_base=job["base_url"],
        api_key=job["key"],
        messages=messages or [{"role": "user", "content": job["text"]}],
        max_tokens=2048,
        num_retries=0,
        **options,
    )


def create(job: Job) -> Answer:
    return read(ask(job))


def stream(job: Job, **options: Any) -> Answer:
    chunks = list(ask(job, stream=True, stream_options={"include_usage": True}, **options))
    whole = litellm.stream_chunk_builder(chunks)
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    answer = read(whole)
    assert answer["text"] == "".join(pieces)
    return {**answer, "pieces": len(pieces)}


def tools(job: Job) -> Answer:
    call = ask(job, tools=[TOOL])
    message = call.choices[0].message
    [used] = message.tool_calls
    history = [
        {"role": "user", "content": job["text"]},
        message.model_dump(),
        {"role": "tool", "tool_call_id": used.id, "content": "sunny"},
    ]
    answer, first = read(ask(job, history, tools=[TOOL])), read(call)
    answer["prompt_tokens"] += first["prompt_tokens"]
    answer["output_tokens"] += first["output_tokens"]
    given = json.loads(used.function.arguments)
    return {**answer, "tool": {"name": used.function.name, "input": given, "stop_reason": first["stop_reason"]}}


def thinking(job: Job) -> Answer:
    return stream(job, thinking={"type": "enabled", "budget_tokens": 1024})


def read(reply: Any) -> Answer:
    message = reply.choices[0].message
    return {
        "id": reply.id,
        "model": reply.model,
        "text": message.content or "",
        "thinking": getattr(message, "reasoning_content", None) or "",
        "stop_reason": {"stop": "end_turn", "tool_calls": "tool_use", "length": "max_tokens"}[
            reply.choices[0].finish_reason
        ],
        "prompt_tokens": reply.usage.prompt_tokens,
        "output_tokens": reply.usage.completion_tokens,
    }


if __name__ == "__main__":
    serve({"create": create, "stream": stream, "tools": tools, "thinking": thinking})
