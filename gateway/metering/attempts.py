"""The calls to upstreams that were made for one request, served or not."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

IN_FLIGHT, SERVED, BROKEN = "in_flight", "served", "broken_mid_stream"
# Attempts that were given up after the upstream had been asked: it says nothing, and may charge for the prompt.
GIVEN_UP = ("upstream_timeout", "upstream_broken")


@dataclass(slots=True)
class Attempt:
    """One call to an upstream. `status` is its HTTP status, 0 while none came; `outcome` a word for people."""

    upstream: str
    started: float = field(default_factory=time.monotonic)
    status: int = 0
    outcome: str = IN_FLIGHT
    duration_ms: int = 0
    problem: str = ""  # What was wrong with the usage that it reported.

    @property
    def was_given_up(self) -> bool:
        return self.outcome in GIVEN_UP

    @property
    def has_replied(self) -> bool:
        """True when something of its reply may have been delivered."""
        return self.outcome in (IN_FLIGHT, SERVED, BROKEN)

    def end(self, outcome: str) -> None:
        self.outcome = outcome
        self.duration_ms = int((time.monotonic() - self.started) * 1000)

    def as_json(self, *, upstream_cost_nanos: int) -> dict[str, Any]:
        values = {
            "upstream": self.upstream,
            "status": self.status,
            "outcome": self.outcome,
            "duration_ms": self.duration_ms,
            "upstream_cost_nanos": upstream_cost_nanos,
        }
        return {**values, "problem": self.problem} if self.problem else values


class AttemptLog:
    """The attempts of one request, in the order in which they were made. The last one may have served it."""

    def __init__(self) -> None:
        self._attempts: list[Attempt] = []

    def __iter__(self) -> Iterator[Attempt]:
        return iter(self._attempts)

    @property
    def last(self) -> Attempt | None:
        return self._attempts[-1] if self._attempts else None

    def begin(self, upstream: str) -> Attempt:
        attempt = Attempt(upstream)
        self._attempts.append(attempt)
        return attempt

    def note_broken(self) -> None:
        """Note that the stream of the last attempt broke off."""
        if self._attempts:
            self._attempts[-1].end(BROKEN)

    def note_problem(self, problem: str) -> None:
        """Note what was wrong with the usage that the last upstream reported."""
        if self._attempts:
            self._attempts[-1].problem = problem
