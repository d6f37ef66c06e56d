"""The sandbox upstream's journal against the usage records: what was delivered complete was billed by its counts."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson

from billing.bulk_rows import fetch_all
from billing.checks.books import MAX_BREAKS_LISTED, Outcome
from billing.checks.invariant import Check
from billing.request_id import parse_request_id
from billing.usage_event import PROVIDER

COMPLETE = "complete"
# The journal's name of a count -> the column of the record.
COUNTS = {
    "input": "input_tokens",
    "output": "output_tokens",
    "cache_write_5m": "cache_write_5m_tokens",
    "cache_write_1h": "cache_write_1h_tokens",
    "cache_read": "cache_read_tokens",
    "web_searches": "web_searches",
}
RECORDS_PER_QUERY = 10_000


def journal_check(path: Path) -> Check:
    """Return the check of one journal. Raises OSError when it is run and the file cannot be read."""
    name = f"what {path.name} shows as delivered has one usage record with its counts"
    return Check("I3", name, lambda _: _run(path), is_whole=True)


def _run(path: Path) -> Outcome:
    delivered = dict(_complete_attempts(path))
    breaks: list[str] = []
    ids = list(delivered)
    for start in range(0, len(ids), RECORDS_PER_QUERY):
        part = ids[start : start + RECORDS_PER_QUERY]
        rows = fetch_all(
            f"""SELECT request_id, usage_source, {", ".join(COUNTS.values())} FROM billing_usagerecord
                WHERE request_id = ANY(%s)""",  # noqa: S608  Constants of this file.
            [part],
        )
        records = {row[0]: (row[1], dict(zip(COUNTS, row[2:], strict=True))) for row in rows}
        for request_id in part:
            breaks += _judge(request_id, delivered[request_id], records.get(request_id))
    return Outcome(len(ids), breaks[:MAX_BREAKS_LISTED])


def _judge(request_id: UUID, attempt: dict[str, Any], record: tuple[str, dict[str, int]] | None) -> list[str]:
    if record is None:
        return [f"request {request_id} was delivered complete (journal line {attempt['n']}) and has no usage record"]
    source, counts = record
    served = attempt.get("usage")
    if source != PROVIDER or served is None:
        return []
    return compare_counts(request_id, served, counts)


def compare_counts(request_id: UUID, served: Mapping[str, int], recorded: Mapping[str, int]) -> list[str]:
    """Return a line that says how a record differs from what was served, both by the journal's names of counts."""
    expected = {name: served.get(name, 0) for name in COUNTS}
    return [] if recorded == expected else [f"request {request_id} was served {expected} and recorded {recorded}"]


def _complete_attempts(path: Path) -> Iterator[tuple[UUID, dict[str, Any]]]:
    """Yield the gateway's attempts that were delivered to their end."""
    return ((request_id, attempt) for request_id, attempt in read_attempts(path) if attempt["delivered"] == COMPLETE)


def read_attempts(path: Path) -> Iterator[tuple[UUID, dict[str, Any]]]:
    """Yield the gateway's attempts, oldest first, each with its last line. Half-written lines are passed over."""
    attempts: dict[int, dict[str, Any]] = {}
    with path.open("rb") as journal:
        for line in journal:
            with suppress(orjson.JSONDecodeError):
                fields = orjson.loads(line)
                attempts.setdefault(fields["n"], {}).update(fields)
    for attempt in attempts.values():
        request_id = parse_request_id(attempt.get("request_id") or "")
        if request_id is not None and "delivered" in attempt:
            yield request_id, attempt
