"""A bar that shows how far a command is, on a terminal only; in a log or a pipe there is nothing of it."""

import sys
from collections.abc import Iterable, Iterator
from typing import TextIO, TypeVar

WIDTH = 30

T = TypeVar("T")


_shown = 0  # Loops within the one that has the bar have none: two would overwrite each other.


def show_progress(items: Iterable[T], total: int | None = None, *, stream: TextIO | None = None) -> Iterator[T]:
    """Yield the items, and draw after each how many are done, and of how many where that is known."""
    global _shown
    out = stream or sys.stderr
    is_shown = out.isatty() and total != 0 and not _shown
    number = 0
    _shown += is_shown
    try:
        for number, item in enumerate(items, 1):
            yield item
            if is_shown:
                out.write(_line(number, total))
                out.flush()
    finally:
        _shown -= is_shown
    if is_shown and number:
        out.write("\n")


def _line(number: int, total: int | None) -> str:
    if total is None:
        return f"\r{number:,}"
    done = min(WIDTH, WIDTH * number // total)
    return f"\r[{'#' * done}{' ' * (WIDTH - done)}] {number:,} of {total:,}"
