"""Content blocks of a reply and their deltas, in the types that clients take for granted. Pure.

SDKs add the text of a delta to that of its block without a look at either, so that one null ends the client's program.
What says nothing is left out, what is missing and not needed is made up for, and all else stays as it came.
"""

from typing import Any

from gateway.protocol.errors import UNUSABLE_CODE, UNUSABLE_TEXT, UpstreamProtocolError
from gateway.protocol.json.arguments import read_arguments

TEXT, THINKING, TOOL_USE, END_TURN = "text", "thinking", "tool_use", "end_turn"
CALLS = (TOOL_USE, "server_tool_use", "mcp_tool_use")
# The texts of each type of block, and of each type of delta.
BLOCK_TEXTS = {TEXT: ("text",), THINKING: ("thinking", "signature"), "redacted_thinking": ("data",)}
DELTA_TEXTS = {
    "text_delta": "text",
    "thinking_delta": "thinking",
    "input_json_delta": "partial_json",
    "signature_delta": "signature",
}
CITATIONS_DELTA = "citations_delta"
# What `usage` holds beside the four counts that clients read into objects, lists and texts.
USAGE_OBJECTS = ("cache_creation", "server_tool_use", "output_tokens_details")
USAGE_TEXTS = ("service_tier", "inference_geo", "speed")


def mend_content(content: object, id_stem: str) -> list[Any]:
    """Return the blocks of a whole reply, those that are in order as they came. Raises UpstreamProtocolError."""
    if isinstance(content, str):
        content = [content]
    blocks = []
    for place, block in enumerate(content if isinstance(content, list) else ()):
        said = {"type": TEXT, "text": block} if isinstance(block, str) else block
        mended = mend_block(said, f"toolu_{id_stem}_{place}")
        if mended is not None:
            blocks.append(_with_input(mended) if mended["type"] == TOOL_USE else mended)
    return blocks


def mend_block(block: object, spare_id: str, *, is_start: bool = False) -> dict[str, Any] | None:
    """Return the block, the same object where it is in order; None where it does not say what it is.

    A call without a name cannot be made; the input of one that only starts comes in deltas. Raises
    UpstreamProtocolError.
    """
    if not isinstance(block, dict) or not isinstance(block.get("type"), str) or not block["type"]:
        return None
    kind: str = block["type"]
    changes: dict[str, Any] = {}
    for name in BLOCK_TEXTS.get(kind, ()):
        if type(block.get(name)) is not str:
            changes[name] = ""
    citations = block.get("citations")
    if kind == TEXT and citations is not None and not _is_list_of_objects(citations):
        changes["citations"] = None
    if kind in CALLS:
        if not isinstance(block.get("name"), str) or not block["name"]:
            raise _model_fault("a tool call without a name")
        if not isinstance(block.get("id"), str) or not block["id"]:
            changes["id"] = spare_id
        if block.get("input") is None or (is_start and not isinstance(block["input"], dict)):
            changes["input"] = {}
    return {**block, **changes} if changes else block


def mend_delta(delta: object) -> dict[str, Any] | None:
    """Return the delta, the same object where it is in order; None where it says nothing."""
    if not isinstance(delta, dict):
        return None
    kind = delta.get("type")
    if type(kind) is not str or not kind:
        return next(
            ({**delta, "type": kind} for kind, name in DELTA_TEXTS.items() if type(delta.get(name)) is str), None
        )
    name = DELTA_TEXTS.get(kind)
    if name is not None:
        return delta if type(delta.get(name)) is str else None
    return delta if kind != CITATIONS_DELTA or isinstance(delta.get("citation"), dict) else None


def mend_usage(usage: dict[str, Any]) -> None:
    """Take out of a usage, in place, what is not of its type: counts are read elsewhere."""
    for names, kind in ((USAGE_OBJECTS, dict), (USAGE_TEXTS, str), (("iterations",), list)):
        for name in names:
            if name in usage and not isinstance(usage[name], kind):
                usage[name] = None


def text_or_none(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def plain_stop_reason(last_kind: object) -> str:
    """Return why a reply ended whose upstream did not say so, by the type of its last block."""
    return TOOL_USE if last_kind == TOOL_USE else END_TURN


def _is_list_of_objects(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def _with_input(block: dict[str, Any]) -> dict[str, Any]:
    """Return a whole call whose input is an object; some servers write it as text."""
    value = block["input"]
    if isinstance(value, dict):
        return block
    arguments = read_arguments(value) if isinstance(value, str) else None
    if arguments is None:
        raise _model_fault("a tool call whose arguments are not a JSON object")
    return {**block, "input": arguments}


def _model_fault(reason: str) -> UpstreamProtocolError:
    """Return the failure for what the model wrote, which the client can ask it to."""
    return UpstreamProtocolError(reason, code=UNUSABLE_CODE, client_message=UNUSABLE_TEXT, is_upstream_fault=False)
