"""The fonts of PDFs: ours, and those in the folders of CROSSMODEL_FONTS for what ours lack.

A character that no font has would be an empty box, and PDF/A takes no such box at all. So it is a square on paper, and
the page says which characters these are.
"""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import typst
from django.conf import settings

OURS = Path(__file__).resolve().parent / "typefaces"
SQUARE = "\N{WHITE SQUARE}"
LAST_OF_LATIN = "\u024f"  # Up to here ours have all that can be printed.
MAX_CHARACTERS = 2_000  # Of one document, of which it is asked whether a font has them; the rest are squares.


@lru_cache(maxsize=2)
def load_fonts(folders: tuple[str, ...]) -> typst.Fonts:
    """Return what typst sets with, read once by each process. Folders that do not exist have no fonts."""
    paths = [str(OURS), *(folder for folder in folders if Path(folder).is_dir())]
    return typst.Fonts(include_system_fonts=False, font_paths=paths)


def fonts_in_use() -> typst.Fonts:
    return load_fonts(tuple(settings.FONT_FOLDERS))


def characters_without_font(content: Any) -> str:
    """Return each character of a document that no font has, in the order in which it has them."""
    asked = dict.fromkeys(character for text in _texts(content) for character in text if character > LAST_OF_LATIN)
    folders = tuple(settings.FONT_FOLDERS)
    return "".join(
        character
        for number, character in enumerate(asked)
        if number >= MAX_CHARACTERS or not _has_font(character, folders)
    )


def with_squares(content: Any, missing: str) -> Any:
    """Return the document with a square in place of each of these characters."""
    if isinstance(content, str):
        return content.translate(dict.fromkeys(map(ord, missing), SQUARE))
    if isinstance(content, dict):
        return {name: with_squares(inner, missing) for name, inner in content.items()}
    if isinstance(content, list | tuple):
        return [with_squares(inner, missing) for inner in content]
    return content


@lru_cache(maxsize=20_000)
def _has_font(character: str, folders: tuple[str, ...]) -> bool:
    """Ask by an archival PDF of this one character, which typst refuses where it has none for it: 2 ms, once."""
    try:
        typst.compile(
            b"#sys.inputs.character",
            sys_inputs={"character": character},
            font_paths=load_fonts(folders),
            format="pdf",
            pdf_standards="a-3b",
        )
    except typst.TypstError:
        return False
    return True


def _texts(content: Any) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, dict):
        for inner in content.values():
            yield from _texts(inner)
    elif isinstance(content, list | tuple):
        for inner in content:
            yield from _texts(inner)
