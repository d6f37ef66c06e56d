"""Replies of upstreams made wrong at every place of their JSON, and streams cut, doubled and out of order. Seeded."""

import copy
import random
from collections.abc import Iterator
from typing import Any, NamedTuple

import orjson

SEED = 8
DEEP: Any = None
for _ in range(230):
    DEEP = {"a": DEEP}
MISSING = object()
# What may stand at any place of what another program writes.
EMPTY: tuple[Any, ...] = (None, True, 0, "", [], [None], {})
OTHERS: tuple[Any, ...] = (*EMPTY, -1, 1.5, 10**19, "x", "x" * 70_000, ["x"], [[]], {"type": None}, MISSING, DEEP)
LINE_ENDS = (b"\n", b"\r\n", b"\r")


class Mutation(NamedTuple):
    """One value that is another one: `where` says which, for the reader of a failure."""

    where: str
    value: Any


def places_of(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the path of every value within `value`, itself among them."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in items:
        yield from places_of(item, (*path, name))


def with_other(value: Any, path: tuple[str | int, ...], other: Any) -> Any:
    """Return a copy of `value` with `other` at `path`; MISSING takes away what is there."""
    if not path:
        return None if other is MISSING else other
    changed = copy.deepcopy(value)
    parent = changed
    for name in path[:-1]:
        parent = parent[name]
    if other is MISSING:
        del parent[path[-1]]
    else:
        parent[path[-1]] = other
    return changed


def mutations_of(value: Any, others: tuple[Any, ...] = OTHERS) -> Iterator[Mutation]:
    """Yield `value` with each of the others at each of its places."""
    for path in places_of(value):
        for other in others:
            name = "missing" if other is MISSING else "deep" if other is DEEP else repr(other)[:20]
            yield Mutation(f"{'.'.join(map(str, path)) or 'all'} = {name}", with_other(value, path, other))


def mutated_streams(payloads: list[Any], others: tuple[Any, ...] = OTHERS) -> Iterator[Mutation]:
    """Yield the events with one wrong value, or one of them missing, twice or in another place."""
    for index, payload in enumerate(payloads):
        before, after = payloads[:index], payloads[index + 1 :]
        for where, value in mutations_of(payload, others):
            yield Mutation(f"event {index}: {where}", [*before, value, *after])
        yield Mutation(f"event {index} missing", [*before, *after])
        yield Mutation(f"event {index} twice", [*before, payload, payload, *after])
        for place in range(len(payloads)):
            if place != index:
                rest = [*before, *after]
                yield Mutation(f"event {index} at {place}", [*rest[:place], payload, *rest[place:]])


def written(payloads: list[Any], randomness: random.Random) -> bytes:
    """Return the events as some server might write them: line ends, comments, several lines of data."""
    line_end = randomness.choice(LINE_ENDS)
    lines: list[bytes] = []
    for payload in payloads:
        data = orjson.dumps(payload, option=randomness.choice((0, orjson.OPT_INDENT_2)))
        kind = payload.get("type") if isinstance(payload, dict) else None
        if isinstance(kind, str) and randomness.random() < 0.8:
            lines.append(b"event: " + kind.encode())
        if randomness.random() < 0.2:
            lines.append(b": keep-alive")
        prefix = randomness.choice((b"data: ", b"data:"))
        lines += [prefix + line for line in data.split(b"\n")]
        lines.append(b"")
    return randomness.choice((b"", b"\xef\xbb\xbf")) + line_end.join([*lines, b""])


def cut_anywhere(stream: bytes, randomness: random.Random) -> list[bytes]:
    """Return the stream in pieces, whose borders lie anywhere, also within a character."""
    pieces, place = [], 0
    while place < len(stream):
        size = randomness.choice((1, 7, 64, 1000, 100_000))
        pieces.append(stream[place : place + size])
        place += size
    return pieces
