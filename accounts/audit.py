"""Tells Postgres on whose behalf a change is made; its triggers write that down (migration 0008).

Whoever takes in work (a page, an API call, a command, a job) says so once, with `audited()`; every statement that
writes then carries it in front, for its own transaction only, so that connections may be shared.
"""

import getpass
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from django.db import connection

MAX_SOURCE_CHARS = 200
MAX_SHELL_USER_CHARS = 64
WRITES = re.compile(r"\s*(?:INSERT|UPDATE|DELETE|WITH|MERGE)\b", re.IGNORECASE)


@dataclass(slots=True)
class AuditContext:
    """Where changes come from. `find_actor` is asked at the first change, when a page knows who signed in."""

    source: str
    address: str = ""
    shell_user: str = ""
    actor_id: int | None = None
    key_id: int | None = None
    find_actor: Callable[[], int | None] | None = None

    def as_json(self) -> str:
        actor = self.actor_id or (self.find_actor() if self.find_actor else None)
        told = {
            "source": self.source[:MAX_SOURCE_CHARS].replace("\x00", ""),
            "address": self.address,
            "shell_user": self.shell_user[:MAX_SHELL_USER_CHARS],
            "actor": actor,
            "key": self.key_id,
        }
        return json.dumps({name: value for name, value in told.items() if value})


_context: ContextVar[AuditContext | None] = ContextVar("audit_context", default=None)


@contextmanager
def audited(context: AuditContext) -> Iterator[None]:
    """Write every change of this thread down under `context`, while the block runs."""
    token = _context.set(context)
    try:
        with connection.execute_wrapper(_tell_postgres):
            yield
    finally:
        _context.reset(token)


def note_actor(user_id: int) -> None:
    """Say who acts, once it is known: a command's operator, or whom a page has just signed in."""
    if context := _context.get():
        context.actor_id = user_id


def note_key(key_id: int) -> None:
    """Say which API key is used, once it is known."""
    if context := _context.get():
        context.key_id = key_id


def of_command(arguments: Sequence[str]) -> AuditContext:
    """Return the context of `manage.py`: which command, and the operating system's user. Never its arguments."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # The user of a container needs no name.
        user = "unknown"
    return AuditContext(source=" ".join(["manage.py", *arguments[1:2]]), shell_user=user)


def _tell_postgres(execute: Any, sql: Any, params: Any, many: bool, context: Mapping[str, Any]) -> Any:
    """Put who acts in front of a statement that writes, in the same message: it costs no round trip."""
    told = _context.get()
    if told is None or not isinstance(sql, str) or not WRITES.match(sql):
        return execute(sql, params, many, context)
    text = "SELECT set_config('crossmodel.audit', '{}', true); ".format(told.as_json().replace("'", "''"))
    if many:
        # Django's own code sends one statement for many rows; whoever does not has a transaction around it.
        context["cursor"].cursor.execute(text)
        return execute(sql, params, many, context)
    answer = execute((text if params is None else text.replace("%", "%%")) + sql, params, many, context)
    cursor = context["cursor"].cursor
    while cursor.nextset():
        pass
    return answer
