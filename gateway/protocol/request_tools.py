"""`tools` and `tool_choice` of a request. Pure."""

import re
from collections.abc import Mapping
from typing import Any

from gateway.protocol.wording import (
    refuse,
    refuse_missing,
    refuse_tag,
    require_boolean,
    require_integer,
    require_list,
    require_object,
    require_text,
)

MAX_TOOLS = 10_000
MAX_TOOL_USES = 10_000  # Of a server tool, in one request.
CUSTOM = "custom"  # The type of a tool that the caller runs; any other type is run by the provider.
TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}", re.ASCII)
NO_ARGUMENTS: Mapping[str, str] = {"type": "object"}  # The schema of a tool that is declared without one.
TOOL_CHOICE_TYPES = ("any", "auto", "none", "tool")


def check_tools(value: object) -> list[tuple[int, str]]:
    """Check `tools` and return place and type of the server tools among them. Raises InvalidRequestError."""
    server_tools: list[tuple[int, str]] = []
    for index, tool in enumerate(require_list("tools", value, max_items=MAX_TOOLS)):
        if not isinstance(tool, dict):
            refuse(f"tools.{index}", "Input should be a valid dictionary")
        if _is_custom(tool):
            name = tool.get("name")
            if type(name) is not str or TOOL_NAME.fullmatch(name) is None:
                _refuse_name(f"tools.{index}.custom", tool)
            if tool.get("input_schema") is not None:
                require_object(f"tools.{index}.custom.input_schema", tool["input_schema"])
            if "description" in tool and not isinstance(tool["description"], str | None):
                refuse(f"tools.{index}.custom.description", "Input should be a valid string")
        else:
            tool_type = require_text(f"tools.{index}.type", tool["type"], min_chars=1, max_chars=100)
            if tool.get("max_uses") is not None:
                path = f"tools.{index}.{tool_type}.max_uses"
                require_integer(path, tool["max_uses"], minimum=1, maximum=MAX_TOOL_USES)
            server_tools.append((index, tool_type))
    return server_tools


def _refuse_name(path: str, tool: dict[str, object]) -> None:
    if "name" not in tool:
        refuse_missing(f"{path}.name")
    require_text(f"{path}.name", tool["name"], min_chars=1, max_chars=128)
    refuse(f"{path}.name", "String should match pattern '^[a-zA-Z0-9_-]{1,128}$'")


def with_schemas(tools: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return checked tools, each custom one with a schema: our reference has it optional, upstreams ask for it."""
    return [
        {**tool, "input_schema": NO_ARGUMENTS} if _is_custom(tool) and tool.get("input_schema") is None else tool
        for tool in tools
    ]


def _is_custom(tool: Mapping[str, Any]) -> bool:
    return tool.get("type") in (None, CUSTOM)


def check_tool_choice(value: object) -> None:
    """Check `tool_choice`. Raises InvalidRequestError."""
    choice = require_object("tool_choice", value)
    if "type" not in choice:
        refuse_missing("tool_choice.type")
    choice_type = choice["type"]
    if choice_type not in TOOL_CHOICE_TYPES:
        refuse_tag("tool_choice", choice_type, TOOL_CHOICE_TYPES)
    if choice_type == "tool":
        if "name" not in choice:
            refuse_missing("tool_choice.tool.name")
        require_text("tool_choice.tool.name", choice["name"], min_chars=1, max_chars=200)
    if "disable_parallel_tool_use" in choice:
        require_boolean(f"tool_choice.{choice_type}.disable_parallel_tool_use", choice["disable_parallel_tool_use"])
