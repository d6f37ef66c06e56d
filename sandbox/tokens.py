"""How the sandbox counts tokens. Pure.

The rule: a text is ceil(UTF-8 bytes / 4) tokens; an image and a document are fixed numbers; anything structured (a
tool, a tool call's input, an unknown block) counts as its compact JSON. A prompt is the sum of its blocks, at least 1.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import orjson

BYTES_PER_TOKEN = 4
IMAGE_TOKENS = 1_600
DOCUMENT_TOKENS = 3_000


class PromptBlock(NamedTuple):
    """One block of a prompt in the order in which the provider reads it: tools, system, messages."""

    role: str
    content: Any
    tokens: int
    cache_ttl: str | None
    """"5m" or "1h" where `cache_control` ends a cached prefix here."""


def text_tokens(text: str) -> int:
    """Tokens of a text; 0 for an empty one."""
    length = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
    return (length + BYTES_PER_TOKEN - 1) // BYTES_PER_TOKEN


def json_tokens(value: Any) -> int:
    """Tokens of a structured value: those of its compact JSON."""
    return (len(orjson.dumps(value)) + BYTES_PER_TOKEN - 1) // BYTES_PER_TOKEN


def cut_to_tokens(text: str, tokens: int) -> str:
    """The longest beginning of the text that is no more than so many tokens, never half a character."""
    limit_bytes = tokens * BYTES_PER_TOKEN
    if text.isascii():
        return text[:limit_bytes]
    encoded = text.encode("utf-8", "surrogatepass")
    return text if len(encoded) <= limit_bytes else encoded[:limit_bytes].decode("utf-8", "ignore")


def prompt_tokens(blocks: list[PromptBlock]) -> int:
    return max(1, sum([block.tokens for block in blocks]))


def messages_prompt(body: dict[str, Any]) -> list[PromptBlock]:
    """The blocks of a Messages request."""
    blocks = [PromptBlock("tool", tool, _bare_tokens(tool), _cache_ttl(tool)) for tool in body.get("tools") or ()]
    blocks.extend(_content_blocks("system", body.get("system") or ()))
    for message in body["messages"]:
        blocks.extend(_content_blocks(message["role"], message["content"]))
    if isinstance(body.get("cache_control"), dict) and blocks:
        blocks[-1] = blocks[-1]._replace(cache_ttl=_cache_ttl(body))
    return blocks


def chat_prompt(body: dict[str, Any]) -> list[PromptBlock]:
    """The blocks of a Chat Completions request. Caching there is automatic, so none of them ends a prefix."""
    blocks = [PromptBlock("tool", tool, json_tokens(tool), None) for tool in body.get("tools") or ()]
    for message in body["messages"]:
        tokens = sum([block.tokens for block in _content_blocks(message["role"], message.get("content") or ())])
        if message.get("tool_calls"):
            tokens += json_tokens(message["tool_calls"])
        blocks.append(PromptBlock(message["role"], message, tokens, None))
    return blocks


def _content_blocks(role: str, content: Any) -> Iterator[PromptBlock]:
    if isinstance(content, str):
        yield PromptBlock(role, content, text_tokens(content), None)
        return
    for block in content:
        yield PromptBlock(role, block, block_tokens(block), _cache_ttl(block))


def block_tokens(block: Any) -> int:
    """Tokens of one content block of either protocol."""
    if not isinstance(block, dict):
        return json_tokens(block)
    kind = block.get("type")
    if kind == "text" and isinstance(block.get("text"), str):
        return text_tokens(block["text"])
    if kind in ("image", "image_url"):
        return IMAGE_TOKENS
    if kind == "document":
        return DOCUMENT_TOKENS
    if kind == "thinking" and isinstance(block.get("thinking"), str):
        return text_tokens(block["thinking"])
    if kind == "tool_result":
        return sum([inner.tokens for inner in _content_blocks("user", block.get("content") or ())])
    return _bare_tokens(block)


def _bare_tokens(block: Any) -> int:
    """The JSON's tokens without `cache_control`: asking for a cache must not change what is counted."""
    if isinstance(block, dict) and "cache_control" in block:
        block = {name: value for name, value in block.items() if name != "cache_control"}
    return json_tokens(block)


def _cache_ttl(block: Any) -> str | None:
    if not isinstance(block, dict):
        return None
    control = block.get("cache_control")
    if not isinstance(control, dict):
        return None
    return "1h" if control.get("ttl") == "1h" else "5m"
