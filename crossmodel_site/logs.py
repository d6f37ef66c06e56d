"""How a log line is written: one line each, whatever strangers put into a name, a header or an error.

As text, a line break in somebody's text would begin a line that we never wrote, and an escape sequence would reach the
terminal of whoever reads it. Both are shown as Python writes them, `\\n` and `\\x1b`. The lines of a traceback begin
with a bar. As JSON, a line is one object: its time in UTC, level, logger, message, and what else is known of it.
"""

import json
import logging
import re
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

TRACEBACK_PREFIX = "  | "
FORMATS = ("text", "json")
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
MAX_MESSAGE_CHARS = 10_000
MAX_TRACEBACK_CHARS = 50_000
# What a line may carry beside its message: `logger.warning("...", extra={"upstream": ...})`.
FIELDS = ("upstream", "organization")
ABOUT_A_REQUEST = re.compile(r"\b[Rr]equest ([0-9a-f]{32})\b")  # So every message of ours names one.

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


class JsonFormatter(logging.Formatter):
    """One JSON object a line, for programs that collect logs."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")[:-6] + "Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage()[:MAX_MESSAGE_CHARS],
        }
        if match := ABOUT_A_REQUEST.search(fields["message"]):
            fields["request_id"] = match[1]
        for name in FIELDS:
            if (value := getattr(record, name, None)) is not None:
                fields[name] = value if isinstance(value, int) else str(value)
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)[-MAX_TRACEBACK_CHARS:]
        return json.dumps(fields)  # In ASCII: also what some programs take for the end of a line is written out.


def logging_settings(*, log_format: str, level: str) -> dict[str, Any]:
    """Return Django's LOGGING: everything goes to standard error in one form."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "text": {
                "()": "crossmodel_site.logs.LineFormatter",
                "format": "%(asctime)s %(levelname)s %(name)s %(message)s",
            },
            "json": {"()": "crossmodel_site.logs.JsonFormatter"},
        },
        "handlers": {
            "console": {"class": "logging.StreamHandler", "formatter": log_format},
            "nowhere": {"class": "logging.NullHandler"},
        },
        "root": {"handlers": ["console"], "level": level},
        "loggers": {
            "httpx": {"level": "WARNING"},
            "celery": {"level": "WARNING"},
            # Of processes that a worker starts: it passes nothing on by itself.
            "multiprocessing": {"handlers": ["console"], "level": "WARNING", "propagate": False},
            # In place of its own handlers, which write what they get. The request path has a line of its own a request.
            "uvicorn": {"handlers": ["console"], "level": "WARNING", "propagate": False},
            "uvicorn.access": {"handlers": [], "propagate": False},
            "django.request": {"level": "ERROR"},
            # Whoever sends a host that is not ours would fill the log with stack traces.
            "django.security.DisallowedHost": {"handlers": ["nowhere"], "propagate": False},
        },
    }


def _with_bars(text: str) -> str:
    return "\n".join(TRACEBACK_PREFIX + printable(line) for line in text.split("\n"))
