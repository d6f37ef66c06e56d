"""What whole and streamed replies of Chat Completions have in common: texts, stop reasons, arguments. Pure."""

from collections.abc import Mapping
from typing import Any

from gateway.protocol.errors import UpstreamStreamError
from gateway.protocol.json import exact as exact_json

MAX_TOKENS, TOOL_USE, REFUSAL, END_TURN = "max_tokens", "tool_use", "refusal", "end_turn"
STOP_SEQUENCE = "stop_sequence"
STOP = "stop"
# What `finish_reason` says, in the words of OpenAI and of those who pass on other words than its own, in any case. Any
# other word is an end like `stop`.
CUT_OFF = ("length", "max_tokens", "max_output_tokens", "model_length", "model_context_window_exceeded")
FILTERED = ("content_filter", "safety", "sensitive", "recitation", "prohibited_content", "blocklist", "spii", "refusal")
# The parts of a content that are said to the reader, with the name of their text.
TEXT_PARTS = {"text": "text", "output_text": "text", "refusal": "refusal"}
FAILED = ("error", "network_error", "insufficient_system_resource", "abort")


def text_of(content: object) -> str:
    """Return the text of `content`: a string, null, a part, or a list of parts of which only what was said counts."""
    if isinstance(content, str):
        return content
    if isinstance(content, dict):
        name = TEXT_PARTS.get(str(content.get("type", "text")))
        return text_of(content.get(name)) if name else ""
    return "".join(text_of(part) for part in content if isinstance(part, str | dict)) if type(content) is list else ""


def choices_of(payload: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the choices of a reply or chunk; what is none says nothing."""
    choices = payload.get("choices")
    return [choice for choice in choices if isinstance(choice, dict)] if isinstance(choices, list) else []


def index_of(choice: Mapping[str, Any]) -> int:
    """Return the number of a choice, which is 0 unless it says so: one was asked for."""
    index = choice.get("index")
    return index if type(index) is int else 0


def choice_of(payload: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the one choice that was asked for, None where there is none: others would be another reply."""
    found = choices_of(payload)
    return next((choice for choice in found if index_of(choice) == 0), found[0] if found else None)


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


def calls_of(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the tool calls of a message or delta, or of its `function_call`, which was there before them and allows
    one. What is no call says nothing.
    """
    calls = message.get("tool_calls")
    if isinstance(calls, dict):
        calls = [calls]
    if isinstance(calls, list) and (found := [call for call in calls if isinstance(call, dict)]):
        return found
    call = message.get("function_call")
    return [{"index": 0, "function": call}] if isinstance(call, dict) else []


def arguments_text(value: object) -> str:
    """Return the arguments of a tool call, or a fragment of them, as text. Some providers send an object."""
    if isinstance(value, str):
        return value
    return "" if value is None else exact_json.encode(value).decode()


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
    """Return why the choice ended, in small letters; None where it has not.

    Google says more behind a colon: `content_filter: PROHIBITED_CONTENT`. What is no text says that it ended, no more.
    """
    value = choice.get("finish_reason")
    if not value:
        return None
    if not isinstance(value, str):
        return STOP
    return value.lower().partition(":")[0].strip()
