"""Usage as Chat Completions reports it, made into disjoint components. Pure.

Where it lies: `usage` of a reply or chunk; `choices[0].usage` of the last chunk (Moonshot); `x_groq.usage` (Groq).
Continuous reports (vLLM, xAI: one in each chunk) are cumulative; as in messages_usage, none can fall.

`prompt_tokens` holds the cached ones, unless the profile says otherwise. Cached ones are `cached_tokens` of
`prompt_tokens_details` (OpenAI and most others), `cached_tokens` of `usage` itself (Moonshot, Together),
`prompt_cache_hit_tokens` (DeepSeek), `num_cached_tokens` or `prompt_token_details` (Mistral), `cache_read_input_tokens`
(proxies of Anthropic's models); written ones are `cache_write_tokens` (OpenRouter) or `cache_creation_input_tokens`
(Qwen, the same proxies).

Some speak of `input_tokens` and `output_tokens`, as OpenAI's newer API and Anthropic do. Of these, what is cached by
OpenAI's names for it is part of the input, and by Anthropic's it is not.

`completion_tokens` holds the reasoning ones at most providers. At xAI and Gemini it does not, but `total_tokens` does:
so output is what the total leaves beside the prompt, where that is more. A profile can say it of those without totals.
"""

from collections.abc import Mapping
from typing import Any

from billing.pricing.cost import Usage
from gateway.protocol.messages.usage import UnusableUsageError, read_count
from gateway.protocol.profile import UpstreamProfile
from gateway.protocol.usage_reading import (
    MAX_STOP_REASON_CHARS,
    MAX_UPSTREAM_ID_CHARS,
    UsageReading,
    UsageState,
    storable_text,
    utf8_length,
)

CACHED_PLACES = ("prompt_cache_hit_tokens", "cached_tokens", "num_cached_tokens", "cache_read_input_tokens")
CACHED_DETAILS = ("cached_tokens",)
PROMPT_DETAILS = ("prompt_token_details", "prompt_tokens_details", "input_tokens_details")
WRITTEN_PLACES = ("cache_creation_input_tokens",)
WRITTEN_DETAILS = ("cache_write_tokens", "cache_creation_tokens", "cache_creation_input_tokens")


