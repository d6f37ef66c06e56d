"""Draws cost by day as bars of an inline SVG: geometry only, in whole units of the view box. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from billing.money import NANOS_PER_USD
from billing.usage_report import DayCost

WIDTH, HEIGHT = 720, 180
TOP, BOTTOM = 14, 26  # Room above the highest bar, and for the days below the axis.
LEFT = 44  # Room for the amounts beside the bars.
BAR_GAP = 4
TEXT_DROP = 4  # From the middle of a line of text to its baseline.
MIN_BAR_HEIGHT = 2  # A day that cost anything at all is seen.
LABEL_EVERY_DAYS = 7
AXIS_STEPS = (
    10,
    12,
    15,
    20,
    30,
    40,
    50,
    60,
    80,
    100,
)  # In tenths of the leading power of ten; halves are readable too.


@dataclass(frozen=True, slots=True)
class Bar:
    x: float
    y: float
    width: float
    height: float
    day: DayCost
    label: str  # Empty where the axis has no room for one.

    @property
    def center(self) -> float:
        return round(self.x + self.width / 2, 1)

    @property
    def right(self) -> float:
        return round(self.x + self.width, 1)


@dataclass(frozen=True, slots=True)
class Gridline:
    y: float
    nanos: int

    @property
    def text_y(self) -> float:
        return self.y + TEXT_DROP


@dataclass(frozen=True, slots=True)
class Chart:
    bars: tuple[Bar, ...]
    gridlines: tuple[Gridline, ...]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    baseline: int = HEIGHT - BOTTOM


def draw_days(days: Sequence[DayCost]) -> Chart:
    """Return the bars of these days, at most as high as the view box has room for."""
    highest = max((day.cost_nanos for day in days), default=0)
    top_nanos = _round_up(highest)
    room = HEIGHT - TOP - BOTTOM
    step = (WIDTH - LEFT) / max(1, len(days))
    bars = []
    for index, day in enumerate(days):
        height = day.cost_nanos * room / top_nanos if day.cost_nanos else 0.0
        height = max(height, MIN_BAR_HEIGHT) if day.cost_nanos else 0.0
        days_left = len(days) - 1 - index
        label = f"{day.day:%b} {day.day.day}" if days_left % LABEL_EVERY_DAYS == 0 else ""
        bars.append(
            Bar(
                x=round(LEFT + index * step + BAR_GAP / 2, 1),
                y=round(HEIGHT - BOTTOM - height, 1),
                width=round(step - BAR_GAP, 1),
                height=round(height, 1),
                day=day,
                label=label,
            )
        )
    gridlines = () if not highest else (Gridline(TOP, top_nanos), Gridline(TOP + room / 2, top_nanos // 2))
    return Chart(bars=tuple(bars), gridlines=gridlines)


def _round_up(nanos: int) -> int:
    """Return the next readable top of the axis at or above `nanos`, as low as can be."""
    if nanos <= 0:
        return NANOS_PER_USD
    tenth = int("1" + "0" * max(0, len(str(nanos)) - 2))
    return next(step * tenth for step in AXIS_STEPS if step * tenth >= nanos)
