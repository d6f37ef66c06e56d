"""How far counts that had to be estimated lie from what the sandbox upstream's journal shows. Measured, not judged."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from billing.checks.books import Outcome
from billing.checks.invariant import Check
from billing.checks.journal import COMPLETE, RECORDS_PER_QUERY, read_attempts
from billing.models import UsageRecord
from billing.usage_event import PROVIDER

PROMPT_COUNTS = ("input", "cache_write_5m", "cache_write_1h", "cache_read")


@dataclass(slots=True)
class _Error:
    """Sums over the records of one usage source. `*_known` are recorded counts whose true count is known too."""

    requests: int = 0
    input_known: int = 0
    input_true: int = 0
    output_known: int = 0
    output_true: float = 0.0

    def describe(self) -> str:
        return (
            f"{self.requests} requests, input {_percent(self.input_known, self.input_true)},"
            f" output {_percent(self.output_known, self.output_true)}"
        )


def estimates_check(path: Path) -> Check:
    """Return the check of one journal. Raises OSError when it is run and the file cannot be read."""
    return Check("I5", f"how far estimated, partial and orphan counts lie from {path.name}", lambda _: _run(path), True)


def _run(path: Path) -> Outcome:
    attempts = dict(read_attempts(path))  # The last attempt of a request is the one that served it.
    tokens_per_character = _measure_tokens(attempts)
    errors: dict[str, _Error] = defaultdict(_Error)
    ids = list(attempts)
    for start in range(0, len(ids), RECORDS_PER_QUERY):
        records = UsageRecord.objects.filter(request_id__in=ids[start : start + RECORDS_PER_QUERY])
        for record in records.exclude(usage_source=PROVIDER):
            _add(errors[record.usage_source], record, attempts[record.request_id], tokens_per_character)
    note = "; ".join(f"{source}: {error.describe()}" for source, error in sorted(errors.items()))
    return Outcome(sum(error.requests for error in errors.values()), note=note or "every count is the provider's")


def _measure_tokens(attempts: Mapping[UUID, dict[str, Any]]) -> float:
    """Return how many tokens the upstream counted for a character of text, over what it delivered complete."""
    whole = [attempt for attempt in attempts.values() if attempt["delivered"] == COMPLETE and attempt.get("text_chars")]
    characters = sum(attempt["text_chars"] for attempt in whole if attempt.get("usage"))
    tokens = sum(attempt["usage"]["output"] for attempt in whole if attempt.get("usage"))
    return tokens / characters if characters else 0.0


def _add(error: _Error, record: UsageRecord, attempt: Mapping[str, Any], tokens_per_character: float) -> None:
    error.requests += 1
    usage = attempt.get("usage")
    if usage is not None:
        recorded = record.input_tokens + record.cache_read_tokens
        error.input_known += recorded + record.cache_write_5m_tokens + record.cache_write_1h_tokens
        error.input_true += sum(usage.get(name, 0) for name in PROMPT_COUNTS)
    if attempt["delivered"] == COMPLETE and usage is not None:
        error.output_known += record.output_tokens
        error.output_true += usage["output"]
    elif tokens_per_character:
        # A stream that was cut reported no final count: what it delivered is counted as whole replies were.
        error.output_known += record.output_tokens
        error.output_true += attempt.get("text_chars", 0) * tokens_per_character


def _percent(recorded: float, true: float) -> str:
    if not true:
        return "unknown" if not recorded else f"{recorded:.0f} tokens for none"
    return f"{100 * (recorded - true) / true:+.1f} %"
