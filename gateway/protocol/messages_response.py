"""What an upstream of the Messages protocol answers, rewritten for the client: whole replies, and counts. Pure.

Rewritten are the id, the model's name and the four counts of `usage`, which are always there and always integers; all
else stays as it came.
"""

from typing import Any

import orjson

from gateway.protocol.codec import DecodedMessage, ReplyIdentity
from gateway.protocol.errors import UpstreamProtocolError
from gateway.protocol.json_depth import MAX_DEPTH, is_too_deep
from gateway.protocol.json_structure import TooComplexError, check_structure
from gateway.protocol.messages_usage import COUNT_FIELDS, MessagesUsageReader
from gateway.protocol.reading import MAX_USAGE_TOKENS


def decode_message(body: bytes, identity: ReplyIdentity) -> DecodedMessage:
    """Return the reply in `body`. Raises UpstreamProtocolError when it is no message."""
    message = load_object(body)
    if message.get("type") != "message" or not isinstance(message.get("content"), list):
        raise UpstreamProtocolError(f"a body of type {str(message.get('type'))[:40]!r} instead of a message")
    reader = MessagesUsageReader()
    reader.read_message(message)
    rewrite_message(message, identity)
    return DecodedMessage(message, reader.reading(), source=body)


def rewrite_message(message: dict[str, Any], identity: ReplyIdentity) -> None:
    """Change `message` in place to what the client gets, adding the fields that SDKs read without asking."""
    message["id"] = identity.message_id
    message["model"] = identity.model_id
    message.setdefault("role", "assistant")
    message.setdefault("stop_reason", None)
    message.setdefault("stop_sequence", None)
    usage = message.get("usage")
    message["usage"] = usage = dict(usage) if isinstance(usage, dict) else {}
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
    """Return the JSON object in `raw`. Raises UpstreamProtocolError."""
    try:
        check_structure(raw)
        value = orjson.loads(raw)
    except TooComplexError as error:
        raise UpstreamProtocolError(f"JSON with {error}", is_upstream_fault=False) from None
    except orjson.JSONDecodeError as error:
        raise UpstreamProtocolError(f"no JSON: {error}") from None
    if not isinstance(value, dict):
        raise UpstreamProtocolError("JSON, but no object")
    if is_too_deep(raw, value):
        raise UpstreamProtocolError(f"JSON nested more than {MAX_DEPTH} levels deep")
    return value
