"""Token counts of one reply, by component, each token in exactly one of them. Pure."""

from dataclasses import dataclass, replace

from sandbox.directives import Directives

NEGATIVE_TOKENS = -1_000
ABSURD_TOKENS = 10**18
PLACEHOLDER_OUTPUT_TOKENS = 1
"""What Anthropic reports in message_start, before anything was generated."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Disjoint components: `input` is what neither came from the cache nor went into it."""

    input: int
    output: int
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    cache_read: int = 0
    web_searches: int = 0
    reasoning: int = 0
    """Part of `output` already."""
    split: bool = True
    """Whether the cache write is reported by lifetime. Where it is not, `cache_write_5m` holds all of it."""

    @property
    def cache_write(self) -> int:
        return self.cache_write_5m + self.cache_write_1h

    def components(self) -> dict[str, int]:
        """As the journal writes it."""
        return {
            "input": self.input,
            "output": self.output,
            "cache_write_5m": self.cache_write_5m,
            "cache_write_1h": self.cache_write_1h,
            "cache_read": self.cache_read,
            "web_searches": self.web_searches,
        }


def directed_usage(usage: Usage, directives: Directives) -> Usage | None:
    """What is to be reported instead of the honest count; None for no report at all."""
    if "no_usage" in directives:
        return None
    if "negative_usage" in directives:
        return Usage(input=NEGATIVE_TOKENS, output=NEGATIVE_TOKENS)
    if "absurd_usage" in directives:
        return Usage(input=ABSURD_TOKENS, output=ABSURD_TOKENS)
    if "cache_write" in directives:
        usage = replace(usage, cache_write_5m=directives.number("cache_write", 0), cache_write_1h=0, split=False)
    return replace(
        usage,
        input=directives.number("input_tokens", usage.input),
        cache_read=directives.number("cache_read", usage.cache_read),
        cache_write_5m=directives.number("cache_write_5m", usage.cache_write_5m),
        cache_write_1h=directives.number("cache_write_1h", usage.cache_write_1h),
    )
