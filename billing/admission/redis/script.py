"""A Lua script as Redis runs it: its text, and the digest by which it is called."""

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Script:
    name: str
    text: str
    sha1: str


def make_script(name: str, text: str) -> Script:
    return Script(name=name, text=text, sha1=hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())
