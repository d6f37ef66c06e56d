"""Draws sums by hour, day or month as bars of an inline SVG: geometry only. Pure.

The box is stretched to whatever place it gets, so nothing in it is text: labels stand beside it, in HTML.
"""

from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 1000, 100
BAR_SHARE = 0.78  # Of the room of one bar; the rest is the gap.
MIN_BAR_HEIGHT = 1.5  # What is not nothing is seen.
AXIS_STEPS = (10, 12, 15, 20, 30, 40, 50, 60, 80, 100)  # In tenths of the leading power of ten; halves are readable.


@dataclass(frozen=True, slots=True)
class Point:
    """What one bar shows: its parts from below, and what there was in the period before."""

    label: str
    parts: tuple[int, ...]
    before: int | None = None
    text: str = ""  # The value as people read it.
    link: str = ""

    @property
    def total(self) -> int:
        return sum(self.parts)

    @property
    def named(self) -> str:
        return f"{self.label}: {self.text}"


@dataclass(frozen=True, slots=True)
class Part:
    y: float
    height: float


@dataclass(frozen=True, slots=True)
class Bar:
    x: float
    width: float
    parts: tuple[Part, ...]
    point: Point
    area_x: float
    area_width: float
    before: Part | None

    @property
    def shapes(self) -> str:
        """The bar in SVG, of figures alone: a template takes ten times as long for it, of which a page has hundreds."""
        room = f'x="{self.area_x}" width="{self.area_width}"'
        shapes = [f'<rect class="bar-area" {room} y="0" height="{HEIGHT}"/>']
        if self.before is not None:
            shapes.append(f'<rect class="bar-before" {room} y="{self.before.y}" height="{self.before.height}"/>')
        shapes += (
            f'<rect class="bar bar-{number}" x="{self.x}" width="{self.width}" y="{part.y}" height="{part.height}"/>'
            for number, part in enumerate(self.parts, 1)
            if part.height
        )
        return "".join(shapes)


@dataclass(frozen=True, slots=True)
class Chart:
    bars: tuple[Bar, ...]
    top: int  # The value at the upper edge; 0 where there is nothing to show.
    labels: tuple[str, ...]  # Below the bars: of the first, one in the middle, and of the last.
    width: int = WIDTH
    height: int = HEIGHT

    @property
    def half(self) -> int:
        return self.top // 2


def draw_bars(points: Sequence[Point], *, least_top: int = 0) -> Chart:
    """Return bars in proportion to their values; the axis ends at a readable value at or above all of them."""
    highest = max((max(point.total, point.before or 0) for point in points), default=0)
    top = round_up(highest) if highest else 0
    top = max(top, least_top) if top else 0
    step = WIDTH / max(1, len(points))
    bars = []
    for index, point in enumerate(points):
        left = index * step + step * (1 - BAR_SHARE) / 2
        parts, below = [], 0
        for value in point.parts:
            parts.append(_part(value, below, top))
            below += value
        before = _part(point.before, 0, top) if point.before else None
        bars.append(
            Bar(
                x=round(left, 2),
                width=round(step * BAR_SHARE, 2),
                parts=tuple(parts),
                point=point,
                area_x=round(index * step, 2),
                area_width=round(step, 2),
                before=before,
            )
        )
    return Chart(tuple(bars), top, _axis(points))


def _part(value: int, below: int, top: int) -> Part:
    if not value or not top:
        return Part(HEIGHT, 0)
    height = max(value * HEIGHT / top, MIN_BAR_HEIGHT)
    return Part(round(max(0, HEIGHT - below * HEIGHT / top - height), 2), round(height, 2))


def _axis(points: Sequence[Point]) -> tuple[str, ...]:
    if len(points) < 3:
        return tuple(point.label for point in points)
    return (points[0].label, points[len(points) // 2].label, points[-1].label)


def round_up(value: int) -> int:
    """Return the next readable top of an axis at or above `value`, as low as can be."""
    if value < 10:
        return value + value % 2
    tenth = int("1" + "0" * max(0, len(str(value)) - 2))
    return next(step * tenth for step in AXIS_STEPS if step * tenth >= value)
