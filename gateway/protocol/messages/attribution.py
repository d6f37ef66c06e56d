"""Whom a request is counted for: its end user, its tag and its session. Pure.

The end user is `metadata.user_id`. Claude Code puts JSON there that also names the session, so that each session would
be a user of its own; other clients put what they like. Tag and session are headers: `x-crossmodel-tag` and
`x-crossmodel-session` are ours, `x-claude-code-session-id` is sent by Claude Code. None of them goes to an upstream.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

import orjson

from billing.usage_event import MAX_END_USER_CHARS, MAX_SESSION_CHARS, MAX_TAG_CHARS

TAG_HEADER = "HTTP_X_CROSSMODEL_TAG"
SESSION_HEADERS = ("HTTP_X_CROSSMODEL_SESSION", "HTTP_X_CLAUDE_CODE_SESSION_ID")
# Claude Code before its user id was JSON.
OLD_USER_ID = re.compile(r"user_([0-9a-f]{16,128})_account_([0-9a-f-]*)_session_([0-9a-f-]{8,64})")


class Attribution(NamedTuple):
    """Empty where nothing is said. Each is at most as long as billing.usage_event names, and printable."""

    end_user: str
    tag: str
    session: str


def read_attribution(meta: Mapping[str, str], end_user: str, session: str) -> Attribution:
    """Return whom the request is counted for. A session that a header names wins over that of the body."""
    tag = _header_text(meta[TAG_HEADER], MAX_TAG_CHARS) if TAG_HEADER in meta else ""
    for name in SESSION_HEADERS:
        if name in meta:
            session = _header_text(meta[name], MAX_SESSION_CHARS) or session
            break
    return Attribution(end_user, tag, session)


def read_user_id(user_id: str) -> tuple[str, str]:
    """Return the end user and the session that `metadata.user_id` names."""
    if user_id.startswith("{"):
        try:
            said = orjson.loads(user_id)
        except orjson.JSONDecodeError:
            said = {}
        account, session = _first_text(said, "account_uuid", "device_id"), _first_text(said, "session_id")
        if account and session:
            return printable(account, MAX_END_USER_CHARS), printable(session, MAX_SESSION_CHARS)
    elif user_id.startswith("user_") and (found := OLD_USER_ID.fullmatch(user_id)):
        device, account, session = found.groups()
        return (account or device)[:MAX_END_USER_CHARS], session
    return printable(user_id, MAX_END_USER_CHARS), ""


def printable(text: str, max_chars: int) -> str:
    """Return the text on one line, as Postgres can store it, cut to so many characters."""
    if not text.isprintable():
        text = "".join(character for character in text if character.isprintable())
    return text.strip()[:max_chars]


def _header_text(value: str, max_chars: int) -> str:
    """Headers are read as Latin-1; whoever writes more than ASCII means UTF-8."""
    return printable(value if value.isascii() else value.encode("latin-1").decode("utf-8", "replace"), max_chars)


def _first_text(said: object, *names: str) -> str:
    found = [said.get(name) for name in names] if isinstance(said, dict) else []
    return next((value for value in found if isinstance(value, str) and value), "")
