"""What the commands' arguments may be. A wrong one ends in one line that names it, before anything is done."""

from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable
from datetime import UTC, datetime

MAX_REASON_CHARS = 500
MAX_CODE_REASON_CHARS = 150
MAX_ACTOR_CHARS = 254
MAX_IDEMPOTENCY_KEY_CHARS = 200


def add_actor(parser: ArgumentParser, text: str = "Who. Default: the user of the shell.") -> None:
    """Add `--actor`, empty unless told."""
    parser.add_argument("--actor", type=text_of(MAX_ACTOR_CHARS), default="", metavar="EMAIL", help=text)


def add_idempotency_key(parser: ArgumentParser, verb: str) -> None:
    """Add `--idempotency-key`; the help says what the command does: `grants`."""
    text = f"The same key {verb} once. Default: a new one."
    parser.add_argument("--idempotency-key", type=text_of(MAX_IDEMPOTENCY_KEY_CHARS), metavar="K", help=text)


def text_of(max_chars: int) -> Callable[[str], str]:
    """Return a type for argparse: a text that the ledger can keep."""

    def read(text: str) -> str:
        if len(text) > max_chars:
            raise ArgumentTypeError(f"{len(text)} characters are too many; at most {max_chars} are kept.")
        if not text.isprintable():
            raise ArgumentTypeError("holds a line break or another control character.")
        return text

    return read


def read_day(text: str) -> datetime:
    """Return midnight UTC of a day; a type for argparse."""
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is no day such as 2026-11-30.") from None
