"""Each script has the functions of the shared part that it uses, and no others: Redis makes all anew in each run."""

import re

import pytest

from billing.admission.scripts import COMMENT, DEFINED, FOLDER, put_in_front, read_script

SHARED = (FOLDER / "_common.lua").read_text()
NAMES = sorted(path.stem for path in FOLDER.glob("*.lua") if not path.stem.startswith("_"))


def words_of(text: str) -> list[str]:
    return re.findall(r"\w+", COMMENT.sub("", text))


@pytest.mark.parametrize("name", NAMES)
def test_a_script_has_what_it_uses_and_before_it_does(name: str) -> None:
    text = read_script(name).text
    for shared in DEFINED.findall(SHARED):
        if shared in words_of(text):
            defined = re.search(rf"^local (?:function )?{shared}\b", text, re.MULTILINE)
            assert defined is not None
            assert shared not in words_of(text[: defined.start()])


def test_what_is_used_by_what_is_used_is_there_and_nothing_else() -> None:
    shared = (
        "local A = 1\n\nlocal function b() return A end\n\nlocal function c() end\n\n-- b is named here.\nlocal D = c()"
    )
    assert DEFINED.findall(put_in_front(shared, "return b() -- not c, nor D\n")) == ["A", "b"]
    assert put_in_front(shared, "return 1\n") == "return 1\n"
