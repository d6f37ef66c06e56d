"""A whole reply of Chat Completions as a message. Pure."""

from collections.abc import Mapping
from typing import Any

from gateway.protocol.chat.names import CallIds, ToolNames
from gateway.protocol.chat.parts import (
    CUT_OFF,
    FILTERED,
    STOP,
    arguments_text,
    calls_of,
    choice_of,
    finish_reason_of,
    map_stop_reason,
    require_no_error,
    text_of,
    thinking_of,
)
from gateway.protocol.chat.usage import ChatUsageReader
from gateway.protocol.codec import DecodedMessage, ReplyIdentity
from gateway.protocol.errors import TooMuchStructureError, UnusableReplyError, UpstreamProtocolError
from gateway.protocol.json.arguments import read_arguments
from gateway.protocol.messages.response import load_object
from gateway.protocol.messages.usage import COUNT_FIELDS
from gateway.protocol.profile import UpstreamProfile
from gateway.protocol.upstream_errors import read_stream_error
from gateway.protocol.usage_reading import UsageReading


def decode_chat_reply(
    body: bytes, identity: ReplyIdentity, *, names: ToolNames, profile: UpstreamProfile, stop_sequences: list[str]
) -> DecodedMessage:
    """Return the reply in `body`.

    Raises UpstreamProtocolError when it is none, UnusableReplyError when the arguments of its calls are no objects.
    """
    try:
        payload = load_object(body)
    except TooMuchStructureError as error:
        raise UnusableReplyError(error.reason, _read_usage_only(error.value, profile, len(body))) from None
    if payload.get("error"):
        raise read_stream_error(body)
    reader = ChatUsageReader(profile)
    reader.read_id(payload.get("id"))
    reader.read_payload(payload)
    choice, reply = _find_reply(payload, reader)
    require_no_error(payload, choice)
    finish_reason = finish_reason_of(choice) or STOP
    refusal = text_of(reply.get("refusal"))
    content = _decode_texts(reply, refusal, reader)
    try:
        calls = _decode_calls(reply, identity, names, reader, is_truncated=finish_reason in CUT_OFF)
    except UpstreamProtocolError as error:
        reader.complete("")
        raise UnusableReplyError(error.reason, reader.reading()) from None
    stop_reason, stop_sequence = map_stop_reason(
        finish_reason, choice, has_calls=bool(calls), is_refused=bool(refusal), stop_sequences=stop_sequences
    )
    reader.complete(stop_reason)
    message = {
        "id": identity.message_id,
        "type": "message",
        "role": "assistant",
        "model": identity.model_id,
        "content": content + calls,
        "stop_reason": stop_reason,
        "stop_sequence": stop_sequence,
        "usage": dict(zip(COUNT_FIELDS, reader.counts(), strict=True)),
    }
    return DecodedMessage(message, reader.reading())


def _find_reply(payload: dict[str, Any], reader: ChatUsageReader) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the choice and its message, which may be empty. Raises UpstreamProtocolError when there is none.

    Filters of providers leave out the message (Google), or all choices, and charge for the prompt.
    """
    choice = choice_of(payload)
    reply = choice.get("message") if choice is not None else None
    if choice is not None and (isinstance(reply, dict) or finish_reason_of(choice) is not None):
        return choice, reply if isinstance(reply, dict) else {}
    if reader.has_usage:
        return {"finish_reason": FILTERED[0]}, {}
    raise UpstreamProtocolError("no choice with a message")


def _read_usage_only(payload: Mapping[str, Any], profile: UpstreamProfile, body_bytes: int) -> UsageReading:
    """Return the usage of a reply whose content cannot be walked; its whole body counts as what was written."""
    reader = ChatUsageReader(profile)
    reader.read_id(payload.get("id"))
    reader.read_payload(payload)
    reader.delivered_bytes = body_bytes
    reader.complete("")
    return reader.reading()


def _decode_texts(reply: dict[str, Any], refusal: str, reader: ChatUsageReader) -> list[dict[str, Any]]:
    thinking, text = thinking_of(reply), text_of(reply.get("content")) or refusal
    reader.add_thinking(thinking)
    reader.add_text(text)
    blocks: list[dict[str, Any]] = []
    if thinking:
        blocks.append({"type": "thinking", "thinking": thinking, "signature": ""})
    if text:
        blocks.append({"type": "text", "text": text})
    return blocks


def _decode_calls(
    reply: dict[str, Any], identity: ReplyIdentity, names: ToolNames, reader: ChatUsageReader, *, is_truncated: bool
) -> list[dict[str, Any]]:
    """Return the tool_use blocks. Arguments cut off by the token limit become {}: part of them must not look whole."""
    ids = CallIds(identity.message_id)
    blocks: list[dict[str, Any]] = []
    for call in calls_of(reply):
        function = call.get("function")
        function = function if isinstance(function, dict) else {}
        name = function.get("name")
        if not isinstance(name, str) or not name:
            raise UpstreamProtocolError("a tool call without a function's name")
        text = arguments_text(function.get("arguments"))
        reader.add_text(text)
        arguments = read_arguments(text)
        if arguments is None:
            if not is_truncated:
                raise UpstreamProtocolError("a tool call whose arguments are not a JSON object")
            arguments = {}
        blocks.append(
            {"type": "tool_use", "id": ids.accept(call.get("id")), "name": names.restore(name), "input": arguments}
        )
    return blocks
