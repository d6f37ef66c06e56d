"""The Chat Completions protocol: what its requests ask, and how its replies look, whole and streamed. Pure."""

from collections.abc import Iterator
from typing import Any

import orjson

from sandbox.directives import Directives
from sandbox.messages_protocol import RequestError
from sandbox.pieces import Piece, PieceKind
from sandbox.replies import DEFAULT_THINKING_TOKENS, Asked, Reply, ToolCall, split_deltas
from sandbox.usage import Usage

CREATED = 1_767_225_600
"""Replies are the same for the same request, so their date is as well."""
MAX_STOP_SEQUENCES = 4
ROLES = ("system", "developer", "user", "assistant", "tool")


def check_request(body: Any) -> None:
    """Refuse what OpenAI refuses. Raises RequestError."""
    if not isinstance(body, dict):
        raise RequestError("We could not parse the JSON body of your request.")
    if not isinstance(body.get("model"), str):
        raise RequestError("you must provide a model parameter")
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise RequestError("Missing required parameter: 'messages'.")
    for index, message in enumerate(messages):
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            raise RequestError(f"Invalid value for 'messages[{index}].role'.")
        if not isinstance(message.get("content"), str | list | None):
            raise RequestError(f"Invalid type for 'messages[{index}].content'.")
    stop = body.get("stop")
    if isinstance(stop, list) and len(stop) > MAX_STOP_SEQUENCES:
        raise RequestError(f"Invalid 'stop': array too long. Expected at most {MAX_STOP_SEQUENCES} elements.")
    if "cache_control" in body or "top_k" in body:
        raise RequestError("Unknown parameter: 'cache_control' or 'top_k'.")


def read_request(body: dict[str, Any], user_text: str) -> Asked:
    """What a checked request asks of the reply."""
    asked = Asked(user_text)
    limit = body.get("max_completion_tokens", body.get("max_tokens"))
    if limit is not None:
        asked.max_tokens = int(limit)
    stop = body.get("stop")
    asked.stop_sequences = [stop] if isinstance(stop, str) else stop or []
    if body.get("reasoning_effort") not in (None, "none"):
        asked.thinking_tokens = DEFAULT_THINKING_TOKENS
    for tool in body.get("tools") or ():
        asked.schema_by_tool[str(tool["function"]["name"])] = tool["function"].get("parameters")
    choice = body.get("tool_choice")
    if choice == "required":
        asked.forced_tool = next(iter(asked.schema_by_tool), None)
    elif isinstance(choice, dict):
        asked.forced_tool = str(choice["function"]["name"])
    response_format = body.get("response_format")
    if isinstance(response_format, dict) and response_format.get("type") == "json_schema":
        asked.answer_schema = response_format["json_schema"].get("schema")
    return asked


def usage_place(body: dict[str, Any], directives: Directives) -> str:
    """Where a stream reports its usage: late, last or never."""
    directed = directives.word("usage")
    if directed is not None:
        return directed
    options = body.get("stream_options")
    return "late" if isinstance(options, dict) and options.get("include_usage") else "never"


def usage_fields(usage: Usage, directives: Directives) -> dict[str, Any]:
    """Cached tokens are part of the prompt, and reasoning is part of the completion."""
    prompt = usage.input + usage.cache_read + usage.cache_write
    null_details = "null_details" in directives
    return {
        "prompt_tokens": prompt,
        "completion_tokens": usage.output,
        "total_tokens": prompt + usage.output,
        "prompt_tokens_details": None if null_details else {"cached_tokens": usage.cache_read, "audio_tokens": 0},
        "completion_tokens_details": None if null_details else {"reasoning_tokens": usage.reasoning, "audio_tokens": 0},
    }


def body(reply: Reply, usage: Usage | None, directives: Directives, *, model: str, completion_id: str) -> bytes:
    """The whole reply."""
    message: dict[str, Any] = {"role": "assistant", "content": reply.text or None, "refusal": None}
    if reply.thinking is not None:
        message["reasoning_content"] = reply.thinking
    if reply.tool_calls:
        message["tool_calls"] = [_tool_call(call, call.arguments) for call in reply.tool_calls]
    finish = None if reply.finish == "none" else reply.finish
    completion: dict[str, Any] = {
        "id": completion_id,
        "object": "chat.completion",
        "created": CREATED,
        "model": model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish}],
    }
    if usage is not None:
        completion["usage"] = usage_fields(usage, directives)
    return orjson.dumps(completion)


def chunks(
    reply: Reply, usage: Usage | None, directives: Directives, *, model: str, completion_id: str, usage_place: str
) -> Iterator[Piece]:
    """The reply as the chunks of a stream."""
    envelope = {"id": completion_id, "object": "chat.completion.chunk", "created": CREATED, "model": model}
    prefix = orjson.dumps(envelope)[:-1] + b',"choices":'

    def delta_piece(delta: dict[str, Any], chars: int) -> Piece:
        choice = {"index": 0, "delta": delta, "finish_reason": None}
        kind = PieceKind.DELTA if chars else PieceKind.OTHER
        return Piece(prefix + orjson.dumps([choice]) + b"}", None, kind, chars)

    yield delta_piece({"role": "assistant", "content": ""}, 0)
    for part in split_deltas(reply.thinking or "", reply.delta_chars):
        yield delta_piece({"reasoning_content": part}, len(part))
    for part in reply.text_deltas():
        yield delta_piece({"content": part}, len(part))
    for fragment, chars in _tool_fragments(reply, interleaved="interleaved_tools" in directives):
        yield delta_piece({"tool_calls": [fragment]}, chars)
    reported = usage if usage_place != "never" else None
    tail = b"" if reported is None else b',"usage":' + orjson.dumps(usage_fields(reported, directives))
    if reply.finish != "none":
        last = [{"index": 0, "delta": {}, "finish_reason": reply.finish}]
        inside = usage_place == "last"
        yield Piece(
            prefix + orjson.dumps(last) + (tail if inside else b"") + b"}", None, usage=reported if inside else None
        )
    if reported is not None and usage_place == "late":
        yield Piece(prefix + b"[]" + tail + b"}", None, usage=reported)
    if "no_done" not in directives:
        yield Piece(b"[DONE]", None)


def _tool_call(call: ToolCall, arguments: str) -> dict[str, Any]:
    return {"id": f"call_{call.id}", "type": "function", "function": {"name": call.name, "arguments": arguments}}


def _tool_fragments(reply: Reply, *, interleaved: bool) -> Iterator[tuple[dict[str, Any], int]]:
    """Id and name come with a call's first fragment only; interleaved, the calls take turns."""
    fragments_by_call = [
        [({"index": index, **_tool_call(call, "")}, 0)]
        + [
            ({"index": index, "function": {"arguments": part}}, len(part))
            for part in split_deltas(call.arguments, max(1, reply.delta_chars // 2))
        ]
        for index, call in enumerate(reply.tool_calls)
    ]
    if not interleaved:
        for fragments in fragments_by_call:
            yield from fragments
        return
    for turn in range(max((len(fragments) for fragments in fragments_by_call), default=0)):
        for fragments in fragments_by_call:
            if turn < len(fragments):
                yield fragments[turn]
