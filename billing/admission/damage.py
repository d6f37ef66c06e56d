"""Tells when a script has stumbled over keys that somebody else has changed, and how often a shard is mended. Pure."""

import time
from collections import defaultdict

from billing.admission.errors import AdmissionUnavailableError

# A script that fails for a reason that mending does not end must not keep its shard closed.
SECONDS_BETWEEN_MENDINGS = 60.0
SIGNS = (
    "WRONGTYPE",
    "is not an integer",
    "would overflow",
    "out of range",
    "attempt to ",
    "bad argument",
    "invalid stream",
)


def tells_of_damage(error: AdmissionUnavailableError) -> bool:
    """Say whether this is the error of a script over a key of the wrong kind or with a value that is none."""
    text = str(error)
    return "user_script" in text and any(sign in text for sign in SIGNS)


class MendingPace:
    """Lets each shard be mended once in a while, by this process."""

    def __init__(self) -> None:
        self._next_at: dict[str, float] = defaultdict(float)

    def may_mend(self, prefix: str) -> bool:
        """Return whether it may be mended now; then not again for a while."""
        now = time.monotonic()
        if now < self._next_at[prefix]:
            return False
        self._next_at[prefix] = now + SECONDS_BETWEEN_MENDINGS
        return True
