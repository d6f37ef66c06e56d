"""The answer of count_tokens where no upstream can count: an upper-bound estimate. Pure.

The rule, the one that holds are made by: every byte of the request's body outside image data, divided by
`bytes_per_token` and rounded up, and each image at the most that the language model may count for one; where tools are
declared, an allowance for the provider's own instructions on them. Documents count by their bytes, as text does.
"""

import orjson

from billing.estimation import worst_case_input_tokens
from gateway.protocol.messages_request import MessagesRequest

TOOL_INSTRUCTION_TOKENS = 1_000  # Providers add a few hundred tokens of their own to a prompt with tools.
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
    return tokens + (TOOL_INSTRUCTION_TOKENS if request.has_tools else 0)


def encode_token_count(input_tokens: int) -> bytes:
    """Return the body of a count_tokens answer."""
    return orjson.dumps({"input_tokens": input_tokens})
