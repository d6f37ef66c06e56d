"""The `anthropic-ratelimit-*` headers of an answer. Pure."""

from datetime import UTC, datetime
from functools import lru_cache

from billing.admission.calls.admit import Rates

MAX_KNOWN_SECONDS = 1_000


def rate_headers(rates: Rates, now: datetime) -> dict[str, str]:
    """Return the `anthropic-ratelimit-*` headers; `tokens` is the tighter of input and output."""
    states = {"requests": rates.requests, "input-tokens": rates.input_tokens, "output-tokens": rates.output_tokens}
    limited = [rate for rate in (rates.input_tokens, rates.output_tokens) if rate.limit >= 0]
    if limited:
        states["tokens"] = min(limited, key=lambda rate: rate.remaining)
    headers = {}
    for name, rate in states.items():
        if rate.limit < 0:
            continue
        reset_second = int(now.timestamp() + rate.reset_us / 1_000_000)
        headers[f"anthropic-ratelimit-{name}-limit"] = str(rate.limit)
        headers[f"anthropic-ratelimit-{name}-remaining"] = str(rate.remaining)
        headers[f"anthropic-ratelimit-{name}-reset"] = _format_second(reset_second)
    return headers


@lru_cache(maxsize=MAX_KNOWN_SECONDS)
def _format_second(second: int) -> str:
    """Return the time as RFC 3339 has it, UTC: the same few seconds are told over and over."""
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
