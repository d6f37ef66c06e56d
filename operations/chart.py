"""Draws numbers over time as bars of an inline SVG: geometry only, in whole units of the view box. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 720, 180
TOP, BOTTOM = 14, 26  # Room above the highest bar, and for the times below the axis.
GAP = 2
MIN_BAR_HEIGHT = 2  # What is anything at all is seen.
LABELS = 6
AXIS_STEPS = (10, 12, 15, 20, 30, 40, 50, 60, 80, 100)  # In tenths of the leading power of ten.


@dataclass(frozen=True, slots=True)
class Bar:
    """`part` lies in front of `whole`; `before` is the mark of the same span of the period before."""

    x: float
    width: float
    whole_y: float
    whole_height: float
    part_y: float
    part_height: float
    before_y: float | None
    label: str  # Empty where the axis has no room for one.

    @property
    def center(self) -> float:
        return round(self.x + self.width / 2, 1)

    @property
    def right(self) -> float:
        return round(self.x + self.width, 1)


@dataclass(frozen=True, slots=True)
class Chart:
    """`top` is the amount at the upper line, 0 where there is nothing to draw."""

    bars: tuple[Bar, ...]
    top: int
    width: int = WIDTH
    height: int = HEIGHT
    top_y: int = TOP
    baseline: int = HEIGHT - BOTTOM


def draw_bars(starts: Sequence[str], whole: Sequence[int], part: Sequence[int], before: Sequence[int]) -> Chart:
    """Return a chart with one bar for each start; all sequences have the same length."""
    top = _round_up(max([0, *whole, *part, *before]))
    step = WIDTH / max(1, len(starts))
    every = max(1, len(starts) // LABELS)
    bars = [
        Bar(
            x=round(number * step + GAP / 2, 1),
            width=round(step - GAP, 1),
            whole_y=_y(whole[number], top),
            whole_height=_height(whole[number], top),
            part_y=_y(part[number], top),
            part_height=_height(part[number], top),
            before_y=_y(before[number], top) if before[number] else None,
            label=start if (len(starts) - 1 - number) % every == 0 else "",
        )
        for number, start in enumerate(starts)
    ]
    return Chart(tuple(bars), top)


def _height(amount: int, top: int) -> float:
    return round(max(amount * (HEIGHT - TOP - BOTTOM) / top, MIN_BAR_HEIGHT), 1) if amount > 0 else 0.0


def _y(amount: int, top: int) -> float:
    return round(HEIGHT - BOTTOM - _height(amount, top), 1)


def _round_up(amount: int) -> int:
    """Return the next readable top of an axis at or above `amount`; 0 for nothing."""
    if amount < AXIS_STEPS[0]:
        return AXIS_STEPS[0] if amount else 0
    tenth = int("1" + "0" * (len(str(amount)) - 2))
    return next(step * tenth for step in AXIS_STEPS if step * tenth >= amount)
