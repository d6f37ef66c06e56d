"""The answer of count_tokens where no upstream can count: an upper-bound estimate. Pure.

The rule, the one that holds are made by: every byte of the request's body outside image data, divided by
`bytes_per_token` and rounded up, and each image at the most that the language model may count for one; where tools are
declared, an allowance for the provider's own instructions on them, and for its descriptions of its own tools. Documents
count by their bytes, as text does.
"""

import orjson

from billing.pricing.estimation import worst_case_input_tokens
from gateway.protocol.messages.request import MessagesRequest

TOOL_INSTRUCTION_TOKENS = 1_000  # Providers add a few hundred tokens of their own to a prompt with tools.
# The description of a typed tool is the provider's: Anthropic names 245 tokens (bash) to 735 (computer use).
TYPED_TOOL_TOKENS = 1_000
TOOLSET_TOKENS = 10_000  # One entry that stands for some twenty tools.
TOOLSET = "_toolset_"
ESTIMATE_HEADER = "x-crossmodel-token-count"
ESTIMATED = "estimated"


def estimate_input_tokens(request: MessagesRequest, *, max_image_tokens: int, bytes_per_token: int) -> int:
    """Return the most input tokens that the request may be counted as."""
    tokens = worst_case_input_tokens(
        body_bytes=request.body_bytes,
        image_count=request.image_count,
        image_data_bytes=request.image_data_bytes,
        max_image_tokens=max_image_tokens,
        bytes_per_token=bytes_per_token,
    )
    for _, tool in request.provider_tools:
        tokens += TOOLSET_TOKENS if TOOLSET in tool["type"] else TYPED_TOOL_TOKENS
    return tokens + (TOOL_INSTRUCTION_TOKENS if request.has_tools or request.provider_tools else 0)


def encode_token_count(input_tokens: int) -> bytes:
    """Return the body of a count_tokens answer."""
    return orjson.dumps({"input_tokens": input_tokens})
