"""A circuit breaker for one upstream. Pure: time is given, nothing is called.

closed    calls go through; enough failures in a while open it
open      no call goes through until `open_until`
half open a probe goes through; its success closes the breaker, its failure opens it for twice as long

A probe that ends without telling anything, because its client left, makes room at once for that of another
organization. One that takes long is soon joined by another organization's: nobody's slow
request may keep the upstream from all others.

A customer's fault, or a provider that says we call too often, is no failure here.
"""

from collections import deque
from dataclasses import dataclass, field

WINDOW_SECONDS = 30.0
MIN_FAILURE_SHARE = 0.5
FIRST_OPEN_SECONDS = 5.0
MAX_OPEN_SECONDS = 60.0
PROBE_SECONDS = 30.0  # A probe that is not back by then is forgotten, and its own organization may send another.
OTHERS_PROBE_SECONDS = 2.0  # One that is not back by then is joined by a probe of another organization.
MAX_REMEMBERED_CALLS = 1_000


@dataclass(slots=True)
class Breaker:
    """Times are seconds of any clock that only runs forward."""

    failures_to_open: int
    open_until: float = 0.0
    open_seconds: float = FIRST_OPEN_SECONDS
    is_tripped: bool = False
    _probe_number: int = 0  # Of the last probe that was let through.
    _probe_organization: int | None = None  # Who sent it; None when whatever it was has told its outcome.
    _probe_began: float = 0.0
    _probe_runs: bool = False
    _calls: deque[tuple[float, bool]] = field(default_factory=lambda: deque(maxlen=MAX_REMEMBERED_CALLS))

    def lets_through(self, now: float, organization_id: int = 0) -> bool:
        """True when it may make a call; while half open, this call is the probe that `probe_number` names."""
        if not self.would_let_through(now, organization_id):
            return False
        if self.is_tripped:
            self._probe_number += 1
            self._probe_organization, self._probe_began, self._probe_runs = organization_id, now, True
        return True

    def would_let_through(self, now: float, organization_id: int = 0) -> bool:
        """The same, only looking: nobody becomes the probe."""
        if not self.is_tripped:
            return True
        if now < self.open_until:
            return False
        if self._probe_organization is None:
            return True
        if self._probe_runs:
            wait_seconds = PROBE_SECONDS if organization_id == self._probe_organization else OTHERS_PROBE_SECONDS
        else:
            wait_seconds = OTHERS_PROBE_SECONDS if organization_id == self._probe_organization else 0.0
        return now - self._probe_began >= wait_seconds

    @property
    def probe_number(self) -> int:
        """The number of the last probe: 0 before there was one."""
        return self._probe_number

    def end_probe(self, number: int) -> None:
        """Note that a probe has ended. One whose outcome was noted before changes nothing any more."""
        if number == self._probe_number:
            self._probe_runs = False

    def note_success(self, now: float) -> bool:
        """Note a call that was served. Returns True when that closed the breaker."""
        self._calls.append((now, True))
        if not self.is_tripped:
            return False
        self.is_tripped = False
        self.open_seconds = FIRST_OPEN_SECONDS
        self._probe_organization = None
        self._calls.clear()
        return True

    def note_failure(self, now: float, *, failures_to_open: int | None = None) -> bool:
        """Note a call that the upstream failed. Returns True when that opened the breaker.

        `failures_to_open` says how many are enough just now, where it is not as many as usual.
        """
        enough = failures_to_open or self.failures_to_open
        if self.is_tripped:
            if now < self.open_until:
                return False  # It began before the breaker opened; that is known already.
            self.open_seconds = min(MAX_OPEN_SECONDS, self.open_seconds * 2)
            self._open(now)
            return True
        self._calls.append((now, False))
        while self._calls and self._calls[0][0] < now - WINDOW_SECONDS:
            self._calls.popleft()
        failures = sum(not served for _, served in self._calls)
        if failures < enough or failures < MIN_FAILURE_SHARE * len(self._calls):
            return False
        self._open(now)
        return True

    def note_reached(self, now: float) -> bool:
        """Note that a connection stands: whatever becomes of its call, the way there is free. Returns True when that
        closed the breaker, which it does while half open.
        """
        return self.is_tripped and now >= self.open_until and self.note_success(now)

    def seconds_left(self, now: float) -> float:
        """Return how long nothing goes through for certain; 0 when a call or a probe may go."""
        return max(0.0, self.open_until - now) if self.is_tripped else 0.0

    def open_for(self, seconds: float, now: float) -> None:
        """Open because another process has: it knows more than we do."""
        self.is_tripped = True
        self.open_until = max(self.open_until, now + seconds)

    def _open(self, now: float) -> None:
        self.is_tripped = True
        self.open_until = now + self.open_seconds
        self._probe_organization = None
