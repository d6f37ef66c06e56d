"""What an upstream of the Messages protocol answers, rewritten for the client: whole replies, and counts. Pure.

Rewritten are the id, the model's name and the four counts of `usage`, which are always there and always integers, and
what is not of the type that clients take for granted (see reply_blocks); all else stays as it came.
"""

from collections.abc import Mapping
from typing import Any

from gateway.protocol.codec import DecodedMessage, ReplyIdentity
from gateway.protocol.errors import NoObjectError, TooMuchStructureError, UnusableReplyError, UpstreamProtocolError
from gateway.protocol.json.broken_text import load_json, load_odd, mend_all
from gateway.protocol.json.depth import MAX_DEPTH, is_too_deep
from gateway.protocol.json.structure import TooComplexError, check_structure
from gateway.protocol.messages.reply_blocks import mend_content, mend_usage, plain_stop_reason, text_or_none
from gateway.protocol.messages.usage import COUNT_FIELDS, MessagesUsageReader
from gateway.protocol.upstream_errors import read_stream_error
from gateway.protocol.usage_reading import MAX_USAGE_TOKENS, UsageReading, UsageState

TOO_DEEP = f"JSON nested more than {MAX_DEPTH} levels deep"
ODD = "JSON with numbers or characters that it cannot have"


def decode_message(body: bytes, identity: ReplyIdentity) -> DecodedMessage:
    """Return the reply in `body`. Raises UpstreamProtocolError when it is not a message."""
    try:
        message, is_mended = load_mended(body)
    except TooMuchStructureError as error:
        reading = _read_usage_only(error.value, len(body))
        if error.reason == ODD and reading.state is UsageState.UNUSABLE:
            raise UpstreamProtocolError(error.reason) from None  # What is odd is the upstream's own, not the model's.
        raise UnusableReplyError(error.reason, reading) from None
    _require_message(message, body)
    given = message.get("content")
    try:
        message["content"] = mend_content(given, identity.message_id.removeprefix("msg_"))
    except UpstreamProtocolError as error:
        raise UnusableReplyError(error.reason, _read_usage_only(message, len(body))) from None
    reader = MessagesUsageReader()
    reader.read_message(message)
    rewrite_message(message, identity)
    if message["stop_reason"] is None:
        message["stop_reason"] = plain_stop_reason(message["content"][-1]["type"] if message["content"] else None)
    is_as_it_came = not is_mended and message["content"] == given
    return DecodedMessage(message, reader.reading(), source=body if is_as_it_came else b"")


def _require_message(message: Mapping[str, Any], body: bytes) -> None:
    """Refuse what is no message. Of one that says so little else, content or the end of it must be there."""
    kind, content = message.get("type"), message.get("content")
    if kind == "error" or (message.get("error") and content is None):
        raise read_stream_error(body)
    is_message = kind == "message" or not isinstance(kind, str) or not kind
    has_ended = isinstance(message.get("usage"), dict) and isinstance(message.get("stop_reason"), str)
    if not is_message or not (isinstance(content, list | str) or has_ended):
        raise UpstreamProtocolError(f"a body of type {str(kind)[:40]!r} instead of a message")


def _read_usage_only(message: Mapping[str, Any], body_bytes: int) -> UsageReading:
    """Return the usage of a reply whose content cannot be walked; its whole body counts as what was written."""
    reader = MessagesUsageReader()
    reader.read_message({**message, "content": []})
    reader.delivered_bytes = body_bytes
    return reader.reading()


def rewrite_message(message: dict[str, Any], identity: ReplyIdentity) -> None:
    """Change `message` in place to what the client gets, adding the fields that SDKs read without asking."""
    message["id"] = identity.message_id
    message["model"] = identity.model_id
    message["type"], message["role"] = "message", "assistant"
    for name in ("stop_reason", "stop_sequence"):
        message[name] = text_or_none(message.get(name))
    usage = message.get("usage")
    message["usage"] = usage = dict(usage) if isinstance(usage, dict) else {}
    mend_usage(usage)
    for name in COUNT_FIELDS:
        count = usage.get(name)
        if type(count) is not int or not 0 <= count <= MAX_USAGE_TOKENS:
            usage[name] = 0


def decode_token_count(body: bytes) -> int:
    """Return `input_tokens` of a count_tokens answer. Raises UpstreamProtocolError."""
    count = load_object(body).get("input_tokens")
    if type(count) is not int or not 0 <= count <= MAX_USAGE_TOKENS:
        raise UpstreamProtocolError(f"a token count of {str(count)[:40]!r}")
    return count


def load_object(raw: bytes) -> dict[str, Any]:
    """Return the JSON object in `raw`, its texts mended. Raises UpstreamProtocolError."""
    return load_mended(raw)[0]


def load_mended(raw: bytes) -> tuple[dict[str, Any], bool]:
    """Return the JSON object in `raw` and whether its texts had to be mended. Raises UpstreamProtocolError."""
    value, may_hold_halves = load_event(raw)
    return (mend_all(value) if may_hold_halves else value), may_hold_halves


def load_event(raw: bytes) -> tuple[dict[str, Any], bool]:
    """Return the JSON object in `raw`, and whether its texts may hold halves of characters, whose other halves come in
    the next event. Raises UpstreamProtocolError.
    """
    try:
        check_structure(raw)
        value, may_hold_halves = load_json(raw)
    except TooComplexError as error:
        raise TooMuchStructureError(f"JSON with {error}", {}) from None
    except RecursionError:
        if not raw.lstrip().startswith(b"{"):
            raise NoObjectError("JSON, but no object") from None
        raise TooMuchStructureError(TOO_DEEP, {}) from None
    except ValueError as error:
        if isinstance(odd := load_odd(raw), dict) and not odd.get("error"):
            raise TooMuchStructureError(ODD, odd) from None
        raise UpstreamProtocolError(f"no JSON: {error}") from None
    if not isinstance(value, dict):
        if isinstance(value, list) and value and isinstance(value[0], dict) and value[0].get("error"):
            raise read_stream_error(raw)  # As Google writes it.
        raise NoObjectError("JSON, but no object")
    if is_too_deep(raw, value):
        raise TooMuchStructureError(TOO_DEEP, value)
    return value, may_hold_halves