class ChatUsageReader:
    """Collects the usage of one reply. It never raises: what cannot be true marks the reading unusable."""

    def __init__(self, profile: UpstreamProfile) -> None:
        self._profile = profile
        self._usage = Usage()
        self._has_input = False
        self._has_output = False
        self._problem = ""
        self._has_thinking = False
        self.delivered_bytes = 0
        self.stop_reason = ""
        self.upstream_message_id = ""
        self.is_complete = False

    def read_id(self, value: object) -> None:
        self.upstream_message_id = self.upstream_message_id or storable_text(value, MAX_UPSTREAM_ID_CHARS)

    def add_thinking(self, text: str) -> None:
        self._has_thinking = self._has_thinking or bool(text)
        self.add_text(text)

    def add_text(self, text: str) -> None:
        self.delivered_bytes += utf8_length(text)

    def complete(self, stop_reason: str) -> None:
        self.stop_reason = storable_text(stop_reason, MAX_STOP_REASON_CHARS)
        self.is_complete = True

    def read_payload(self, payload: Mapping[str, Any]) -> None:
        """Take a reply or a chunk: what it says of usage, wherever it says so."""
        self.read_usage(payload.get("usage"))
        groq = payload.get("x_groq")
        if isinstance(groq, dict):
            self.read_usage(groq.get("usage"))
        choices = payload.get("choices")
        if isinstance(choices, list) and choices and isinstance(choices[0], dict):
            self.read_usage(choices[0].get("usage"))

    def read_usage(self, usage: object) -> None:
        if usage is None:
            return
        try:
            if not isinstance(usage, dict):
                raise UnusableUsageError("usage is not an object")
            self._read_counts(usage)
        except UnusableUsageError as error:
            self._problem = self._problem or str(error)

    @property
    def has_usage(self) -> bool:
        """True once anything was said that can be true."""
        return self._has_input or self._has_output

    def counts(self) -> tuple[int, int, int, int]:
        """Return the four counts that the client is shown: input, output, cache write, cache read."""
        usage = self._usage
        return (usage.input_tokens, usage.output_tokens, usage.cache_write_5m_tokens, usage.cache_read_tokens)

    def reading(self) -> UsageReading:
        if self._problem:
            state = UsageState.UNUSABLE
        elif self.is_complete and self._has_input and self._has_output:
            state = UsageState.FINAL
        elif self._has_input or self._has_output:
            state = UsageState.PARTIAL
        else:
            state = UsageState.ABSENT
        return UsageReading(
            state=state,
            usage=self._usage,
            has_input=self._has_input,
            has_output=self._has_output,
            delivered_bytes=self.delivered_bytes,
            is_complete=self.is_complete,
            stop_reason=self.stop_reason,
            upstream_message_id=self.upstream_message_id,
            problem=self._problem,
            has_thinking=self._has_thinking,
        )

    def _read_counts(self, usage: dict[str, Any]) -> None:
        """Take what is said; a side of which nothing is said keeps what was said of it before.

        A report counts as a whole or, when any of it cannot be true, for nothing.
        """
        prompt, cached_is_outside = read_count(usage, "prompt_tokens"), self._profile.cached_outside_prompt
        if prompt is None:
            prompt = read_count(usage, "input_tokens")
            cached_is_outside = cached_is_outside or not _details(usage, "input_tokens_details")
        prompt_side = None if prompt is None else _read_prompt(usage, prompt, cached_is_outside=cached_is_outside)
        completion = self._read_completion(usage, None if cached_is_outside else prompt)
        if prompt_side is not None and prompt_side.prompt_tokens >= self._usage.prompt_tokens:
            self._has_input = True
            self._usage = prompt_side._replace(output_tokens=self._usage.output_tokens)
        if completion is not None:
            self._has_output = True
            self._usage = self._usage._replace(output_tokens=max(completion, self._usage.output_tokens))

    def _read_completion(self, usage: dict[str, Any], prompt: int | None) -> int | None:
        """Return the output tokens. `prompt` is what `total_tokens` holds beside them, None where that is not known."""
        completion, details = read_count(usage, "completion_tokens"), _details(usage, "completion_tokens_details")
        if completion is None:
            completion, details = read_count(usage, "output_tokens"), _details(usage, "output_tokens_details")
        total = read_count(usage, "total_tokens")
        if completion is None:
            return None
        reasoning = read_count(details, "reasoning_tokens") or 0
        self._has_thinking = self._has_thinking or reasoning > 0
        if self._profile.reasoning_outside_completion:
            return completion + reasoning
        if prompt is None or total is None:
            return completion
        beside = total - prompt - completion
        if beside <= 0 or reasoning not in (0, beside):
            return completion
        self._has_thinking = True  # Gemini names no reasoning tokens; where they are named, just these were left out.
        return completion + beside


def _read_prompt(usage: dict[str, Any], prompt: int, *, cached_is_outside: bool) -> Usage:
    details: dict[str, Any] = {}
    for name in PROMPT_DETAILS:
        details.update(_details(usage, name))
    cached = max(_most(details, CACHED_DETAILS), _most(usage, CACHED_PLACES))
    written = max(_most(details, WRITTEN_DETAILS), _most(usage, WRITTEN_PLACES))
    if not cached_is_outside:
        if cached + written > prompt:
            raise UnusableUsageError(f"{cached} cached and {written} written tokens in a prompt of {prompt}")
        prompt -= cached + written
    return Usage(input_tokens=prompt, cache_write_5m_tokens=written, cache_read_tokens=cached)


def _most(counts: dict[str, Any], places: tuple[str, ...]) -> int:
    """Return the count that is said in any of these places: some say 0 in one and the truth in another."""
    return max((read_count(counts, place) or 0) for place in places)


def _details(usage: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the details, empty when absent or null. Raises UnusableUsageError when they are not an object."""
    details = usage.get(name)
    if details is None:
        return {}
    if not isinstance(details, dict):
        raise UnusableUsageError(f"{name} is not an object")
    return details
