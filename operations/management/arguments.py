"""What the commands' arguments may be. A wrong one ends in one line that names it, before anything is done."""

import getpass
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from django.core.management.base import CommandError

from accounts.audit import note_actor
from accounts.models import User

MAX_REASON_CHARS = 500
MAX_CODE_REASON_CHARS = 150
MAX_ACTOR_CHARS = 254
MAX_IDEMPOTENCY_KEY_CHARS = 200


def add_actor(parser: ArgumentParser, text: str = "Who does this. Default: the user of the shell.") -> None:
    """Add `--actor`, empty unless told. Read it with named_actor() or acting_operator()."""
    parser.add_argument("--actor", type=text_of(MAX_ACTOR_CHARS), default="", metavar="EMAIL", help=text)


def named_actor(options: Mapping[str, Any]) -> str:
    """Return who `--actor` names, with the operating system's user beside it; "" when it names nobody.

    A name typed into a shell proves nothing by itself, so it must be the account of an operator, and the record says
    from whose shell it came. Raises CommandError when no active operator signs in with the address.
    """
    user = named_operator(options)
    if user is None:
        return ""
    full = f"{user.email} (shell:{shell_user()})"
    return full if len(full) <= MAX_ACTOR_CHARS else user.email


def named_operator(options: Mapping[str, Any]) -> User | None:
    """Return the account that `--actor` names, None when it names nobody. Raises CommandError like named_actor()."""
    email = options["actor"].strip()
    return find_operator(email) if email else None


def find_operator(email: str) -> User:
    """Return the operator's account, and write the audit in their name. Raises CommandError when there is none."""
    user = User.objects.filter(email__iexact=email, is_active=True, is_staff=True).first()
    if user is None:
        raise CommandError(f"--actor {email}: no active operator signs in with this address.")
    note_actor(user.pk)
    return user


def acting_operator(options: Mapping[str, Any]) -> str:
    """Return who `--actor` names, or else the user of the shell. Raises CommandError like named_actor()."""
    return named_actor(options) or f"shell:{shell_user()}"


def shell_user() -> str:
    """Return the operating system's user."""
    return getpass.getuser()


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
        raise ArgumentTypeError(f"{text!r} is not a day such as 2026-11-30.") from None
