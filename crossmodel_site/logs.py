"""How a log line is written: one line each, whatever strangers put into a name, a header or an error.

A line break in somebody's text would begin a line that we never wrote, and an escape sequence would reach the terminal
of whoever reads it. Both are shown as Python writes them, `\\n` and `\\x1b`. The lines of a traceback begin with a bar.
"""

import logging
from types import TracebackType

TRACEBACK_PREFIX = "  | "

ExceptionTriple = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


def printable(text: str) -> str:
    """Return `text` in one line, with every character that moves a cursor or cannot be seen written out."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


class LineFormatter(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  logging's own name
        return printable(super().formatMessage(record))

    def formatException(self, ei: ExceptionTriple) -> str:  # noqa: N802
        return _with_bars(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:  # noqa: N802
        return _with_bars(super().formatStack(stack_info))


def _with_bars(text: str) -> str:
    return "\n".join(TRACEBACK_PREFIX + printable(line) for line in text.split("\n"))
