"""The Messages protocol: what its requests ask, and how its replies look, whole and streamed. Pure."""

from collections.abc import Iterable, Iterator
from typing import Any

import orjson

from sandbox.directives import Directives
from sandbox.pieces import Piece, PieceKind
from sandbox.replies import DEFAULT_THINKING_TOKENS, Asked, Reply, ToolCall, split_deltas
from sandbox.usage import PLACEHOLDER_OUTPUT_TOKENS, Usage

VERSION_WITHOUT_SAMPLING = "2026-10-21"
"""Anthropic answers 400 to SAMPLING_FIELDS under this `anthropic-version`."""
SAMPLING_FIELDS = ("temperature", "top_p", "top_k")
ROLES = ("user", "assistant", "system")
FALLING_INDEX_START = 7
SIGNATURE = "c2FuZGJveC1zaWduYXR1cmU="

STOP_REASON_BY_FINISH = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
    "none": None,
}


class RequestError(ValueError):
    """A request that the provider would refuse with 400; the text is its message."""


def check_request(body: Any, *, version: str | None, with_max_tokens: bool = True) -> None:
    """Refuse what Anthropic refuses, in its words where clients read them. Raises RequestError."""
    if version is None:
        raise RequestError("anthropic-version: header is required")
    if not isinstance(body, dict):
        raise RequestError("body: Input should be a valid dictionary")
    for name in ("model", "messages", "max_tokens") if with_max_tokens else ("model", "messages"):
        if name not in body:
            raise RequestError(f"{name}: Field required")
    if not isinstance(body["model"], str):
        raise RequestError("model: Input should be a valid string")
    max_tokens = body.get("max_tokens", 1)
    if not isinstance(max_tokens, int) or isinstance(max_tokens, bool) or max_tokens < 1:
        raise RequestError("max_tokens: Input should be greater than or equal to 1")
    if version == VERSION_WITHOUT_SAMPLING:
        for name in SAMPLING_FIELDS:
            if name in body:
                raise RequestError(f"{name}: Extra inputs are not permitted")
    _check_messages(body["messages"])


def _check_messages(messages: Any) -> None:
    if not isinstance(messages, list) or not messages:
        raise RequestError("messages: at least one message is required")
    for index, message in enumerate(messages):
        if not isinstance(message, dict):
            raise RequestError(f"messages.{index}: Input should be a valid dictionary")
        if message.get("role") not in ROLES:
            raise RequestError(f"messages.{index}.role: Input should be 'user' or 'assistant'")
        if not isinstance(message.get("content"), str | list):
            raise RequestError(f"messages.{index}.content: Input should be a valid list")


def last_user_text(messages: list[Any]) -> str:
    """The text of the last message, if a user wrote it; tool results are no text of the user's."""
    for message in reversed(messages):
        if message["role"] == "system":
            continue
        if message["role"] != "user":
            return ""
        content = message["content"]
        if isinstance(content, str):
            return content
        return "\n".join(
            str(block["text"])
            for block in content or ()
            if isinstance(block, dict) and isinstance(block.get("text"), str)
        )
    return ""


def read_request(body: dict[str, Any], user_text: str) -> Asked:
    """What a checked request asks of the reply."""
    asked = Asked(user_text, max_tokens=body.get("max_tokens", 1), stop_sequences=body.get("stop_sequences") or [])
    thinking = body.get("thinking")
    if isinstance(thinking, dict) and thinking.get("type") in ("enabled", "adaptive"):
        asked.thinking_tokens = min(DEFAULT_THINKING_TOKENS, thinking.get("budget_tokens", DEFAULT_THINKING_TOKENS))
        asked.hide_thinking = thinking.get("display") == "omitted"
    tools = body.get("tools")
    if tools:
        _read_tools(asked, tools, body.get("tool_choice"))
    output_config = body.get("output_config")
    if isinstance(output_config, dict) and isinstance(output_config.get("format"), dict):
        asked.answer_schema = output_config["format"].get("schema")
    return asked


