"""pydantic-ai's agent on its Anthropic model."""

import asyncio
from typing import Any

from anthropic import AsyncAnthropic
from loop import Answer, Job, serve
from pydantic_ai import Agent
from pydantic_ai.messages import ModelResponse, TextPart, ThinkingPart, ToolCallPart
from pydantic_ai.models.anthropic import AnthropicModel, AnthropicModelSettings
from pydantic_ai.providers.anthropic import AnthropicProvider

# One event loop for all jobs: the client keeps connections of its last loop.
RUNNER = asyncio.Runner()


def agent(job: Job, **settings: Any) -> Agent[None, str]:
    client = AsyncAnthropic(base_url=job["base_url"], api_key=job["key"], max_retries=0)
    model = AnthropicModel(job["model"], provider=AnthropicProvider(anthropic_client=client))
    return Agent(model, model_settings=AnthropicModelSettings(max_tokens=2048, **settings))


def create(job: Job) -> Answer:
    return read(RUNNER.run(agent(job).run(job["text"])))


def stream(job: Job, **settings: Any) -> Answer:
    async def run() -> Answer:
        async with agent(job, **settings).run_stream(job["text"]) as result:
            pieces = [piece async for piece in result.stream_text(delta=True, debounce_by=None)]
            answer = read(result)
        assert answer["text"] == "".join(pieces)
        return {**answer, "pieces": len(pieces)}

    return RUNNER.run(run())


def tools(job: Job) -> Answer:
    asking = agent(job)

    @asking.tool_plain
    def get_weather(city: str) -> str:
        """Get current weather for a city."""
        return f"sunny in {city}"

    result = RUNNER.run(asking.run(job["text"]))
    first = responses(result)[0]
    [used] = [part for part in first.parts if isinstance(part, ToolCallPart)]
    reason = stop_reason(first)
    return {**read(result), "tool": {"name": used.tool_name, "input": used.args_as_dict(), "stop_reason": reason}}


def thinking(job: Job) -> Answer:
    return stream(job, anthropic_thinking={"type": "enabled", "budget_tokens": 1024})


def read(result: Any) -> Answer:
    usage, last = result.usage, responses(result)[-1]
    return {
        "id": last.provider_response_id,
        "model": last.model_name,
        "text": "".join(part.content for part in last.parts if isinstance(part, TextPart)),
        "thinking": "".join(part.content for part in last.parts if isinstance(part, ThinkingPart)),
        "stop_reason": stop_reason(last),
        "prompt_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
    }


def responses(result: Any) -> list[ModelResponse]:
    return [message for message in result.all_messages() if isinstance(message, ModelResponse)]


def stop_reason(response: ModelResponse) -> str | None:
    details = response.provider_details or {}
    return details.get("finish_reason")


if __name__ == "__main__":
    serve({"create": create, "stream": stream, "tools": tools, "thinking": thinking})
