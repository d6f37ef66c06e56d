"""What takes long to make and is the same for everybody: made at its first use, by one thread while others wait."""

import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

Made = TypeVar("Made")
_making = threading.RLock()


class MadeOnce(Generic[Made]):
    """A function that remembers what it made for each set of arguments, and never runs in two threads at once."""

    def __init__(self, make: Callable[..., Made]) -> None:
        self._make = make
        self._made: dict[tuple[Any, ...], Made] = {}

    def __call__(self, *args: Any) -> Made:
        with _making:
            if args not in self._made:
                self._made[args] = self._make(*args)
            return self._made[args]

    def forget(self) -> None:
        """Make it anew at the next use."""
        with _making:
            self._made.clear()
