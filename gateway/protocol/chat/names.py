"""Names and ids of tools on both sides of the translation to Chat Completions. Pure.

Messages allows tool names of 128 characters and ids of any length; Chat Completions allows names of 64 and ids of 40.

Clients take an id for unique in a whole conversation, and of few characters. Some providers count from 0 in each reply
(`call_0`), or write `functions.get_weather:0` and do worse when they are shown another id for what they called. So such
an id goes to the client inside one of ours, and comes back to the provider as it was.
"""

import base64
import hashlib
import re

from gateway.protocol.json.broken_text import mend

MAX_CALL_ID_CHARS = 40
FORBIDDEN_ID_CHARS = re.compile(r"[^a-zA-Z0-9_-]", re.ASCII)
HASH_CHARS = 8
MAX_CARRIED_ID_CHARS = 150  # As base64 with what stands before it: 220 of the 256 that Messages allows.
COUNTED_ID = re.compile(r"(.*[^a-zA-Z0-9])?[0-9]{1,5}", re.ASCII | re.DOTALL)
CARRYING_ID = re.compile(r"toolu_[a-zA-Z0-9]{8}_([a-zA-Z0-9_-]+)", re.ASCII)


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
        """Return the upstream's own id, inside one of ours where clients could not take it for what it is; only ours
        where it gave none, or one twice.
        """
        text = call_id if isinstance(call_id, str) and len(call_id) <= MAX_CARRIED_ID_CHARS else ""
        if FORBIDDEN_ID_CHARS.search(text) or COUNTED_ID.fullmatch(text):
            carried = base64.urlsafe_b64encode(mend(text).encode()).rstrip(b"=").decode()
            text = f"toolu_{self._stem[-8:]:0>8}_{carried}"
        if not text or text in self._given:
            text = f"toolu_{self._stem}_{len(self._given)}"
        self._given.add(text)
        return text


class SentCallIds:
    """The ids of calls for an upstream, the same one wherever a conversation names a call, and no two the same."""

    def __init__(self) -> None:
        self._sent: dict[str, str] = {}
        self._taken: set[str] = set()

    def send(self, call_id: str) -> str:
        """Return the id that the provider gave this call, unless it gave another one the same; else ours."""
        if call_id not in self._sent:
            own = carried_call_id(call_id)
            sent = own if own and own not in self._taken else shorten_call_id(call_id)
            self._taken.add(sent)
            self._sent[call_id] = sent
        return self._sent[call_id]


def carried_call_id(call_id: str) -> str:
    """Return the id inside one of ours; "" where there is none."""
    carrying = CARRYING_ID.fullmatch(call_id)
    if carrying is None:
        return ""
    carried = carrying[1]
    try:
        return base64.urlsafe_b64decode(carried + "=" * (-len(carried) % 4)).decode()
    except ValueError:
        return ""


def shorten_call_id(call_id: str) -> str:
    """Return an id for the upstream, the same one wherever a conversation names this call."""
    if len(call_id) <= MAX_CALL_ID_CHARS:
        return call_id
    return "call_" + hashlib.blake2b(call_id.encode(), digest_size=16).hexdigest()
