"""The body of `POST /v1/messages`: parsed, checked at the edge, rendered for an upstream that speaks Messages. Pure.

Checked is what the reference names; what it does not name passes unchanged. The texts are Anthropic's.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Any, NamedTuple

import orjson

from gateway.protocol.errors import InvalidRequestError
from gateway.protocol.json.depth import MAX_DEPTH, is_too_deep
from gateway.protocol.json.exact import decode_exactly, encode, may_be_rounded
from gateway.protocol.json.structure import MAX_EXACT_BYTES, TooComplexError, check_structure
from gateway.protocol.messages.attribution import read_user_id
from gateway.protocol.messages.content_blocks import BlockCounts, check_content
from gateway.protocol.messages.guarded_fields import check_guarded_fields
from gateway.protocol.messages.tools import check_added_tools, check_tool_choice, check_tools, with_schemas
from gateway.protocol.messages.validation import (
    ROLE_TEXT,
    refuse,
    refuse_missing,
    refuse_tag,
    require_boolean,
    require_fraction,
    require_integer,
    require_list,
    require_object,
    require_text,
)

MAX_MODEL_CHARS = 256
MAX_MESSAGES = 100_000
MAX_SYSTEM_BLOCKS = 10_000
MAX_TOKENS_CEILING = 100_000_000
MAX_TOP_K = 1_000_000_000
MAX_STOP_SEQUENCES = 8_191
MAX_STOP_SEQUENCE_CHARS = 10_000
MAX_USER_ID_CHARS = 4_096
MIN_THINKING_TOKENS = 1_024
MAX_FINGERPRINT_BLOCKS = 256  # Of the system and of the first message: what begins alike is taken for one conversation.
THINKING_TYPES = ("adaptive", "between_tools", "disabled", "enabled")
FIELDS_FOR_REPLY = ("stop_sequences", "tools")
# Claude Code's first system block: it differs in every request of one conversation and means nothing to a model.
BILLING_HEADER_PREFIX = "x-anthropic-billing-header:"
# The escaped forms of printable ASCII, behind which a key could hide from a search of the raw bytes.
# One pattern: a search for each of them by itself begins anew at each escape, which took six times as long.
ASCII_ESCAPE = re.compile(rb"\\u00[2-7]")


class MessagesRequest(NamedTuple):
    """A checked request. `body` is the parsed JSON and must not be changed; sizes are in bytes of `raw`."""

    body: dict[str, Any]
    raw: bytes  # What `body` was read from.
    model: str
    max_tokens: int  # 0 only warms a prompt cache; it is 0 for count_tokens too, which has none.
    is_streamed: bool
    end_user: str
    session: str
    image_count: int
    image_data_bytes: int
    image_path: str | None
    document_path: str | None
    system_message_index: int | None  # The first message with role `system`.
    thinking_type: str | None
    server_tools: list[tuple[int, str]]  # Place in `tools` and type.
    provider_tools: list[tuple[str, dict[str, Any]]]  # Path and declaration: those, and what messages add to them.
    expandable_documents: int  # Whose pages may count as more than their bytes.
    unknown_blocks: int  # Of which nobody knows what the provider makes of them.
    has_tools: bool
    writes_cache: bool  # May be True without need, never False when a cache may be written.
    writes_cache_1h: bool

    @property
    def body_bytes(self) -> int:
        return len(self.raw)

    @property
    def effort(self) -> object:
        config = self.body.get("output_config")
        return config.get("effort") if isinstance(config, dict) else None

    @property
    def compacts(self) -> bool:
        """True when the provider may run the model over the conversation once more, to make a summary of it."""
        management = self.body.get("context_management")
        edits = management.get("edits") if isinstance(management, dict) else None
        kinds = [edit.get("type") for edit in edits if isinstance(edit, dict)] if isinstance(edits, list) else ()
        return any(isinstance(kind, str) and kind.startswith("compact") for kind in kinds)

    @property
    def thinking_budget_tokens(self) -> int:
        """The tokens that may be thought, 0 where no number is given."""
        return int(self.body["thinking"]["budget_tokens"]) if self.thinking_type == "enabled" else 0

    def without_prompt(self) -> "MessagesRequest":
        """Return what is needed to read the reply: a prompt would take memory long after the upstream has it."""
        kept = {name: self.body[name] for name in FIELDS_FOR_REPLY if name in self.body}
        return self._replace(body=kept, raw=b"")

    def conversation_fingerprint(self) -> str:
        """Return a hash that stays the same over the turns of one conversation.

        Made of system and first message, without what changes from turn to turn: cache marks and billing headers.
        """
        digest = hashlib.blake2b(digest_size=16)
        for text in islice(_texts_of(self.body.get("system")), MAX_FINGERPRINT_BLOCKS):
            if not text.startswith(BILLING_HEADER_PREFIX):
                digest.update(text.encode() + b"\x00")
        digest.update(b"\x01")
        for text in islice(_texts_of(self.body["messages"][0]["content"]), MAX_FINGERPRINT_BLOCKS):
            digest.update(text.encode() + b"\x00")
        return digest.hexdigest()


def parse_messages_request(body: bytes) -> MessagesRequest:
    """Return the request in `body`. Raises InvalidRequestError."""
    return _check_request(_load_object(body), body, needs_max_tokens=True)


def parse_count_tokens_request(body: bytes) -> MessagesRequest:
    """Return a request for count_tokens: the same, but without `max_tokens`. Raises InvalidRequestError."""
    return _check_request(_load_object(body), body, needs_max_tokens=False)


def render_upstream_body(request: MessagesRequest, upstream_model: str, drop_fields: Iterable[str] = ()) -> bytes:
    """Return the body for an upstream: `model` replaced, `drop_fields` left out, schemas that tools lack filled in, all
    else as it was, in its order.
    """

    def build(request: MessagesRequest) -> dict[str, Any]:
        body = {**request.body, "model": upstream_model}
        if request.has_tools:
            body["tools"] = with_schemas(body["tools"])
        for name in drop_fields:
            body.pop(name, None)
        return body

    return encode_for_upstream(request, build)


def encode_for_upstream(request: MessagesRequest, build: Callable[[MessagesRequest], dict[str, Any]]) -> bytes:
    """Return what `build` makes of the request as JSON, its numbers as the client wrote them."""
    encoded = encode(build(request))
    # A large body has no number that could be rounded: json_structure refuses it.
    if request.body_bytes > MAX_EXACT_BYTES or not may_be_rounded(encoded):
        return encoded
    return encode(build(request._replace(body=decode_exactly(request.raw))))


def _load_object(raw: bytes) -> dict[str, Any]:
    try:
        check_structure(raw)
        body = orjson.loads(raw)
    except TooComplexError as error:
        raise InvalidRequestError(f"The request body has {error}.", code="body_too_complex") from None
    except orjson.JSONDecodeError as error:
        if "depth limit" in str(error) or "recursion" in str(error).lower():
            raise _too_deep() from None
        raise InvalidRequestError(f"The request body is not valid JSON: {error}", code="invalid_json") from None
    if not isinstance(body, dict):
        raise InvalidRequestError("The request body must be a JSON object.", code="invalid_json")
    if is_too_deep(raw, body):
        raise _too_deep()
    return body


def _too_deep() -> InvalidRequestError:
    return InvalidRequestError(f"The request body is nested more than {MAX_DEPTH} levels deep.", code="invalid_json")


def _check_request(body: dict[str, Any], raw: bytes, *, needs_max_tokens: bool) -> MessagesRequest:
    if "model" not in body:
        refuse_missing("model")
    model = require_text("model", body["model"], min_chars=1, max_chars=MAX_MODEL_CHARS)
    max_tokens = 0
    if needs_max_tokens:
        if "max_tokens" not in body:
            refuse_missing("max_tokens")
        max_tokens = require_integer("max_tokens", body["max_tokens"], minimum=0, maximum=MAX_TOKENS_CEILING)
    check_guarded_fields(body)
    counts = BlockCounts()
    system_message_index = _check_messages(body, counts)
    _check_sampling(body)
    if body.get("system") is not None:
        _check_system(body["system"], counts)
    tools = body.get("tools")
    server_tools = check_tools(tools) if tools is not None else []
    provider_tools = [(f"tools.{index}", body["tools"][index]) for index, _ in server_tools]
    provider_tools += check_added_tools(counts.added_tools)
    if body.get("tool_choice") is not None:
        check_tool_choice(body["tool_choice"])
    stream = body.get("stream")
    is_streamed = require_boolean("stream", stream) if stream is not None else False
    thinking = body.get("thinking")
    metadata = body.get("metadata")
    end_user, session = _check_metadata(metadata) if metadata is not None else ("", "")
    writes_cache, writes_cache_1h = _find_cache_marks(raw)
    return MessagesRequest(
        body=body,
        raw=raw,
        model=model,
        max_tokens=max_tokens,
        is_streamed=is_streamed,
        end_user=end_user,
        session=session,
        image_count=counts.image_count,
        image_data_bytes=counts.image_data_bytes,
        image_path=counts.image_path,
        document_path=counts.document_path,
        system_message_index=system_message_index,
        thinking_type=_check_thinking(thinking) if thinking is not None else None,
        server_tools=server_tools,
        provider_tools=provider_tools,
        expandable_documents=counts.expandable_documents,
        unknown_blocks=counts.unknown_blocks,
        has_tools=bool(tools),
        writes_cache=writes_cache,
        writes_cache_1h=writes_cache_1h,
    )


def _check_messages(body: dict[str, Any], counts: BlockCounts) -> int | None:
    """Check `messages` and return the place of the first with role `system`."""
    if "messages" not in body:
        refuse_missing("messages")
    messages = require_list("messages", body["messages"], max_items=MAX_MESSAGES)
    if not messages:
        raise InvalidRequestError("messages: at least one message is required", param="messages")
    system_message_index = None
    for index, message in enumerate(messages):
        if not isinstance(message, dict):
            refuse(f"messages.{index}", "Input should be a valid dictionary")
        role = message.get("role")
        if role != "user" and role != "assistant":
            if role == "system":
                system_message_index = index if system_message_index is None else system_message_index
            elif "role" not in message:
                refuse_missing(f"messages.{index}.role")
            else:
                refuse(f"messages.{index}.role", ROLE_TEXT)
        if "content" not in message:
            refuse_missing(f"messages.{index}.content")
        content = message["content"]
        if type(content) is not str:
            check_content(f"messages.{index}.content", content, counts)
    return system_message_index


def _check_sampling(body: dict[str, Any]) -> None:
    if body.get("temperature") is not None:
        require_fraction("temperature", body["temperature"])
    if body.get("top_p") is not None:
        require_fraction("top_p", body["top_p"])
    if body.get("top_k") is not None:
        require_integer("top_k", body["top_k"], minimum=0, maximum=MAX_TOP_K)
    if body.get("stop_sequences") is not None:
        sequences = require_list("stop_sequences", body["stop_sequences"], max_items=MAX_STOP_SEQUENCES)
        for index, sequence in enumerate(sequences):
            require_text(f"stop_sequences.{index}", sequence, min_chars=1, max_chars=MAX_STOP_SEQUENCE_CHARS)


def _check_system(system: object, counts: BlockCounts) -> None:
    if isinstance(system, str):
        return
    require_list("system", system, max_items=MAX_SYSTEM_BLOCKS)
    check_content("system", system, counts)


def _check_metadata(metadata: object) -> tuple[str, str]:
    """Return the end user and the session that are named, as they are stored."""
    user_id = require_object("metadata", metadata).get("user_id")
    if user_id is None:
        return "", ""
    return read_user_id(require_text("metadata.user_id", user_id, max_chars=MAX_USER_ID_CHARS))


def _check_thinking(value: object) -> str:
    """Return the type of thinking. Whether its budget fits max_tokens depends on the upstream: see codec."""
    thinking = require_object("thinking", value)
    if "type" not in thinking:
        refuse_missing("thinking.type")
    thinking_type = thinking["type"]
    if thinking_type not in THINKING_TYPES:
        refuse_tag("thinking", thinking_type, THINKING_TYPES)
    if thinking_type == "enabled":
        path = "thinking.enabled.budget_tokens"
        if "budget_tokens" not in thinking:
            refuse_missing(path)
        require_integer(path, thinking["budget_tokens"], minimum=MIN_THINKING_TOKENS, maximum=MAX_TOKENS_CEILING)
    return str(thinking_type)


def _find_cache_marks(raw: bytes) -> tuple[bool, bool]:
    """Return whether the request may write a prompt cache, and one for an hour: what its hold must allow for."""
    if b'"cache_control"' not in raw:
        is_hidden = ASCII_ESCAPE.search(raw) is not None
        return is_hidden, is_hidden
    if b'"1h"' in raw:
        return True, True
    return True, ASCII_ESCAPE.search(raw) is not None


def _texts_of(content: Any) -> Iterable[str]:
    if isinstance(content, str):
        yield content
        return
    for block in content or ():
        if not isinstance(block, Mapping):
            continue
        text = block.get("text")
        if isinstance(text, str):
            yield text
            continue
        source = block.get("source")
        data = (source.get("data") or source.get("url")) if isinstance(source, Mapping) else None
        yield f"{block.get('type')}:{data[:100] if isinstance(data, str) else ''}"
