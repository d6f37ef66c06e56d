"""What a language model can do, and the refusals of what it cannot: in words that Claude Code heals from. Pure.

The names are those of the catalog. Claude Code strips what a 400 in these words names, and tries again.
"""

from collections.abc import Collection
from typing import Any

from gateway.protocol.errors import InvalidRequestError
from gateway.protocol.messages.request import MessagesRequest
from gateway.protocol.messages.tools import WEB_FETCH, WEB_SEARCH, sold_name
from gateway.protocol.messages.validation import PDF_TEXT, SYSTEM_ROLE_TEXT

DOCUMENTS, IMAGES, SYSTEM_MESSAGES = "documents", "images", "system_messages"
THINKING, TOOLS = "thinking", "tools"
PROMPT_CACHING = "prompt_caching"
THINKING_TYPES = ("adaptive", "between_tools", "enabled")  # "disabled" is never refused.
EFFORTS = ("low", "medium", "high", "xhigh", "max")
ADAPTIVE_TEXT = "adaptive thinking is not supported on this model"
EFFORT_TEXT = "This model does not support the effort parameter."
CODE = "unsupported_by_model"


def check_capabilities(request: MessagesRequest, capabilities: Collection[str]) -> None:
    """Refuse what the language model cannot do. Raises InvalidRequestError with the code `unsupported_by_model`."""
    if request.system_message_index is not None and SYSTEM_MESSAGES not in capabilities:
        raise InvalidRequestError(
            f"messages: {SYSTEM_ROLE_TEXT}", code=CODE, param=f"messages.{request.system_message_index}.role"
        )
    if request.document_path is not None and DOCUMENTS not in capabilities:
        raise InvalidRequestError(PDF_TEXT, code=CODE, param=request.document_path)
    if request.image_count and IMAGES not in capabilities:
        raise InvalidRequestError("This model does not support image input.", code=CODE, param=request.image_path)
    if THINKING not in capabilities:
        _check_thinking(request)
    if request.has_tools and TOOLS not in capabilities:
        raise InvalidRequestError("This model does not support tool use.", code=CODE, param="tools")
    for path, tool in request.provider_tools:
        name = sold_name(tool["type"])
        if name is not None and name not in capabilities:
            text = f"This model does not support the {name.replace('_', ' ')} tool."
            raise InvalidRequestError(text, code=CODE, param=path)


def describe_capabilities(capabilities: Collection[str]) -> dict[str, Any]:
    """Return Anthropic's object of a model's capabilities, in which its SDKs look for every key.

    True is what check_capabilities() lets through and the catalog names; false is also what the catalog cannot name.
    The names of the catalog that Anthropic has no key for come last.
    """

    def support(name: str) -> dict[str, bool]:
        return {"supported": name in capabilities}

    never = {"supported": False}
    return {
        "batch": never,
        "citations": never,
        "code_execution": never,
        "context_management": never,
        "effort": {**support(THINKING), **{effort: support(THINKING) for effort in EFFORTS}},
        "image_input": support(IMAGES),
        "pdf_input": support(DOCUMENTS),
        "server_tools": {
            "supported": not {WEB_FETCH, WEB_SEARCH}.isdisjoint(capabilities),
            "web_search": support(WEB_SEARCH),
            "code_execution": never,
        },
        "structured_outputs": never,
        "thinking": {
            **support(THINKING),
            "types": {
                **{kind: support(THINKING) for kind in THINKING_TYPES},
                "disabled": {"supported": True},
            },
        },
        PROMPT_CACHING: support(PROMPT_CACHING),
        SYSTEM_MESSAGES: support(SYSTEM_MESSAGES),
        TOOLS: support(TOOLS),
        WEB_FETCH: support(WEB_FETCH),
    }


def _check_thinking(request: MessagesRequest) -> None:
    if request.thinking_type == "adaptive":
        raise InvalidRequestError(ADAPTIVE_TEXT, code=CODE, param="thinking")
    if request.thinking_type in ("between_tools", "enabled"):
        raise InvalidRequestError("thinking is not supported on this model", code=CODE, param="thinking")
    if request.effort is not None:
        raise InvalidRequestError(EFFORT_TEXT, code=CODE, param="output_config.effort")
