"""langchain-anthropic's chat model."""

from typing import Any

from langchain_anthropic import ChatAnthropic
from langchain_core.messages import AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.tools import tool
from loop import Answer, Job, serve


@tool
def get_weather(city: str) -> str:
    """Get current weather for a city."""
    return f"sunny in {city}"


def chat(job: Job, **options: Any) -> ChatAnthropic:
    return ChatAnthropic(
        model=job["model"],
        base_url=job["base_url"],
        api_key=job["key"],
        max_tokens=2048,
        max_retries=0,
        **options,
    )


def create(job: Job) -> Answer:
    return read(chat(job).invoke(job["text"]))


def stream(job: Job, **options: Any) -> Answer:
    chunks = list(chat(job, **options).stream(job["text"]))
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole = whole + chunk
    assert isinstance(whole, AIMessageChunk)
    return {**read(whole), "pieces": sum(1 for chunk in chunks if read_text(chunk))}


def tools(job: Job) -> Answer:
    bound = chat(job).bind_tools([get_weather])
    history: list[Any] = [HumanMessage(job["text"])]
    call = bound.invoke(history)
    [used] = call.tool_calls
    history += [call, ToolMessage(get_weather.invoke(used["args"]), tool_call_id=used["id"])]
    answer, first = read(bound.invoke(history)), read(call)
    answer["prompt_tokens"] += first["prompt_tokens"]
    answer["output_tokens"] += first["output_tokens"]
    return {**answer, "tool": {"name": used["name"], "input": used["args"], "stop_reason": first["stop_reason"]}}


def thinking(job: Job) -> Answer:
    return stream(job, thinking={"type": "enabled", "budget_tokens": 1024})


def read(message: Any) -> Answer:
    usage, metadata = message.usage_metadata, message.response_metadata
    blocks = message.content if isinstance(message.content, list) else []
    return {
        "id": message.id,
        "model": metadata.get("model_name") or metadata.get("model"),
        "text": read_text(message),
        "thinking": "".join(block.get("thinking", "") for block in blocks if isinstance(block, dict)),
        "stop_reason": metadata.get("stop_reason"),
        "prompt_tokens": usage["input_tokens"],
        "output_tokens": usage["output_tokens"],
    }


def read_text(message: Any) -> str:
    if isinstance(message.content, str):
        return message.content
    return "".join(block.get("text", "") for block in message.content if isinstance(block, dict))


if __name__ == "__main__":
    serve({"create": create, "stream": stream, "tools": tools, "thinking": thinking})
