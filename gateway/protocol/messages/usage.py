"""Usage as the Messages protocol reports it, whole or streamed. Pure.

Counts of `message_start` and of every `message_delta` are cumulative: each replaces the one before, none is added. So
none can fall: a prompt that is smaller than the one reported before, or an output that is, wipes nothing. A prompt of
the same size or a larger one counts as it is split now. A report that cannot be true counts for nothing, and what was
said before it stands.

Cached tokens lie outside `input_tokens`, so the components are disjoint as they come. Iterations of the types in
ITERATIONS_INSIDE are in the top-level counts; all others (compaction, the advisor's) are not, says the SDK's
description of `usage.iterations`, yet are charged: they are added.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from billing.pricing.cost import Usage
from gateway.protocol.errors import ProtocolError
from gateway.protocol.json.exact import encode
from gateway.protocol.usage_reading import (
    MAX_STOP_REASON_CHARS,
    MAX_UPSTREAM_ID_CHARS,
    MAX_USAGE_TOKENS,
    MAX_USAGE_UNITS,
    UsageReading,
    UsageState,
    storable_text,
    utf8_length,
)

COUNT_FIELDS = ("input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
MAX_ITERATIONS = 1_000
# `fallback_message` is the sampling of a fallback model, which the top-level counts are those of.
ITERATIONS_INSIDE = ("message", "fallback_message")
THINKING_BLOCKS = ("thinking", "redacted_thinking")
TEXT_FIELDS = ("text", "thinking", "data")  # `data` is hidden thinking.
RESULT_SUFFIX = "_tool_result"
_NO_TOTALS = (0, 0, 0, 0, 0)


class UnusableUsageError(ProtocolError):
    """A count that cannot be true."""


class ReportedPrompt(NamedTuple):
    """The prompt as one report has it. `cache_write_tokens` are all that were written, those of an hour among them."""

    input_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_1h_tokens: int = 0
    cache_read_tokens: int = 0

    @property
    def total(self) -> int:
        return self.input_tokens + self.cache_write_tokens + self.cache_read_tokens


class MessagesUsageReader:
    """Collects the usage of one reply. It never raises: what cannot be true marks the reading unusable."""

    def __init__(self) -> None:
        self.delivered_bytes = 0
        self.stop_reason = ""
        self.upstream_message_id = ""
        self.is_complete = False
        self._has_thinking = False
        self._prompt = ReportedPrompt()
        self._has_input = False
        self._output: int | None = None
        self._web_searches = 0
        self._extra = _NO_TOTALS  # Of iterations outside the top-level counts.
        self._problem = ""

    def read_message(self, message: Mapping[str, Any]) -> None:
        """Take a whole reply: its usage is final."""
        self._read_identity(message)
        self.read_usage(message.get("usage"), is_start=False)
        self.read_stop_reason(message)
        for block in message["content"]:
            if isinstance(block, dict):
                self._add_block(block)
        self.is_complete = True

    def read_start(self, message: Mapping[str, Any]) -> None:
        """Take the message of `message_start`: its output count is a placeholder and says nothing."""
        self._read_identity(message)
        self.read_usage(message.get("usage"), is_start=True)

    def read_stop_reason(self, delta: Mapping[str, Any]) -> None:
        self.stop_reason = storable_text(delta.get("stop_reason"), MAX_STOP_REASON_CHARS) or self.stop_reason

    def read_block_start(self, block: Mapping[str, Any]) -> None:
        """Count what a block starts with: usually nothing; some upstreams (llama.cpp) put a whole tool call here.

        Whole results of server tools are no output of the model's.
        """
        self._add_block(block)

    def read_delta(self, delta: Mapping[str, Any]) -> None:
        """Count the text of a `content_block_delta`."""
        for name in ("text", "thinking", "partial_json"):
            text = delta.get(name)
            if text is not None:
                if isinstance(text, str):
                    self.delivered_bytes += utf8_length(text)
                return

    def read_usage(self, usage: object, *, is_start: bool) -> None:
        if usage is None:
            return
        try:
            if not isinstance(usage, dict):
                raise UnusableUsageError("usage is not an object")
            self._read_counts(usage, is_start=is_start)
        except UnusableUsageError as error:
            self._problem = self._problem or str(error)

    def counts(self) -> tuple[int, int, int, int]:
        """Return the four counts of COUNT_FIELDS as they stand, 0 for what is unknown: what the client is shown."""
        prompt = self._prompt
        return (prompt.input_tokens, self._output or 0, prompt.cache_write_tokens, prompt.cache_read_tokens)

    def reading(self) -> UsageReading:
        has_input, has_output = self._has_input, self._output is not None
        if self._problem:
            state = UsageState.UNUSABLE
        elif self.is_complete and has_input and has_output:
            state = UsageState.FINAL
        elif has_input or has_output:
            state = UsageState.PARTIAL
        else:
            state = UsageState.ABSENT
        return UsageReading(
            state=state,
            usage=self._disjoint_usage(),
            has_input=has_input,
            has_output=has_output,
            delivered_bytes=self.delivered_bytes,
            is_complete=self.is_complete,
            stop_reason=self.stop_reason,
            upstream_message_id=self.upstream_message_id,
            problem=self._problem,
            has_thinking=self._has_thinking,
        )

    def _read_identity(self, message: Mapping[str, Any]) -> None:
        self.upstream_message_id = storable_text(message.get("id"), MAX_UPSTREAM_ID_CHARS)

    def _add_block(self, block: Mapping[str, Any]) -> None:
        """Count what the model wrote of a block: whatever its type, unless a tool of the provider's found it."""
        kind = block.get("type")
        if isinstance(kind, str) and kind.endswith(RESULT_SUFFIX):
            return
        self._has_thinking = self._has_thinking or kind in THINKING_BLOCKS
        for name in TEXT_FIELDS:
            text = block.get(name)
            if isinstance(text, str):
                self.delivered_bytes += utf8_length(text)
        if block.get("input"):
            self.delivered_bytes += len(encode(block["input"]))

    def _read_counts(self, usage: dict[str, Any], *, is_start: bool) -> None:
        """Take a report: all of it or, when any of it cannot be true, nothing."""
        prompt, output = self._read_prompt(usage), read_count(usage, "output_tokens")
        searches = _read_web_searches(usage)
        details = usage.get("output_tokens_details")
        self._has_thinking = self._has_thinking or bool(isinstance(details, dict) and details.get("thinking_tokens"))
        iterations = usage.get("iterations")
        extra = _NO_TOTALS if iterations is None else _totals_outside(iterations)
        if prompt is not None and prompt.total >= self._prompt.total:
            self._prompt = prompt
        # What is said only of the cache leaves the count of input tokens unsaid.
        self._has_input = self._has_input or usage.get("input_tokens") is not None
        if output is not None and not is_start:
            self._output = max(output, self._output or 0)
        self._web_searches = max(searches, self._web_searches)
        if sum(extra) >= sum(self._extra):
            self._extra = extra

    def _read_prompt(self, usage: dict[str, Any]) -> ReportedPrompt | None:
        """Return the prompt as it stands with this report; None when it says nothing of it."""
        known = self._prompt
        input_tokens = read_count(usage, "input_tokens")
        cache_read = read_count(usage, "cache_read_input_tokens")
        cache_write, write_1h = read_cache_write(usage)
        if input_tokens is None and cache_read is None and cache_write is None:
            return None
        if cache_write is None:
            cache_write, write_1h = known.cache_write_tokens, known.cache_write_1h_tokens
        elif write_1h is None:
            # A later total without a split keeps what is known of the hour's part; the rest of it is 5 minutes.
            write_1h = min(known.cache_write_1h_tokens, cache_write)
        return ReportedPrompt(
            known.input_tokens if input_tokens is None else input_tokens,
            cache_write,
            write_1h or 0,
            known.cache_read_tokens if cache_read is None else cache_read,
        )

    def _disjoint_usage(self) -> Usage:
        extra_input, extra_output, extra_5m, extra_1h, extra_read = self._extra
        prompt = self._prompt
        return Usage(
            input_tokens=prompt.input_tokens + extra_input,
            output_tokens=(self._output or 0) + extra_output,
            cache_write_5m_tokens=prompt.cache_write_tokens - prompt.cache_write_1h_tokens + extra_5m,
            cache_write_1h_tokens=prompt.cache_write_1h_tokens + extra_1h,
            cache_read_tokens=prompt.cache_read_tokens + extra_read,
            web_searches=self._web_searches,
        )


