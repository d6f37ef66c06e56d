"""A mail's plain text, as the parts that its HTML twin lays out: a paragraph, a list, a button, a code. Pure."""

import re
from dataclasses import dataclass

LINK = re.compile(r"https?://\S+")
CODE = re.compile(r"[A-Z0-9]{4,10}(?:-[A-Z0-9]{3,10})?")


@dataclass(frozen=True, slots=True)
class Part:
    """`kind` is "text", "list", "link" or "code"."""

    kind: str
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        return " ".join(self.lines)


def read_parts(body: str) -> list[Part]:
    """Return what stands between blank lines. A link or a code that stands alone is more than text."""
    blocks = [[line.strip() for line in block.splitlines() if line.strip()] for block in re.split(r"\n\s*\n", body)]
    return [Part(_kind(lines), tuple(line.removeprefix("- ") for line in lines)) for lines in blocks if lines]


def _kind(lines: list[str]) -> str:
    if all(line.startswith("- ") for line in lines):
        return "list"
    if len(lines) == 1 and LINK.fullmatch(lines[0]):
        return "link"
    if len(lines) == 1 and CODE.fullmatch(lines[0]):
        return "code"
    return "text"
