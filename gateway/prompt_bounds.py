"""How many tokens a request can have at most: what its hold covers, and from where on a count is no truth. Pure.

A body holds what it says: that is estimated from its bytes. Where the provider may add to the prompt (pages of a
document, results of a search), the bound is what the catalog states for that, and else the model's context window.
"""

from typing import Any, NamedTuple

from billing.catalog.snapshot import CatalogModel
from gateway.protocol.messages.count_tokens import estimate_input_tokens
from gateway.protocol.messages.request import MessagesRequest
from gateway.protocol.messages.tools import WEB_FETCH, WEB_SEARCH, sold_name

DEFAULT_TOOL_USES = 10  # Held for when a tool of the provider's names no `max_uses`.
DOCUMENT = "document"  # In the catalog's `expansion_tokens`, beside the names of tools.
# What providers put around a prompt at most: templates, instructions of their own. Only for what is believed.
MAX_PROVIDER_TOKENS = 32_768
SAMPLINGS_WITH_COMPACTION = 2  # Once for the summary, once for the answer.


class PromptBounds(NamedTuple):
    """Tokens of all samplings together, but `written_tokens`, which are what the body itself may count as."""

    written_tokens: int
    held_prompt_tokens: int
    held_output_tokens: int
    most_prompt_tokens: int
    most_output_tokens: int
    samplings: int
    may_grow: bool  # The provider may add to the prompt.


def bound_prompt(request: MessagesRequest, catalog_model: CatalogModel, *, bytes_per_token: int) -> PromptBounds:
    """Return the bounds of a checked request. Whatever is believed of a prompt that may grow is held for."""
    written = estimate_input_tokens(
        request, max_image_tokens=catalog_model.max_image_tokens, bytes_per_token=bytes_per_token
    )
    added = _added_tokens(request, catalog_model)
    if added:
        held = most = max(written, min(written + added, catalog_model.context_tokens))
    else:
        held = written
        each_byte_a_token = estimate_input_tokens(
            request, max_image_tokens=catalog_model.max_image_tokens, bytes_per_token=1
        )
        most = max(written, min(each_byte_a_token + MAX_PROVIDER_TOKENS, catalog_model.context_tokens))
    samplings = SAMPLINGS_WITH_COMPACTION if request.compacts else 1
    return PromptBounds(
        written_tokens=written,
        held_prompt_tokens=held * samplings,
        held_output_tokens=request.max_tokens * samplings,
        most_prompt_tokens=most * samplings,
        most_output_tokens=max(request.max_tokens, catalog_model.max_output_tokens) * samplings,
        samplings=samplings,
        may_grow=added > 0,
    )


def count_searches(request: MessagesRequest) -> int:
    """Return how many web searches the request may make."""
    return sum(_uses(tool) for _, tool in request.provider_tools if sold_name(tool["type"]) == WEB_SEARCH)


def _added_tokens(request: MessagesRequest, catalog_model: CatalogModel) -> int:
    window = catalog_model.context_tokens
    if request.unknown_blocks:
        return window
    added = request.expandable_documents * catalog_model.expansion_tokens.get(DOCUMENT, window)
    for _, tool in request.provider_tools:
        name = sold_name(tool["type"])
        if name is None:
            continue
        each = catalog_model.expansion_tokens.get(name, window)
        if name == WEB_FETCH and tool.get("max_content_tokens") is not None:
            each = min(each, tool["max_content_tokens"])
        added += _uses(tool) * each
    return added


def _uses(tool: dict[str, Any]) -> int:
    max_uses: int | None = tool.get("max_uses")
    return DEFAULT_TOOL_USES if max_uses is None else max_uses
