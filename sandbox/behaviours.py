"""Behaviours set through the control endpoint: for the next N requests, for a language model, or until cleared."""

from dataclasses import dataclass
from typing import Any

from sandbox.directives import NO_DIRECTIVES, DirectiveError, Directives, parse_directives

MAX_BEHAVIOURS = 100
CONTROL_FIELDS = {"directives", "times", "model", "every", "clear"}


@dataclass(slots=True)
class Behaviour:
    """Directives for requests that did not write their own."""

    directives: Directives
    times_left: int | None
    """None: until cleared."""
    model: str | None
    every: int
    """1: each request; 3: every third."""
    seen: int = 0

    def fields(self) -> dict[str, Any]:
        return {
            "directives": str(self.directives),
            "times_left": self.times_left,
            "model": self.model,
            "every": self.every,
        }


class Behaviours:
    """What is set at the moment; the first one set that fits a request applies to it."""

    def __init__(self) -> None:
        self._behaviours: list[Behaviour] = []

    def control(self, body: Any) -> list[dict[str, Any]]:
        """Apply a control request and return what is set now. Raises DirectiveError for one that makes no sense."""
        if not isinstance(body, dict) or not set(body) <= CONTROL_FIELDS:
            raise DirectiveError(f"a control request is an object with {', '.join(sorted(CONTROL_FIELDS))}")
        behaviour = _read_behaviour(body) if "directives" in body else None
        if body.get("clear"):
            self._behaviours.clear()
        if behaviour is not None:
            if len(self._behaviours) >= MAX_BEHAVIOURS:
                raise DirectiveError(f"more than {MAX_BEHAVIOURS} behaviours are set; clear them first")
            self._behaviours.append(behaviour)
        return self.fields()

    def fields(self) -> list[dict[str, Any]]:
        return [behaviour.fields() for behaviour in self._behaviours]

    def take(self, model: str | None) -> Directives:
        """The directives for a request to this model, counting it."""
        if not self._behaviours:
            return NO_DIRECTIVES
        for behaviour in self._behaviours:
            if behaviour.model is not None and behaviour.model != model:
                continue
            behaviour.seen += 1
            if behaviour.seen % behaviour.every:
                continue
            if behaviour.times_left is not None:
                behaviour.times_left -= 1
                if behaviour.times_left <= 0:
                    self._behaviours.remove(behaviour)
            return behaviour.directives
        return NO_DIRECTIVES


def _read_behaviour(body: dict[str, Any]) -> Behaviour:
    directives, times, model, every = body["directives"], body.get("times"), body.get("model"), body.get("every", 1)
    if not isinstance(directives, str) or not (model is None or isinstance(model, str)):
        raise DirectiveError("directives and model are texts")
    if not (times is None or (isinstance(times, int) and times > 0)) or not (isinstance(every, int) and every > 0):
        raise DirectiveError("times and every are whole numbers above 0")
    return Behaviour(parse_directives(directives), times, model, every)
