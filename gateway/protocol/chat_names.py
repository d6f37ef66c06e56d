"""Names and ids of tools on both sides of the translation to Chat Completions. Pure.

Messages allows tool names of 128 characters and ids of any length; Chat Completions allows names of 64 and ids of 40.
"""

import hashlib
import re

MAX_CALL_ID_CHARS = 40
FORBIDDEN_ID_CHARS = re.compile(r"[^a-zA-Z0-9_-]", re.ASCII)
HASH_CHARS = 8


class ToolNames:
    """Short names for an upstream, and the way back. Made from the tools of one request."""

    def __init__(self, names: list[str], max_chars: int) -> None:
        self._max_chars = max_chars
        self._full_by_short = {short: name for name in names if (short := self.shorten(name)) != name}

    def shorten(self, name: str) -> str:
        """Return `name`, or where it is too long its beginning and a hash of the whole: always the same one."""
        if len(name) <= self._max_chars:
            return name
        digest = hashlib.blake2b(name.encode(), digest_size=HASH_CHARS // 2).hexdigest()
        return f"{name[: self._max_chars - HASH_CHARS - 1]}_{digest}"

    def restore(self, name: str) -> str:
        return self._full_by_short.get(name, name)


class CallIds:
    """Gives every tool call of one reply an id that Messages clients accept, and that no other call of it has."""

    def __init__(self, message_id: str) -> None:
        self._stem = FORBIDDEN_ID_CHARS.sub("", message_id.removeprefix("msg_"))
        self._given: set[str] = set()

    def accept(self, call_id: object) -> str:
        """Return the upstream's own id, its odd characters replaced; one of ours where it gave none, or one twice."""
        text = FORBIDDEN_ID_CHARS.sub("_", call_id) if isinstance(call_id, str) else ""
        if not text or len(text) > 256 or text in self._given:
            text = f"toolu_{self._stem}_{len(self._given)}"
        self._given.add(text)
        return text


def shorten_call_id(call_id: str) -> str:
    """Return an id for the upstream, the same one wherever a conversation names this call."""
    if len(call_id) <= MAX_CALL_ID_CHARS:
        return call_id
    return "call_" + hashlib.blake2b(call_id.encode(), digest_size=16).hexdigest()
