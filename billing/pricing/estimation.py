"""The worst case of a request, before the call: what its hold must cover. Pure, and on the request path.

Whatever a request uses within its estimate (a prompt of at most `input_tokens`, at most `output_tokens` of output, no
more images and searches than said) costs at most `worst_case_nanos`.
"""

from billing.pricing.cost import (
    CACHE_READ,
    CACHE_WRITE_5M,
    FACTOR_ONE_PPM,
    IMAGE,
    INPUT,
    OUTPUT,
    PICOS_PPM_PER_NANO,
    PROMPT_COMPONENTS,
    WEB_SEARCH,
    PriceTable,
    price_picos,
)
from billing.usage_event import MAX_COUNT

# What a prompt token may be priced as, when the request marks nothing for caching, or nothing for an hour.
PROMPT_WITHOUT_CACHE_WRITES = (INPUT, CACHE_READ)
PROMPT_WITH_5M_CACHE_WRITES = (INPUT, CACHE_READ, CACHE_WRITE_5M)
PROMPT_WITH_ALL_CACHE_WRITES = PROMPT_COMPONENTS


def worst_case_input_tokens(
    *, body_bytes: int, image_count: int, image_data_bytes: int, max_image_tokens: int, bytes_per_token: int
) -> int:
    """Return the most input tokens that a body may count as: its bytes without image data, each image at its maximum.

    `image_data_bytes` are those of base64 data inside the body; images by url have none. Rounded up.
    """
    text_bytes = body_bytes - image_data_bytes
    if min(text_bytes, image_count, image_data_bytes) < 0 or bytes_per_token < 1:
        raise ValueError("Sizes cannot be negative, and image data is a part of the body.")
    return -(-text_bytes // bytes_per_token) + image_count * max_image_tokens


def worst_case_nanos(
    price: PriceTable,
    *,
    input_tokens: int,
    output_tokens: int,
    factor_ppm: int = FACTOR_ONE_PPM,
    prompt_components: tuple[str, ...] = PROMPT_COMPONENTS,
    images: int = 0,
    web_searches: int = 0,
) -> int:
    """Return the most that the request may cost, in nano-dollars: every token at the dearest price it could get.

    `prompt_components` says what prompt tokens may become; name only those, since an hour's cache write costs double.
    """
    picos = _fixed_picos(price, input_tokens, prompt_components, images, web_searches)
    picos += output_tokens * price.dearest_picos((OUTPUT,), prompt_tokens=input_tokens)
    return price_picos(picos, price, factor_ppm)


def affordable_max_tokens(
    available_nanos: int,
    price: PriceTable,
    *,
    input_tokens: int,
    factor_ppm: int = FACTOR_ONE_PPM,
    prompt_components: tuple[str, ...] = PROMPT_COMPONENTS,
    images: int = 0,
    web_searches: int = 0,
    ceiling: int = MAX_COUNT,
) -> int:
    """Return the largest `max_tokens`, at most `ceiling`, whose worst case fits `available_nanos`; 0 when none does."""
    fixed_picos = _fixed_picos(price, input_tokens, prompt_components, images, web_searches)
    if price_picos(fixed_picos, price, factor_ppm) > available_nanos:
        return 0
    output_picos = price.dearest_picos((OUTPUT,), prompt_tokens=input_tokens)
    if output_picos == 0 or factor_ppm == 0:
        return ceiling
    # Rounding up means: the cost fits exactly when picos x factor <= available x the divisor.
    affordable_picos = available_nanos * PICOS_PPM_PER_NANO // factor_ppm
    return min(ceiling, (affordable_picos - fixed_picos) // output_picos)


def _fixed_picos(
    price: PriceTable, input_tokens: int, prompt_components: tuple[str, ...], images: int, web_searches: int
) -> int:
    picos = input_tokens * price.dearest_picos(prompt_components, prompt_tokens=input_tokens)
    if images:
        picos += images * price.dearest_picos((IMAGE,), prompt_tokens=input_tokens)
    if web_searches:
        picos += web_searches * price.dearest_picos((WEB_SEARCH,), prompt_tokens=input_tokens)
    return picos