def _read_tools(asked: Asked, tools: list[Any], choice: Any) -> None:
    for tool in tools:
        if not isinstance(tool, dict):
            continue
        if str(tool.get("type", "")).startswith("web_search_"):
            asked.web_searches = min(1, int(tool.get("max_uses", 1)))
        elif "input_schema" in tool:
            asked.schema_by_tool[str(tool.get("name"))] = tool["input_schema"]
    if isinstance(choice, dict) and choice.get("type") == "tool":
        asked.forced_tool = str(choice.get("name"))
    elif isinstance(choice, dict) and choice.get("type") == "any":
        asked.forced_tool = next(iter(asked.schema_by_tool), None)


def usage_fields(usage: Usage) -> dict[str, Any]:
    """The `usage` object of a whole reply and of message_start."""
    fields: dict[str, Any] = {
        "input_tokens": usage.input,
        "cache_creation_input_tokens": usage.cache_write,
        "cache_read_input_tokens": usage.cache_read,
        "output_tokens": usage.output,
        "service_tier": "standard",
    }
    if usage.split:
        fields["cache_creation"] = {
            "ephemeral_5m_input_tokens": usage.cache_write_5m,
            "ephemeral_1h_input_tokens": usage.cache_write_1h,
        }
    if usage.web_searches:
        fields["server_tool_use"] = {"web_search_requests": usage.web_searches}
    return fields


def delta_usage_fields(usage: Usage, directives: Directives) -> dict[str, Any]:
    """The cumulative `usage` of message_delta: as at Anthropic, without the split by lifetime."""
    if "output_only_delta" in directives:
        return {"output_tokens": usage.output}
    fields: dict[str, Any] = {
        "input_tokens": usage.input,
        "cache_creation_input_tokens": usage.cache_write,
        "cache_read_input_tokens": usage.cache_read,
        "output_tokens": usage.output,
    }
    if usage.web_searches:
        fields["server_tool_use"] = {"web_search_requests": usage.web_searches}
    return fields


def _message(model: str, message_id: str, content: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": message_id,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        "stop_reason": None,
        "stop_sequence": None,
    }


def _stop_reason(reply: Reply) -> str | None:
    return "stop_sequence" if reply.stop_sequence is not None else STOP_REASON_BY_FINISH[reply.finish]


def _search_blocks(number: int) -> list[dict[str, Any]]:
    call_id = f"srvtoolu_sandbox{number}"
    result = {
        "type": "web_search_result",
        "url": "https://sandbox.invalid/",
        "title": "A page that the sandbox made up",
        "encrypted_content": "c2FuZGJveA==",
        "page_age": None,
    }
    return [
        {"type": "server_tool_use", "id": call_id, "name": "web_search", "input": {"query": "sandbox"}},
        {"type": "web_search_tool_result", "tool_use_id": call_id, "content": [result]},
    ]


def _tool_id(call: ToolCall) -> str:
    return f"toolu_{call.id}"


def body(reply: Reply, usage: Usage | None, *, model: str, message_id: str) -> bytes:
    """The whole reply."""
    content: list[dict[str, Any]] = []
    if reply.thinking is not None:
        shown = "" if reply.hide_thinking else reply.thinking
        content.append({"type": "thinking", "thinking": shown, "signature": SIGNATURE})
    for number in range(reply.web_searches):
        content.extend(_search_blocks(number))
    if reply.text:
        content.append({"type": "text", "text": reply.text})
    content.extend(
        {"type": "tool_use", "id": _tool_id(call), "name": call.name, "input": _parsed(call.arguments)}
        for call in reply.tool_calls
    )
    message = _message(model, message_id, content)
    message["stop_reason"] = _stop_reason(reply)
    message["stop_sequence"] = reply.stop_sequence
    if usage is not None:
        message["usage"] = usage_fields(usage)
    return orjson.dumps(message)


