r"""Half a character written as an escape within the arguments of a tool call, which are JSON inside a text. Pure.

A model that writes `\ud83d\ude00` for an emoji may write one half only, as when it repeats a text that was cut in two.
No client's parser takes that: SDKs fail on the whole reply. The pieces in which arguments come are cut anywhere.
"""

import re

LONE_HALF = "\\ufffd"
# In turn: both halves of a character, which stay; one half; any other escape, so that `\\ud83d` is seen for what it is.
ESCAPES = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[dD][89a-fA-F][0-9a-fA-F]{2}|\\.", re.DOTALL
)
HALF_CHARS = len("\\ud83d")
# What may still become an escape, or the first half of one of two.
UNFINISHED = re.compile(
    r"\\(?:u(?:[0-9a-fA-F]{0,3}|[dD][89abAB][0-9a-fA-F]{2}(?:\\(?:u(?:[dD](?:[c-fC-F][0-9a-fA-F]?)?)?)?)?)?)?"
)
MAX_UNFINISHED_CHARS = len("\\ud83d\\ude0")


class EscapeMender:
    """Takes a text of JSON in pieces, and gives it back with U+FFFD for each escaped half that stands alone."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = ""

    def mend(self, text: str) -> str:
        """Return what of the text is whole escapes by now; the same text where there is nothing to do."""
        if not self._held and "\\u" not in text and not text.endswith("\\"):
            return text
        text = self._held + text
        end = _unfinished_from(text)
        text, self._held = text[:end], text[end:]
        return ESCAPES.sub(_mend_one, text)

    def end(self) -> str:
        """Return what is still held, now that no more comes."""
        text, self._held = self._held, ""
        return ESCAPES.sub(_mend_one, text)


def _mend_one(found: re.Match[str]) -> str:
    escape = found[0]
    return LONE_HALF if len(escape) == HALF_CHARS else escape


def _unfinished_from(text: str) -> int:
    """Return where the text ends in something that the next piece may go on with; its length where it does not."""
    place = text.find("\\", max(0, len(text) - MAX_UNFINISHED_CHARS))
    while place >= 0:
        before = len(text[:place]) - len(text[:place].rstrip("\\"))
        if before % 2 == 0 and UNFINISHED.fullmatch(text, place):
            return place
        place = text.find("\\", place + 1)
    return len(text)
