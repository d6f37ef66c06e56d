"""Lets whoever runs a long loop see how far it is: a command draws a bar, a worker nothing.

The loop says watched(items, total); whoever called it, however far above, said watching(show).
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

T = TypeVar("T")
# Passes the items on, of which there are so many; None where nobody knows how many.
Show = Callable[[Iterable[Any], int | None], Iterable[Any]]

_show: ContextVar[Show | None] = ContextVar("show", default=None)


def watched(items: Iterable[T], total: int | None = None) -> Iterable[T]:
    """Return the items, shown to whoever watches."""
    show = _show.get()
    return items if show is None else show(items, total)


@contextmanager
def watching(show: Show) -> Iterator[None]:
    """Show the loops in it, one after the other."""
    token = _show.set(show)
    try:
        yield
    finally:
        _show.reset(token)
