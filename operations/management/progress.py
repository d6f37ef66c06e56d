"""A bar that shows how far a command is, on a terminal only; in a log or a pipe there is nothing of it."""

import sys
from collections.abc import Iterable, Iterator
from typing import TextIO, TypeVar

WIDTH = 30

T = TypeVar("T")


def show_progress(items: Iterable[T], *, total: int, stream: TextIO | None = None) -> Iterator[T]:
    """Yield the items, and draw after each how many of `total` are done."""
    out = stream or sys.stderr
    is_shown = out.isatty() and total > 0
    for number, item in enumerate(items, 1):
        yield item
        if is_shown:
            done = min(WIDTH, WIDTH * number // total)
            out.write(f"\r[{'#' * done}{' ' * (WIDTH - done)}] {number:,} of {total:,}")
            out.flush()
    if is_shown:
        out.write("\n")
