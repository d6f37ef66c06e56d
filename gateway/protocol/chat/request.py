"""A Messages request as the body of a Chat Completions call. Pure.

Not sent, because the protocol has no place for it: cache_control, context_management, defer_loading, metadata, top_k
(unless the profile says that the upstream knows it), stop sequences past the fourth, and the tools that a provider runs
(dropped or refused, as the profile says). Refused are those that a client runs and Anthropic's models know without a
schema: a client that offers them waits for their calls.
"""

from typing import Any

from gateway.protocol.chat.messages import translate_messages
from gateway.protocol.chat.names import ToolNames
from gateway.protocol.codec import RouteTarget, check_thinking_budget, refuse_fields
from gateway.protocol.errors import InvalidRequestError
from gateway.protocol.messages.request import MessagesRequest, encode_for_upstream
from gateway.protocol.messages.tools import CLIENT_TOOLS, CUSTOM, with_schemas
from gateway.protocol.messages.validation import refuse
from gateway.protocol.profile import REASONING_EFFORT, REASONING_OBJECT, REFUSE, UpstreamProfile

# How many thinking tokens each effort stands for at most; above the last it is "high".
LOW_EFFORT_TOKENS = 4_096
MEDIUM_EFFORT_TOKENS = 16_384
EFFORTS = {"low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "high"}
TOOL_CHOICES = {"auto": "auto", "any": "required", "none": "none"}
SCHEMA_NAME = "reply"


def tool_names(request: MessagesRequest, profile: UpstreamProfile) -> ToolNames:
    """Return the names of the request's own tools, both ways."""
    names = [tool["name"] for tool in request.body.get("tools") or () if tool.get("type", CUSTOM) in (None, CUSTOM)]
    return ToolNames(names, profile.max_tool_name_chars)


def render_chat_body(request: MessagesRequest, target: RouteTarget) -> bytes:
    """Return the body. Raises InvalidRequestError for what Chat Completions, or this upstream, cannot be asked."""
    refuse_fields(request, target.profile)
    check_thinking_budget(request)
    if request.max_tokens == 0:
        text = "0 warms a prompt cache without a reply, which is not supported on this model"
        refuse("max_tokens", text, code="unsupported_by_upstream")
    return encode_for_upstream(request, lambda request: _translate(request, target))


def _translate(request: MessagesRequest, target: RouteTarget) -> dict[str, Any]:
    source, profile = request.body, target.profile
    names = tool_names(request, profile)
    body: dict[str, Any] = {
        "model": target.upstream_model,
        "messages": translate_messages(source, names, profile),
        profile.max_tokens_field: request.max_tokens,
    }
    for name in ("temperature", "top_p", "top_k"):
        if source.get(name) is not None and (name != "top_k" or profile.top_k):
            body[name] = source[name]
    sequences = (source.get("stop_sequences") or [])[: profile.max_stop_sequences]
    if sequences:
        body["stop"] = sequences
    _add_tools(body, request, names, profile)
    _add_reasoning(body, request, profile)
    _add_format(body, source)
    if request.is_streamed:
        body["stream"] = True
        if profile.stream_usage:
            body["stream_options"] = {"include_usage": True}
    for name in profile.drop_fields:
        body.pop(name, None)
    body.update(profile.extra_body)
    return body


def _add_tools(body: dict[str, Any], request: MessagesRequest, names: ToolNames, profile: UpstreamProfile) -> None:
    for index, tool_type in request.server_tools:
        if profile.server_tools == REFUSE or tool_type.startswith(CLIENT_TOOLS):
            text = f"'{tool_type}' is not supported on this model"
            refuse(f"tools.{index}.type", text, code="unsupported_by_upstream")
    server_places = {index for index, _ in request.server_tools}
    tools = [
        _translate_tool(tool, names)
        for index, tool in enumerate(with_schemas(request.body.get("tools") or []))
        if index not in server_places
    ]
    choice = request.body.get("tool_choice")
    if choice is not None:
        _check_choice(choice, request)
    if not tools:
        return
    body["tools"] = tools
    if choice is None:
        return
    if choice["type"] == "tool":
        name = names.shorten(choice["name"])
        if any(tool["function"]["name"] == name for tool in tools):  # Else it is one that the profile drops.
            body["tool_choice"] = {"type": "function", "function": {"name": name}}
    else:
        body["tool_choice"] = TOOL_CHOICES[choice["type"]]
    if choice.get("disable_parallel_tool_use") and profile.parallel_tool_calls:
        body["parallel_tool_calls"] = False


def _check_choice(choice: dict[str, Any], request: MessagesRequest) -> None:
    """Refuse to make a model call what the request does not have, in Anthropic's words. Raises InvalidRequestError."""
    tools = request.body.get("tools") or ()
    if choice["type"] == "any" and not tools:
        raise InvalidRequestError("tool_choice.any may only be specified while providing tools", param="tool_choice")
    if choice["type"] == "tool" and all(tool.get("name") != choice["name"] for tool in tools):
        raise InvalidRequestError(f"Tool '{choice['name']}' not found in provided tools", param="tool_choice")


def _translate_tool(tool: dict[str, Any], names: ToolNames) -> dict[str, Any]:
    # A null says no more than a field that is left out, and providers stumble over it.
    parameters = {n: value for n, value in tool["input_schema"].items() if n != "$schema" and value is not None}
    if parameters.get("type", "object") == "object":
        parameters.setdefault("type", "object")
        parameters.setdefault("properties", {})  # OpenAI refuses an object without them.
    function: dict[str, Any] = {"name": names.shorten(tool["name"])}
    if tool.get("description"):
        function["description"] = tool["description"]
    function["parameters"] = parameters
    if tool.get("strict") is True:
        function["strict"] = True
    return {"type": "function", "function": function}


def _add_reasoning(body: dict[str, Any], request: MessagesRequest, profile: UpstreamProfile) -> None:
    """Say how much to think, in the upstream's way. A budget is a bound that only OpenRouter's way can carry."""
    effort = EFFORTS.get(request.effort) if isinstance(request.effort, str) else None
    thinking = request.body.get("thinking") or {}
    budget = thinking.get("budget_tokens") if request.thinking_type == "enabled" else None
    if profile.reasoning == REASONING_EFFORT:
        effort = effort or (_effort_of(budget) if budget is not None else None)
        if effort is not None and request.thinking_type != "disabled":
            body["reasoning_effort"] = effort
    elif profile.reasoning == REASONING_OBJECT:
        if request.thinking_type == "disabled":
            body["reasoning"] = {"enabled": False}
        elif budget is not None:
            body["reasoning"] = {"max_tokens": budget}
        elif effort is not None:
            body["reasoning"] = {"effort": effort}
        elif request.thinking_type in ("adaptive", "between_tools"):
            body["reasoning"] = {"enabled": True}


def _effort_of(budget_tokens: int) -> str:
    if budget_tokens <= LOW_EFFORT_TOKENS:
        return "low"
    return "medium" if budget_tokens <= MEDIUM_EFFORT_TOKENS else "high"


def _add_format(body: dict[str, Any], source: dict[str, Any]) -> None:
    config = source.get("output_config")
    wanted = config.get("format") if isinstance(config, dict) else None
    wanted = wanted or source.get("output_format")  # Its name while it was a beta.
    if isinstance(wanted, dict) and wanted.get("type") == "json_schema":
        schema = {"name": SCHEMA_NAME, "schema": wanted.get("schema"), "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
