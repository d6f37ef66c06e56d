"""A stream where a whole reply was asked for, as servers and proxies send it that do not heed `stream`. Pure.

The work is done and its provider charges for it, so the client gets the reply that it asked for.
"""

from typing import Any

import orjson

from gateway.protocol.codec import DecodedMessage, StreamDecoder
from gateway.protocol.errors import UnusableReplyError, UpstreamProtocolError
from gateway.protocol.json.arguments import read_arguments
from gateway.protocol.sse import BYTE_ORDER_MARK, SseParser

STREAM_STARTS = (b"data:", b"event:", b"id:", b"retry:", b":")
START_BYTES = 64
# What events of ours add around what came: no event is longer than all that came and this.
FRAMING_BYTES = 1024 * 1024


def is_streamed(body: bytes) -> bool:
    """True when the body of a reply is a stream of events."""
    return body[:START_BYTES].removeprefix(BYTE_ORDER_MARK).lstrip().startswith(STREAM_STARTS)


def gather_stream(decoder: StreamDecoder, body: bytes) -> DecodedMessage:
    """Return the message that the stream in `body` says.

    Raises UpstreamProtocolError when it says none, UnusableReplyError when it is to be billed and cannot be delivered.
    """
    first, last = decoder.feed(body), decoder.flush()
    failure, end = first.failure or last.failure, first.end or last.end
    if failure is not None and not failure.is_upstream_fault:
        raise UnusableReplyError(failure.reason, decoder.reading())
    if failure is not None or end is None:
        raise failure or UpstreamProtocolError("a stream without an end")
    message: dict[str, Any] = {}
    arguments: dict[int, list[str]] = {}
    for event in SseParser(max_event_bytes=len(body) + FRAMING_BYTES).feed(first.forward + last.forward):
        payload = orjson.loads(event.data)
        if event.event == "message_start":
            message = payload["message"]
        elif event.event == "content_block_start":
            message["content"].append(payload["content_block"])
        elif event.event == "content_block_delta":
            pieces = arguments.setdefault(payload["index"], [])
            _add_delta(message["content"][payload["index"]], payload["delta"], pieces)
    message |= end.message_delta["delta"]
    message["usage"] = {**message.get("usage", {}), **end.message_delta["usage"]}
    for index, pieces in arguments.items():
        if pieces:
            value = read_arguments("".join(pieces))
            if value is None and message.get("stop_reason") != "max_tokens":
                raise UnusableReplyError("a tool call whose arguments are not a JSON object", decoder.reading())
            message["content"][index]["input"] = value or {}
    return DecodedMessage(message, decoder.reading())


def _add_delta(block: dict[str, Any], delta: dict[str, Any], arguments: list[str]) -> None:
    """Add a piece to its block; pieces of a call's input go to `arguments`. What is no piece of text is set."""
    for name, value in delta.items():
        if name == "partial_json":
            arguments.append(str(value))
        elif name == "citation":
            block["citations"] = [*(block.get("citations") or ()), value]
        elif name != "type":
            before = block.get(name)
            block[name] = before + value if isinstance(before, str) and isinstance(value, str) else value
