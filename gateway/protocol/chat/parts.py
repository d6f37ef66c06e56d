"""What whole and streamed replies of Chat Completions have in common: texts, stop reasons, arguments. Pure."""

from collections.abc import Mapping
from typing import Any

import orjson

from gateway.protocol.errors import UpstreamProtocolError, UpstreamStreamError
from gateway.protocol.json.depth import is_too_deep
from gateway.protocol.json.exact import decode_text
from gateway.protocol.json.structure import MAX_STRUCTURE, TooComplexError, check_structure

MAX_TOKENS, TOOL_USE, REFUSAL, END_TURN = "max_tokens", "tool_use", "refusal", "end_turn"
STOP_SEQUENCE = "stop_sequence"
# What `finish_reason` says, in the words of OpenAI and of those who pass on other words than its own, in any case. Any
# other word is an end like `stop`.
CUT_OFF = ("length", "max_tokens", "max_output_tokens", "model_length", "model_context_window_exceeded")
FILTERED = ("content_filter", "safety", "sensitive", "recitation", "prohibited_content", "blocklist", "spii", "refusal")
FAILED = ("error", "network_error", "insufficient_system_resource", "abort")


def text_of(content: object) -> str:
    """Return the text of `content`: a string, null, or a list of parts of which only text counts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    parts = [part for part in content if isinstance(part, dict) and part.get("type") == "text"]
    return "".join(part["text"] for part in parts if isinstance(part.get("text"), str))


def thinking_of(message: Mapping[str, Any]) -> str:
    """Return the reasoning of a message or delta: DeepSeek's name for it, or the one of vLLM, OpenRouter and Ollama; or
    parts of the content (Mistral).
    """
    for name in ("reasoning_content", "reasoning"):
        value = message.get(name)
        if isinstance(value, str) and value:
            return value
    content = message.get("content")
    if not isinstance(content, list):
        return ""
    return "".join(text_of(part.get("thinking")) for part in content if isinstance(part, dict))


def calls_of(message: Mapping[str, Any]) -> list[Any]:
    """Return the tool calls of a message or delta, or of its `function_call`, which was there before them and allows
    one. Raises UpstreamProtocolError.
    """
    calls = message.get("tool_calls")
    if not isinstance(calls, list | None):
        raise UpstreamProtocolError("tool_calls is not a list")
    if calls:
        return calls
    call = message.get("function_call")
    return [{"index": 0, "function": call}] if isinstance(call, dict) else []


def arguments_text(value: object) -> str:
    """Return the arguments of a tool call, or a fragment of them, as text. Some providers send an object."""
    if isinstance(value, str):
        return value
    return "" if value is None else orjson.dumps(value).decode()


def read_arguments(text: str) -> dict[str, Any] | None:
    """Return the object in a tool call's complete arguments, None when it is broken off or no object.

    Nothing and null mean {}. An object that was encoded twice is decoded twice.
    """
    if not text.strip():
        return {}
    try:
        value = _decode_arguments(text)
        if isinstance(value, str):
            value = _decode_arguments(value) if value.strip() else {}
    except (ValueError, RecursionError, TooComplexError):
        return None
    if value is None:
        return {}
    return value if isinstance(value, dict) and not is_too_deep(text.encode(), value) else None


def _decode_arguments(text: str) -> Any:
    if len(text) > MAX_STRUCTURE:
        check_structure(text.encode())
    return decode_text(text)


def require_no_error(payload: Mapping[str, Any], choice: Mapping[str, Any]) -> None:
    """Refuse a choice that the provider broke off (OpenRouter, DeepSeek, Zhipu, vLLM). Raises UpstreamStreamError."""
    reason = choice.get("finish_reason")
    if isinstance(reason, str) and reason.lower() in FAILED:
        raise UpstreamStreamError(
            f"finish_reason {reason.lower()}: {str(choice.get('error') or payload.get('error'))[:200]}"
        )


def map_stop_reason(
    finish_reason: str, choice: Mapping[str, Any], *, has_calls: bool, is_refused: bool, stop_sequences: list[str]
) -> tuple[str, str | None]:
    """Return `stop_reason` and `stop_sequence`. `stop` may be said although tools were called; calls win."""
    if finish_reason in CUT_OFF:
        return MAX_TOKENS, None
    if finish_reason in FILTERED or is_refused:
        return REFUSAL, None
    if has_calls:
        return TOOL_USE, None
    for name in ("stop_reason", "matched_stop"):  # vLLM and SGLang say which sequence it was; OpenAI does not.
        matched = choice.get(name)
        if isinstance(matched, str) and matched in stop_sequences:
            return STOP_SEQUENCE, matched
    return END_TURN, None


def finish_reason_of(choice: Mapping[str, Any]) -> str | None:
    """Return why the choice ended, in small letters; None where it has not. Raises UpstreamProtocolError."""
    value = choice.get("finish_reason")
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise UpstreamProtocolError("finish_reason is not a string")
    return value.lower()
