"""The content blocks of a request: what each must have, and what is counted for the estimate. Pure.

Blocks of unknown types pass, as what a provider may make of them is held for. Nowhere may a block name a file of the
provider's: they belong to our account there, which all organizations share.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from gateway.protocol.messages.validation import (
    refuse,
    refuse_missing,
    refuse_tag,
    require_boolean,
    require_list,
    require_object,
    require_text,
)

MAX_BLOCKS = 100_000  # Of one message; the body's bound is the tighter one for all but empty blocks.
MAX_TOOL_USE_ID_CHARS = 256
MAX_TOOL_NAME_CHARS = 200
MAX_URL_CHARS = 8_192
IMAGE_MEDIA_TYPES = ("image/jpeg", "image/png", "image/gif", "image/webp")
SOURCE_TYPES = ("base64", "url")
DOCUMENT_SOURCE_TYPES = ("base64", "content", "text", "url")
# Reading megabytes takes milliseconds; both ends show what is no base64, such as a data: URL or a path.
BASE64_SAMPLE_CHARS = 64
BASE64_SAMPLE = re.compile(r"[A-Za-z0-9+/]*={0,2}", re.ASCII)
# Blocks of the provider's that are no longer than they are written: results come back as they were given.
INERT_TYPES = frozenset(
    (
        "compaction",
        "fallback",
        "mcp_tool_listing",
        "search_result",
        "tool_addition",
        "tool_reference",
        "tool_removal",
    )
)
INERT_ENDINGS = ("_tool_use", "_tool_result")
FILE, FILE_ID, CONTAINER_UPLOAD = "file", "file_id", "container_upload"
MAX_RESULT_DEPTH = 4  # Of the content inside a result, in which a file could be named.
MAX_SHOWN_CHARS = 100  # Of a type that nobody knows.
SHARED_TEXT = "Files at a provider cannot be used here, because all organizations share one account there"
SHARED_CODE = "shared_account"
TOOL_USE_ID = re.compile(r"[a-zA-Z0-9_-]+", re.ASCII)


class BlockCounts:
    """What was seen in all blocks of a request."""

    __slots__ = (
        "added_tools",
        "document_path",
        "expandable_documents",
        "image_count",
        "image_data_bytes",
        "image_path",
        "unknown_blocks",
    )

    def __init__(self) -> None:
        self.image_count = 0
        self.image_data_bytes = 0  # Of base64 text, as it lies in the body.
        self.image_path: str | None = None  # Of the first image.
        self.document_path: str | None = None
        self.expandable_documents = 0  # By address or as PDF: their pages may count as more than their bytes.
        self.unknown_blocks = 0
        self.added_tools: list[tuple[str, object]] = []  # Path and declaration of those that messages bring.


def check_content(path: str, content: object, counts: BlockCounts) -> None:
    """Check the content of one message or tool result. Raises InvalidRequestError."""
    if isinstance(content, str):
        return
    blocks = require_list(path, content, max_items=MAX_BLOCKS)
    for index, block in enumerate(blocks):
        if not isinstance(block, dict):
            refuse(f"{path}.{index}", "Input should be a valid dictionary")
        block_type = block.get("type")
        if block_type == "text":  # Nearly all blocks are text: they skip the table and its path strings.
            if not isinstance(block.get("text"), str):
                _check_text(f"{path}.{index}", block, counts)
            continue
        if not isinstance(block_type, str):
            if "type" not in block:
                refuse_missing(f"{path}.{index}.type")
            refuse(f"{path}.{index}.type", "Input should be a valid string")
        if _IS_PLAIN.get(block_type, _is_plain_other)(block, counts):
            continue
        check = _CHECKS.get(block_type, _check_other)
        check(f"{path}.{index}", block, counts)


def _check_text(path: str, block: dict[str, Any], counts: BlockCounts) -> None:
    require_text(f"{path}.text.text", _required(f"{path}.text", block, "text"))


def _check_image(path: str, block: dict[str, Any], counts: BlockCounts) -> None:
    counts.image_count += 1
    counts.image_path = counts.image_path or path
    path = f"{path}.image.source"
    source = require_object(path, _required(path.removesuffix(".source"), block, "source"))
    source_type = _required(path, source, "type")
    if source_type == "base64":
        media_type = _required(f"{path}.base64", source, "media_type")
        if media_type not in IMAGE_MEDIA_TYPES:
            expected = "'image/jpeg', 'image/png', 'image/gif' or 'image/webp'"
            refuse(f"{path}.base64.media_type", f"Input should be {expected}")
        counts.image_data_bytes += _check_base64(f"{path}.base64", source)
    elif source_type == "url":
        url = require_text(f"{path}.url.url", _required(f"{path}.url", source, "url"), max_chars=MAX_URL_CHARS)
        if not url.startswith(("https://", "http://")):
            refuse(f"{path}.url.url", "Only HTTP and HTTPS URLs are supported")
    elif source_type == FILE:
        refuse(f"{path}.{FILE}", SHARED_TEXT, code=SHARED_CODE)
    else:
        refuse_tag(path, source_type, SOURCE_TYPES)


def _check_document(path: str, block: dict[str, Any], counts: BlockCounts) -> None:
    source_path = f"{path}.document.source"
    source = require_object(source_path, _required(f"{path}.document", block, "source"))
    source_type = _required(source_path, source, "type")
    if source_type == FILE:
        refuse(f"{source_path}.{FILE}", SHARED_TEXT, code=SHARED_CODE)
    if source_type not in DOCUMENT_SOURCE_TYPES:
        refuse_tag(source_path, source_type, DOCUMENT_SOURCE_TYPES)
    if source_type in ("base64", "url"):  # Others are text, which every model reads.
        counts.document_path = counts.document_path or path
        counts.expandable_documents += 1
    if source_type == "content":
        check_content(f"{source_path}.content", _required(source_path, source, "content"), counts)


def _check_tool_use(path: str, block: dict[str, Any], counts: BlockCounts) -> None:
    path = f"{path}.tool_use"
    check_tool_use_id(f"{path}.id", _required(path, block, "id"))
    require_text(f"{path}.name", _required(path, block, "name"), min_chars=1, max_chars=MAX_TOOL_NAME_CHARS)
    require_object(f"{path}.input", _required(path, block, "input"))


def _check_tool_result(path: str, block: dict[str, Any], counts: BlockCounts) -> None:
    path = f"{path}.tool_result"
    check_tool_use_id(f"{path}.tool_use_id", _required(path, block, "tool_use_id"))
    content = block.get("content")
    if content is not None:
        check_content(f"{path}.content", content, counts)
    is_error = block.get("is_error")
    if is_error is not None:
        require_boolean(f"{path}.is_error", is_error)


def _check_thinking(path: str, block: dict[str, Any], counts: BlockCounts) -> None:
    path = f"{path}.thinking"
    require_text(f"{path}.thinking", _required(path, block, "thinking"))
    if "signature" in block:  # Upstreams other than Anthropic's sign nothing.
        require_text(f"{path}.signature", block["signature"])


def _check_redacted_thinking(path: str, block: dict[str, Any], counts: BlockCounts) -> None:
    path = f"{path}.redacted_thinking"
    require_text(f"{path}.data", _required(path, block, "data"))


def _check_tool_addition(path: str, block: dict[str, Any], counts: BlockCounts) -> None:
    tool = block.get("tool")
    if isinstance(tool, dict):
        inner = tool.get("definition") if tool.get("type") == "tool_definition" else tool
        name = "definition" if inner is not tool else "tool"
        counts.added_tools.append((f"{path}.tool_addition.{name}", inner))


def _check_compaction(path: str, block: dict[str, Any], counts: BlockCounts) -> None:
    changes = block.get("tool_changes")
    if changes is not None:
        check_content(f"{path}.compaction.tool_changes", changes, counts)


def _check_other(path: str, block: dict[str, Any], counts: BlockCounts) -> None:
    """Check a block that the reference does not have."""
    block_type = block["type"]
    if block_type == CONTAINER_UPLOAD:
        refuse(f"{path}.{CONTAINER_UPLOAD}", SHARED_TEXT, code=SHARED_CODE)
    _refuse_files(f"{path}.{block_type[:MAX_SHOWN_CHARS]}", block, MAX_RESULT_DEPTH)
    if not _is_inert(block_type):
        counts.unknown_blocks += 1


@lru_cache(maxsize=1_000)
def _is_inert(block_type: str) -> bool:
    return block_type in INERT_TYPES or block_type.endswith(INERT_ENDINGS)


def _refuse_files(path: str, value: object, depth: int) -> None:
    """Refuse a file that is named in the content of a block, a few levels deep."""
    if isinstance(value, list) and depth:
        for index, item in enumerate(value[:MAX_BLOCKS]):
            if isinstance(item, dict):
                _refuse_files(f"{path}.{index}", item, depth - 1)
    elif isinstance(value, dict):
        if value.get(FILE_ID) is not None or value.get("type") in (FILE, CONTAINER_UPLOAD):
            refuse(path, SHARED_TEXT, code=SHARED_CODE)
        if depth:
            for name in ("content", "source"):
                if isinstance(value.get(name), dict | list):
                    _refuse_files(f"{path}.{name}", value[name], depth - 1)


def check_tool_use_id(path: str, value: object) -> None:
    text = require_text(path, value, min_chars=1, max_chars=MAX_TOOL_USE_ID_CHARS)
    if TOOL_USE_ID.fullmatch(text) is None:
        refuse(path, "String should match pattern '^[a-zA-Z0-9_-]+$'")


def _check_base64(path: str, source: dict[str, object]) -> int:
    """Return the length of the data, which is also its bytes in the body, as base64 is never escaped."""
    text = require_text(f"{path}.data", _required(path, source, "data"), min_chars=1)
    if not _is_base64(text):
        refuse(f"{path}.data", "Invalid base64 data")
    return len(text)


def _is_base64(text: str) -> bool:
    if BASE64_SAMPLE.fullmatch(text[-BASE64_SAMPLE_CHARS:]) is None or not text.isascii():
        return False
    return len(text) <= BASE64_SAMPLE_CHARS or BASE64_SAMPLE.fullmatch(text[:BASE64_SAMPLE_CHARS]) is not None


def _required(path: str, value: dict[str, Any], name: str) -> Any:
    if name not in value:
        refuse_missing(f"{path}.{name}")
    return value[name]


_CHECKS: dict[str, Callable[[str, dict[str, Any], BlockCounts], None]] = {
    "text": _check_text,
    "image": _check_image,
    "document": _check_document,
    "tool_use": _check_tool_use,
    "tool_result": _check_tool_result,
    "thinking": _check_thinking,
    "redacted_thinking": _check_redacted_thinking,
    "tool_addition": _check_tool_addition,
    "compaction": _check_compaction,
}


# Of tens of thousands of small blocks, saying where each is would take most of the time. So a block of which there is
# nothing to say is let through first: these return True for it, counted, and False, nothing counted, for any other.


def _is_plain_image(block: dict[str, Any], counts: BlockCounts) -> bool:
    source = block.get("source")
    if counts.image_path is None or type(source) is not dict or source.get("type") != "base64":
        return False
    data = source.get("data")
    if source.get("media_type") not in IMAGE_MEDIA_TYPES or type(data) is not str or not data or not _is_base64(data):
        return False
    counts.image_count += 1
    counts.image_data_bytes += len(data)
    return True


def _is_plain_document(block: dict[str, Any], counts: BlockCounts) -> bool:
    source = block.get("source")
    return type(source) is dict and source.get("type") == "text"


def _is_plain_tool_use(block: dict[str, Any], counts: BlockCounts) -> bool:
    name = block.get("name")
    has_name = type(name) is str and 0 < len(name) <= MAX_TOOL_NAME_CHARS
    return has_name and type(block.get("input")) is dict and _is_tool_use_id(block.get("id"))


def _is_plain_tool_result(block: dict[str, Any], counts: BlockCounts) -> bool:
    content, is_error = block.get("content"), block.get("is_error")
    is_text = content is None or type(content) is str
    return is_text and (is_error is None or type(is_error) is bool) and _is_tool_use_id(block.get("tool_use_id"))


def _is_plain_thinking(block: dict[str, Any], counts: BlockCounts) -> bool:
    return type(block.get("thinking")) is str and type(block.get("signature", "")) is str


def _is_plain_other(block: dict[str, Any], counts: BlockCounts) -> bool:
    """Of the types without a check of their own: nothing in it in which a file could be named."""
    block_type = block["type"]
    if block_type in _CHECKS or block_type in (FILE, CONTAINER_UPLOAD) or FILE_ID in block:
        return False
    for value in block.values():
        if type(value) is dict or type(value) is list:
            return False
    if not _is_inert(block_type):
        counts.unknown_blocks += 1
    return True


def _is_tool_use_id(value: object) -> bool:
    return type(value) is str and len(value) <= MAX_TOOL_USE_ID_CHARS and TOOL_USE_ID.fullmatch(value) is not None


_IS_PLAIN: dict[str, Callable[[dict[str, Any], BlockCounts], bool]] = {
    "image": _is_plain_image,
    "document": _is_plain_document,
    "tool_use": _is_plain_tool_use,
    "tool_result": _is_plain_tool_result,
    "thinking": _is_plain_thinking,
}
