"""`tools` and `tool_choice` of a request. Pure.

What a tool of a provider's costs is not known from its name. So only these types pass: those that the client runs,
those that add nothing to the prompt but what the request declares, and those that the catalog can sell.
"""

import re
from collections.abc import Mapping
from typing import Any

from gateway.protocol.messages.validation import (
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
MAX_CONTENT_TOKENS = 100_000_000
TOOL_REFERENCE = "tool_reference"
CUSTOM = "custom"  # The type of a tool that the client runs; any other type is run by the provider.
TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}", re.ASCII)
NO_ARGUMENTS: Mapping[str, str] = {"type": "object"}  # The schema of a tool that is declared without one.
# What the client runs, and the search among the request's own tools; by the beginning of their dated types.
CLIENT_TOOLS = ("bash_", "browser_toolset_", "computer_", "memory_", "text_editor_")
FREE_TOOLS = (*CLIENT_TOOLS, "tool_search_tool_")
WEB_FETCH, WEB_SEARCH = "web_fetch", "web_search"
SOLD_TOOLS = (WEB_FETCH, WEB_SEARCH)  # Where the language model has the capability of that name.
DATED_TYPE = re.compile(r"[a-z0-9_]+_[0-9]{1,8}", re.ASCII)
KNOWN_TAGS = ("bash_20250124", CUSTOM, "memory_20250818", "text_editor_20250728", "web_search_20250305")
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
            check_provider_tool(f"tools.{index}", tool)
            server_tools.append((index, tool["type"]))
    return server_tools


def check_added_tools(added: list[tuple[str, object]]) -> list[tuple[str, dict[str, Any]]]:
    """Check tools that messages bring, and return those of the provider's among them. Raises InvalidRequestError."""
    provider_tools = []
    for path, tool in added:
        if not isinstance(tool, dict):
            refuse(path, "Input should be a valid dictionary")
        if _is_custom(tool) or tool.get("type") == TOOL_REFERENCE:
            continue
        check_provider_tool(path, tool)
        provider_tools.append((path, tool))
    return provider_tools


def check_provider_tool(path: str, tool: dict[str, Any]) -> None:
    """Check a typed tool. Raises InvalidRequestError for one that cannot be sold."""
    tool_type = require_text(f"{path}.type", tool["type"], min_chars=1, max_chars=100)
    is_known = tool_type.startswith(FREE_TOOLS) or sold_name(tool_type) is not None
    if not is_known or DATED_TYPE.fullmatch(tool_type) is None:
        refuse_tag(path, tool_type, KNOWN_TAGS)
    for name, maximum in (("max_uses", MAX_TOOL_USES), ("max_content_tokens", MAX_CONTENT_TOKENS)):
        if tool.get(name) is not None:
            require_integer(f"{path}.{tool_type}.{name}", tool[name], minimum=1, maximum=maximum)


def sold_name(tool_type: str) -> str | None:
    """Return which of SOLD_TOOLS a tool's type is a version of; None for any other."""
    return next((name for name in SOLD_TOOLS if tool_type.startswith(f"{name}_")), None)


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
