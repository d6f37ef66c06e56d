"""Finds the line of a field in a TOML file, so that an error can name it. Pure.

tomllib gives values without positions. Statements of TOML end with a line, so this reads the shortest groups of lines
that tomllib itself accepts, and asks tomllib which field each of them sets: no second parser that could disagree.
"""

import tomllib
from collections.abc import Iterator
from typing import Any

Path = tuple[str | int, ...]


class TomlLines:
    """Lines of the fields of a TOML text that tomllib has accepted. Paths name array elements by index, from 0."""

    def __init__(self, text: str) -> None:
        self._line_of: dict[Path, int] = {(): 1}
        self._lengths: dict[Path, int] = {}
        table: Path = ()
        for number, is_header, is_array, keys in _statements(text.splitlines()):
            if is_header:
                table = self._resolve(keys, appends=is_array)
                self._line_of.setdefault(table, number)
            else:
                self._line_of.setdefault((*table, *keys), number)

    def line(self, path: Path) -> int:
        """Return the line (from 1) of the field, or of the nearest table around it."""
        while path not in self._line_of:
            path = path[:-1]
        return self._line_of[path]

    def _resolve(self, keys: tuple[str, ...], *, appends: bool) -> Path:
        path: Path = ()
        for depth, key in enumerate(keys, start=1):
            path = (*path, key)
            if appends and depth == len(keys):
                self._lengths[path] = self._lengths.get(path, 0) + 1
            if path in self._lengths:
                path = (*path, self._lengths[path] - 1)
        return path


def format_path(path: Path) -> str:
    """Return the path as people write it: `model[2].price[0].input`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _statements(lines: list[str]) -> Iterator[tuple[int, bool, bool, tuple[str, ...]]]:
    """Yield (line number, is it a [table], is it a [[table]], the keys it names) of each statement."""
    start = 0
    while start < len(lines):
        end = start + 1
        while (values := _parse("\n".join(lines[start:end]))) is None and end < len(lines):
            end += 1
        first = lines[start].strip()
        if values:
            is_header = first.startswith("[")
            yield start + 1, is_header, first.startswith("[["), _keys(values, is_header=is_header)
        start = end


def _parse(text: str) -> dict[str, Any] | None:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return None


def _keys(values: dict[str, Any], *, is_header: bool) -> tuple[str, ...]:
    """Return the dotted key of a statement. An inline table is a value, as far as lines are concerned."""
    key, value = next(iter(values.items()))
    keys = [key]
    while True:
        if is_header and isinstance(value, list):
            value = value[0]
        if not isinstance(value, dict) or len(value) != 1:
            return tuple(keys)
        key, value = next(iter(value.items()))
        keys.append(key)
