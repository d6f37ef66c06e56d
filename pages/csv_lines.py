"""CSV, line by line, that a spreadsheet opens without running anything."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

CHUNK_CHARACTERS = 64 * 1024
# A spreadsheet would run text that begins with one of these as a formula.
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


class _Line:
    """A file for csv.writer that hands back each line instead of keeping it."""

    def write(self, line: str) -> str:
        return line


def csv_lines(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    """Yield the header and a line for each row. Text that looks like a formula gets an apostrophe; amounts do not."""
    writer = csv.writer(_Line())
    yield writer.writerow(columns)
    for row in rows:
        yield writer.writerow([_defuse(value) for value in row])


def csv_chunks(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[bytes]:
    """Yield the lines of csv_lines() in UTF-8, many together, to be sent as they are made."""
    kept, characters = [], 0
    for line in csv_lines(columns, rows):
        kept.append(line)
        characters += len(line)
        if characters >= CHUNK_CHARACTERS:
            yield "".join(kept).encode()
            kept, characters = [], 0
    yield "".join(kept).encode()


def _defuse(value: Any) -> Any:
    if isinstance(value, str) and value.startswith(FORMULA_STARTS) and not _is_number(value):
        return "'" + value
    return value


def _is_number(text: str) -> bool:
    return text[1:].replace(".", "", 1).isdecimal() and text.isascii()
