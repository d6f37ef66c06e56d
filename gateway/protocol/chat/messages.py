"""The conversation of a Messages request as the `messages` of Chat Completions. Pure.

Results of tools become messages of role `tool`, directly after the assistant's turn and before the user's text. They
hold text only: images inside them follow in a message of the user. Documents and search results are text with their
titles, and the summary that stands for a compacted conversation is what the assistant said. What a provider's own tools
left in the assistant's turns is dropped, and so is thinking, unless the profile says that the provider wants it back
with the calls that came of it.
"""

from typing import Any

from gateway.protocol.chat.names import SentCallIds, ToolNames
from gateway.protocol.json import exact as exact_json
from gateway.protocol.messages.request import BILLING_HEADER_PREFIX
from gateway.protocol.messages.validation import refuse, refuse_tag
from gateway.protocol.profile import DROP, UpstreamProfile

USER_BLOCK_TYPES = ("document", "image", "search_result", "text", "tool_result")
# What the assistant said, by the type of its block, with the name of the text in it.
SAID = {"text": "text", "compaction": "content"}
PARAGRAPH = "\n\n"
Message = dict[str, Any]
Part = dict[str, Any]


def translate_messages(body: dict[str, Any], names: ToolNames, profile: UpstreamProfile) -> list[Message]:
    """Return the messages. Raises InvalidRequestError for user content that Chat Completions cannot carry."""
    translated: list[Message] = []
    ids = SentCallIds()
    system_role = profile.system_role
    system = _join_system(body.get("system"))
    if system:
        translated.append({"role": system_role, "content": system})
    after_calls = len(translated)  # Where results go: behind the assistant's last message and the results before them.
    for index, message in enumerate(body["messages"]):
        role, content = message["role"], message["content"]
        if role == "system":
            text = _join_system(content)
            if text:
                translated.append({"role": system_role, "content": text})
        elif role == "assistant":
            _add_to_turn(translated, _translate_assistant(content, names, ids, profile.thinking_history))
            after_calls = len(translated)
        elif isinstance(content, str):
            translated.append({"role": role, "content": content})
        else:
            results, rest = _translate_user(content, f"messages.{index}.content", ids)
            translated[after_calls:after_calls] = results
            after_calls += len(results)
            translated.extend(rest)
    return translated


def _add_to_turn(translated: list[Message], said: list[Message]) -> None:
    """Append what an assistant said; what it said right after it called belongs to the message with the calls."""
    last = translated[-1] if translated else {}
    if not said or last.get("role") != "assistant" or "tool_calls" not in last:
        translated.extend(said)
        return
    last["content"] = PARAGRAPH.join(filter(None, (last["content"], said[0]["content"]))) or None
    last["tool_calls"] += said[0].get("tool_calls", [])


def _join_system(system: Any) -> str:
    """Join the blocks, without Claude Code's billing header: it differs each time, so no prompt cache would hit."""
    if isinstance(system, str):
        return system
    texts = [block.get("text") for block in system or ()]
    kept = [text for text in texts if isinstance(text, str) and text and not text.startswith(BILLING_HEADER_PREFIX)]
    return PARAGRAPH.join(kept)


def _translate_assistant(
    blocks: str | list[dict[str, Any]], names: ToolNames, ids: SentCallIds, thinking_history: str
) -> list[Message]:
    """Return one message, or none when nothing is left of the turn."""
    if isinstance(blocks, str):
        return [{"role": "assistant", "content": blocks}]
    texts = [block.get(SAID[block["type"]]) for block in blocks if block["type"] in SAID]
    text = PARAGRAPH.join(text for text in texts if isinstance(text, str) and text)
    calls = [
        {
            "id": ids.send(block["id"]),
            "type": "function",
            "function": {"name": names.shorten(block["name"]), "arguments": exact_json.encode(block["input"]).decode()},
        }
        for block in blocks
        if block["type"] == "tool_use"
    ]
    if calls:
        message = {"role": "assistant", "content": text or None, "tool_calls": calls}
        if thinking_history != DROP:
            thoughts = [block["thinking"] for block in blocks if block["type"] == "thinking"]
            message[thinking_history] = PARAGRAPH.join(thoughts)
        return [message]
    return [{"role": "assistant", "content": text}] if text else []


