"""Usage as Chat Completions reports it, made into disjoint components. Pure.

`prompt_tokens` holds the cached ones and `completion_tokens` the reasoning ones, unless the profile says otherwise.
Sources: OpenAI's reference of `usage`; DeepSeek's `prompt_cache_hit_tokens`; OpenRouter's `cache_write_tokens`.
"""

from dataclasses import replace
from typing import Any

from billing.pricing import Usage
from gateway.protocol.messages_usage import UnusableUsageError, read_count
from gateway.protocol.profile import UpstreamProfile
from gateway.protocol.reading import (
    MAX_STOP_REASON_CHARS,
    MAX_UPSTREAM_ID_CHARS,
    UsageReading,
    UsageState,
    storable_text,
    utf8_length,
)


class ChatUsageReader:
    """Collects the usage of one reply: the last report counts. It never raises."""

    def __init__(self, profile: UpstreamProfile) -> None:
        self._profile = profile
        self._usage = Usage()
        self._has_input = False
        self._has_output = False
        self._problem = ""
        self.delivered_bytes = 0
        self.stop_reason = ""
        self.upstream_message_id = ""
        self.is_complete = False

    def read_id(self, value: object) -> None:
        self.upstream_message_id = self.upstream_message_id or storable_text(value, MAX_UPSTREAM_ID_CHARS)

    def add_text(self, text: str) -> None:
        self.delivered_bytes += utf8_length(text)

    def complete(self, stop_reason: str) -> None:
        self.stop_reason = storable_text(stop_reason, MAX_STOP_REASON_CHARS)
        self.is_complete = True

    def read_usage(self, usage: object) -> None:
        if usage is None:
            return
        try:
            if not isinstance(usage, dict):
                raise UnusableUsageError("usage is no object")
            self._read_counts(usage)
        except UnusableUsageError as error:
            self._problem = self._problem or str(error)

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
        is_usable = state is not UsageState.UNUSABLE
        return UsageReading(
            state=state,
            usage=self._usage if is_usable else Usage(),
            has_input=self._has_input and is_usable,
            has_output=self._has_output and is_usable,
            delivered_bytes=self.delivered_bytes,
            is_complete=self.is_complete,
            stop_reason=self.stop_reason,
            upstream_message_id=self.upstream_message_id,
            problem=self._problem,
        )

    def _read_counts(self, usage: dict[str, Any]) -> None:
        """Take what is said; a side of which nothing is said keeps what was said of it before."""
        prompt = read_count(usage, "prompt_tokens")
        if prompt is not None:
            self._read_prompt(usage, prompt)
        completion = read_count(usage, "completion_tokens")
        if completion is not None:
            if self._profile.reasoning_outside_completion:
                details = _details(usage, "completion_tokens_details")
                completion += read_count(details, "reasoning_tokens") or 0
            self._has_output = True
            self._usage = replace(self._usage, output_tokens=completion)

    def _read_prompt(self, usage: dict[str, Any], prompt: int) -> None:
        details = _details(usage, "prompt_tokens_details")
        cached = read_count(details, "cached_tokens")
        if cached is None:
            cached = read_count(usage, "prompt_cache_hit_tokens")
        cached = cached or 0
        written = read_count(details, "cache_write_tokens") or 0
        if not self._profile.cached_outside_prompt:
            if cached + written > prompt:
                raise UnusableUsageError(f"{cached} cached and {written} written tokens in a prompt of {prompt}")
            prompt -= cached + written
        self._has_input = True
        self._usage = replace(self._usage, input_tokens=prompt, cache_write_5m_tokens=written, cache_read_tokens=cached)


def _details(usage: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the details, empty when absent or null. Raises UnusableUsageError when they are no object."""
    details = usage.get(name)
    if details is None:
        return {}
    if not isinstance(details, dict):
        raise UnusableUsageError(f"{name} is no object")
    return details
