"""The Lua scripts, each with the shared part in front. What a script does and returns stands in its own header."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "scripts"


@dataclass(frozen=True, slots=True)
class Script:
    name: str
    text: str
    sha1: str


def read_script(name: str) -> Script:
    text = (FOLDER / "_common.lua").read_text() + "\n" + (FOLDER / f"{name}.lua").read_text()
    return Script(name=name, text=text, sha1=hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


ADMIT = read_script("admit")
ADMIT_FREE = read_script("admit_free")
SETTLE = read_script("settle")
BEAT = read_script("beat")
READD = read_script("readd")
REAP = read_script("reap")
CONFIRM = read_script("confirm")
PUBLISH = read_script("publish")
REBUILD = read_script("rebuild")
FIGURES = read_script("figures")
CLOCK = read_script("clock")
UPSTREAM_NEWS = read_script("upstream_news")
