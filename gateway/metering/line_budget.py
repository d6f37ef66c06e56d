"""How many log lines one organization may cause in a minute by what costs it nothing. Pure but for the clock."""

import time
from collections import OrderedDict
from dataclasses import dataclass

STRANGERS = 0
MAX_KNOWN = 10_000  # Organizations; whoever was written of the longest ago is forgotten.
SECONDS = 60.0


@dataclass(slots=True)
class _Minute:
    began: float
    lines: int = 0
    left_out: int = 0  # Also of minutes before, as long as nobody has been told.


class LineBudget:
    """`per_minute` lines of each organization, `of_strangers` of all together whose organization is not known."""

    def __init__(self, per_minute: int, of_strangers: int) -> None:
        self._per_minute = per_minute
        self._of_strangers = of_strangers
        self._minutes: OrderedDict[int, _Minute] = OrderedDict()

    def allows(self, organization_id: int) -> bool:
        """Say whether another line may be written, and count it."""
        now = time.monotonic()
        minute = self._minutes.get(organization_id)
        if minute is None:
            minute = self._minutes[organization_id] = _Minute(now)
            if len(self._minutes) > MAX_KNOWN:
                self._minutes.popitem(last=False)
        elif now - minute.began >= SECONDS:
            minute.began, minute.lines = now, 0
            self._minutes.move_to_end(organization_id)
        if minute.lines >= (self._of_strangers if organization_id == STRANGERS else self._per_minute):
            minute.left_out += 1
            return False
        minute.lines += 1
        return True

    def take_left_out(self, organization_id: int) -> int:
        """Return how many lines were left out since somebody was told, and begin to count again."""
        minute = self._minutes.get(organization_id)
        if minute is None or not minute.left_out:
            return 0
        count, minute.left_out = minute.left_out, 0
        return count
