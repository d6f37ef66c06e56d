"""The Lua scripts, each with the shared part in front. What a script does and returns stands in its own header."""

from pathlib import Path

from billing.admission.redis.script import Script, make_script

FOLDER = Path(__file__).parent / "lua"


def read_script(name: str) -> Script:
    return make_script(name, (FOLDER / "_common.lua").read_text() + "\n" + (FOLDER / f"{name}.lua").read_text())