def _parsed(arguments: str) -> Any:
    """A whole reply holds parsed input, so broken arguments become what is left of them: nothing."""
    try:
        return orjson.loads(arguments)
    except orjson.JSONDecodeError:
        return {}


def events(
    reply: Reply, usage: Usage | None, directives: Directives, *, model: str, message_id: str
) -> Iterator[Piece]:
    """The reply as the events of a stream, in Anthropic's order."""
    start = _message(model, message_id, [])
    started: Usage | None = None
    if usage is not None:
        started = _at_start(usage)
        start["usage"] = usage_fields(started)
    yield _piece("message_start", {"message": start}, usage=started)
    for count, (block, deltas) in enumerate(_streamed_blocks(reply)):
        index = FALLING_INDEX_START - count if "out_of_order_index" in directives else count
        yield _piece("content_block_start", {"index": index, "content_block": block})
        if count == 0:
            yield _piece("ping", {})
        prefix = b'{"type":"content_block_delta","index":%d,"delta":' % index
        for delta, chars in deltas:
            yield Piece(prefix + delta + b"}", "content_block_delta", PieceKind.DELTA, chars)
        yield _piece("content_block_stop", {"index": index})
    ending: dict[str, Any] = {"delta": {"stop_reason": _stop_reason(reply), "stop_sequence": reply.stop_sequence}}
    if usage is not None:
        ending["usage"] = delta_usage_fields(usage, directives)
    if "duplicate_delta" in directives:
        yield _piece("message_delta", ending, usage=usage)
    yield _piece("message_delta", ending, usage=usage)
    if "no_message_stop" not in directives:
        yield _piece("message_stop", {})


def _at_start(usage: Usage) -> Usage:
    """Anthropic's message_start knows the whole input, and of the output only a placeholder."""
    return Usage(
        input=usage.input,
        output=PLACEHOLDER_OUTPUT_TOKENS if usage.output > 0 else usage.output,
        cache_write_5m=usage.cache_write_5m,
        cache_write_1h=usage.cache_write_1h,
        cache_read=usage.cache_read,
        split=usage.split,
    )


def _piece(event: str, fields: dict[str, Any], *, usage: Usage | None = None) -> Piece:
    return Piece(orjson.dumps({"type": event, **fields}), event, PieceKind.OTHER, 0, usage)


def _streamed_blocks(reply: Reply) -> Iterator[tuple[dict[str, Any], Iterable[tuple[bytes, int]]]]:
    """Each block as it starts, and its deltas with the characters of text that each carries.

    Deltas are made one by one: a flood must not stand in memory as events.
    """
    if reply.thinking is not None:
        shown = "" if reply.hide_thinking else reply.thinking
        deltas = [_delta("thinking_delta", "thinking", part) for part in split_deltas(shown, reply.delta_chars)]
        deltas.append(_delta("signature_delta", "signature", SIGNATURE, counted=False))
        yield {"type": "thinking", "thinking": "", "signature": ""}, deltas
    for number in range(reply.web_searches):
        call, result = _search_blocks(number)
        query = orjson.dumps(call["input"]).decode()
        yield {**call, "input": {}}, [_delta("input_json_delta", "partial_json", query, counted=False)]
        yield result, []
    if reply.text:
        yield {"type": "text", "text": ""}, (_delta("text_delta", "text", part) for part in reply.text_deltas())
    for tool_call in reply.tool_calls:
        block = {"type": "tool_use", "id": _tool_id(tool_call), "name": tool_call.name, "input": {}}
        parts = ["", *split_deltas(tool_call.arguments, reply.delta_chars)]
        yield block, [_delta("input_json_delta", "partial_json", part) for part in parts]


def _delta(kind: str, name: str, text: str, *, counted: bool = True) -> tuple[bytes, int]:
    encoded = b'{"type":"%b","%b":%b}' % (kind.encode(), name.encode(), orjson.dumps(text))
    return encoded, len(text) if counted else 0