def read_count(usage: Mapping[str, Any], name: str, maximum: int = MAX_USAGE_TOKENS) -> int | None:
    """Return the count, None when it was not said. Raises UnusableUsageError; True is no 1."""
    value = usage.get(name)
    if value is None:
        return None
    if type(value) is not int or not 0 <= value <= maximum:
        raise UnusableUsageError(f"{name} is {str(value)[:40]!r}")
    return value


def read_cache_write(usage: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Return all tokens written to the cache, and the part of them that is kept for an hour; None for what is unsaid.

    No split means that all of it is 5 minutes; a split that covers less than the total leaves the rest at 5 minutes.
    Raises UnusableUsageError when the parts are more than the whole.
    """
    total = read_count(usage, "cache_creation_input_tokens")
    split = usage.get("cache_creation")
    if split is None:
        return total, None
    if not isinstance(split, dict):
        raise UnusableUsageError("cache_creation is not an object")
    split_5m = read_count(split, "ephemeral_5m_input_tokens")
    split_1h = read_count(split, "ephemeral_1h_input_tokens")
    if split_5m is None and split_1h is None:
        return total, None
    parts = (split_5m or 0) + (split_1h or 0)
    if total is None:
        return parts, split_1h or 0
    if parts > total:
        raise UnusableUsageError(f"cache_creation adds up to {parts}, more than {total}")
    return total, split_1h or 0


def _read_web_searches(usage: Mapping[str, Any]) -> int:
    server_tools = usage.get("server_tool_use")
    if server_tools is None:
        return 0
    if not isinstance(server_tools, dict):
        raise UnusableUsageError("server_tool_use is not an object")
    return read_count(server_tools, "web_search_requests", MAX_USAGE_UNITS) or 0


def _totals_outside(iterations: object) -> tuple[int, int, int, int, int]:
    if not isinstance(iterations, list) or len(iterations) > MAX_ITERATIONS:
        raise UnusableUsageError("iterations is not a list, or too long a one")
    totals = _NO_TOTALS
    for iteration in iterations:
        if not isinstance(iteration, dict) or iteration.get("type") in ITERATIONS_INSIDE:
            continue
        cache_write, cache_write_1h = read_cache_write(iteration)
        counts = (
            read_count(iteration, "input_tokens") or 0,
            read_count(iteration, "output_tokens") or 0,
            (cache_write or 0) - (cache_write_1h or 0),
            cache_write_1h or 0,
            read_count(iteration, "cache_read_input_tokens") or 0,
        )
        totals = tuple(map(sum, zip(totals, counts, strict=True)))  # type: ignore[assignment]  # Five and five are five.
    if max(totals) > MAX_USAGE_TOKENS:
        raise UnusableUsageError("iterations add up to an absurd count")
    return totals