def _translate_user(blocks: list[dict[str, Any]], path: str, ids: SentCallIds) -> tuple[list[Message], list[Message]]:
    """Return the messages of the tools, and the message of the user where anything is left for one."""
    tool_messages: list[Message] = []
    parts: list[Part] = []
    images_of_tools: list[Part] = []
    for index, block in enumerate(blocks):
        block_path = f"{path}.{index}"
        if block["type"] == "tool_result":
            message, images = _translate_tool_result(block, block_path, ids)
            tool_messages.append(message)
            images_of_tools.extend(images)
        else:
            parts.extend(_translate_part(block, block_path))
    parts = images_of_tools + parts
    return tool_messages, [{"role": "user", "content": _simplest_content(parts)}] if parts else []


def _translate_tool_result(block: dict[str, Any], path: str, ids: SentCallIds) -> tuple[dict[str, Any], list[Part]]:
    """Return the tool's message, and what of its result only a message of the user can carry."""
    content = block.get("content")
    images: list[Part] = []
    if content is None or isinstance(content, str):
        text = content or ""
    else:
        parts = _translate_parts(content, f"{path}.tool_result.content")
        text = PARAGRAPH.join(part["text"] for part in parts if part["type"] == "text")
        images = [part for part in parts if part["type"] != "text"]
    call_id = ids.send(block["tool_use_id"])
    if images:
        images.insert(0, {"type": "text", "text": f"Images in the result of tool call {call_id}:"})
        text = text or "The result is in the images of the next message."
    if block.get("is_error"):
        text = f"Error: {text}"
    return {"role": "tool", "tool_call_id": call_id, "content": text}, images


def _translate_parts(blocks: list[dict[str, Any]], path: str) -> list[Part]:
    return [part for index, block in enumerate(blocks) for part in _translate_part(block, f"{path}.{index}")]


def _translate_part(block: dict[str, Any], path: str) -> list[Part]:
    """Return the parts that a block becomes: one, but for a document of several blocks."""
    block_type = block["type"]
    if block_type == "text":
        return [{"type": "text", "text": block["text"]}]
    if block_type == "image":
        source = block["source"]
        is_url = source["type"] == "url"
        url = source["url"] if is_url else f"data:{source['media_type']};base64,{source['data']}"
        return [{"type": "image_url", "image_url": {"url": url}}]
    if block_type == "search_result":
        return _entitled({"Title": block.get("title"), "Source": block.get("source")}, _translate_content(block, path))
    if block_type != "document":
        refuse_tag(path, block_type, USER_BLOCK_TYPES)
    parts = _translate_document(block, path)
    has_name = parts[0]["type"] == "file" if parts else False
    return _entitled({"Title": None if has_name else block.get("title"), "Context": block.get("context")}, parts)


def _entitled(headings: dict[str, Any], parts: list[Part]) -> list[Part]:
    """Return the parts behind what they are called, which the model is told by Anthropic too."""
    lines = [f"{name}: {text}" for name, text in headings.items() if isinstance(text, str) and text]
    return [{"type": "text", "text": "\n".join(lines)}, *parts] if lines else parts


def _translate_content(block: dict[str, Any], path: str) -> list[Part]:
    """Return the texts of a search result, which has nothing else."""
    content = block.get("content")
    texts = [item.get("text") for item in content if isinstance(item, dict)] if isinstance(content, list) else []
    if not texts or not all(isinstance(text, str) for text in texts):
        refuse(f"{path}.search_result.content", "Input should be a list of text blocks")
    return [{"type": "text", "text": text} for text in texts]


def _translate_document(block: dict[str, Any], path: str) -> list[Part]:
    source = block["source"]
    data, media_type = source.get("data"), source.get("media_type")
    if source["type"] == "content":
        content = source["content"]
        if isinstance(content, str):
            return [{"type": "text", "text": content}]
        return _translate_parts(content, f"{path}.document.source.content")
    if source["type"] == "url":
        text = "Documents by URL are not supported on this model: send their content"
        refuse(f"{path}.document.source", text, code="unsupported_by_upstream")
    if not isinstance(data, str):
        refuse(f"{path}.document.source.data", "Input should be a valid string")
    if source["type"] == "text":
        return [{"type": "text", "text": data}]
    if media_type != "application/pdf":
        refuse(f"{path}.document.source.base64.media_type", "Input should be 'application/pdf'")
    title = block.get("title")
    file_name = title if isinstance(title, str) and title else "document.pdf"
    return [{"type": "file", "file": {"filename": file_name, "file_data": f"data:{media_type};base64,{data}"}}]


def _simplest_content(parts: list[Part]) -> str | list[Part]:
    """Return one string when all is text: every provider takes that, not every one takes a list."""
    if all(part["type"] == "text" for part in parts):
        return PARAGRAPH.join(part["text"] for part in parts)
    return parts
