"""PDF by typst, in this process: no browser, no service, no file left behind."""

from pathlib import Path
from typing import Literal

import orjson
import typst

from pages.documents.content import Content
from pages.documents.fonts import characters_without_font, fonts_in_use, with_squares

TEMPLATES = Path(__file__).resolve().parent / "templates"
MAX_ROWS = 5_000  # Of one PDF, about a hundred and fifty pages; CSV and JSON have no such limit.
PREVIEW_DPI = 110


class DocumentTooLongError(Exception):
    """It has more rows than MAX_ROWS; the text says so for people."""


def render_pdf(template: str, content: Content, *, is_archival: bool = False) -> bytes:
    """Return the PDF of a `document` or a `statement`, PDF/A-3 when `is_archival`. Raises DocumentTooLongError."""
    return _compile(template, content, "pdf", is_archival=is_archival)[0]


def render_pictures(template: str, content: Content) -> list[bytes]:
    """Return a PNG of each page: to look at."""
    return _compile(template, content, "png")


def _compile(template: str, content: Content, kind: Literal["pdf", "png"], *, is_archival: bool = False) -> list[bytes]:
    groups: list[Content] = content.get("groups") or content.get("days") or []
    rows = sum(len(group.get("lines") or group.get("rows") or ()) for group in groups)
    if rows > MAX_ROWS:
        raise DocumentTooLongError(
            f"A PDF holds up to {MAX_ROWS:,} rows; these are {rows:,}. CSV and JSON hold them all."
        )
    if missing := characters_without_font(content):
        content = with_squares(content, missing)
    pages = typst.compile(
        str(TEMPLATES / f"{template}.typ"),
        root=str(TEMPLATES),
        font_paths=fonts_in_use(),
        format=kind,
        ppi=PREVIEW_DPI,
        pdf_standards="a-3b" if is_archival else None,
        sys_inputs={"content": orjson.dumps(content).decode()},
    )
    return pages if isinstance(pages, list) else [pages]
