"""In which order the lots of an organization are drawn. Pure.

Lower priority first, then the earliest expiry (never last), then promotional before paid, then the older lot.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

PAID, PROMOTIONAL = "paid", "promotional"
NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass(slots=True)
class Lot:
    """A credit lot as the ledger holds it while it composes a posting. Amounts in nano-dollars."""

    lot_id: int
    organization_id: int
    kind: str
    priority: int
    expires_at: datetime | None
    amount_nanos: int
    remaining_nanos: int

    def is_drawable(self, *, as_of: datetime) -> bool:
        """A lot pays for what was admitted before it expires, also when that is settled later."""
        return self.remaining_nanos > 0 and (self.expires_at is None or as_of < self.expires_at)

    @property
    def burn_key(self) -> tuple[int, datetime, bool, int]:
        return self.priority, self.expires_at or NEVER, self.kind != PROMOTIONAL, self.lot_id


def plan_draws(lots: Iterable[Lot], amount_nanos: int, *, as_of: datetime) -> list[tuple[Lot, int]]:
    """Return how much to draw from each lot, in burn order; less than the amount when the lots do not cover it."""
    draws = []
    for lot in sorted(lots, key=lambda lot: lot.burn_key):
        if amount_nanos <= 0:
            break
        if lot.is_drawable(as_of=as_of):
            drawn = min(lot.remaining_nanos, amount_nanos)
            draws.append((lot, drawn))
            amount_nanos -= drawn
    return draws
