"""The runbook, docs/operating.md, as a page of the admin: whoever is paged at night has no checkout at hand."""

import re
from collections.abc import Sequence
from functools import cache
from itertools import pairwise

from django.conf import settings
from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.html import escape
from django.utils.safestring import SafeString, mark_safe
from django.views.decorators.http import require_safe
from markdown_it import MarkdownIt
from markdown_it.token import Token

DOCUMENT = settings.BASE_DIR / "docs" / "operating.md"


@require_safe
def show_runbook(request: HttpRequest) -> HttpResponse:
    context = {**admin.site.each_context(request), "title": "Runbook", "runbook": render_runbook()}
    return render(request, "operations/runbook.html", context)


@cache
def render_runbook() -> SafeString:
    """Return the document as HTML, each heading under the anchor that status lines and alerts name."""
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    parser.add_render_rule("code_inline", _render_code)
    tokens = parser.parse(DOCUMENT.read_text())
    for token, following in pairwise(tokens):
        if token.type == "heading_open":
            token.attrSet("id", anchor_of(following.content))
        elif token.type == "inline":
            _leave_out_links(token.children or [])
    html: str = parser.renderer.render(tokens, parser.options, {})
    return mark_safe(html)  # noqa: S308  It is a file of ours.


def _render_code(renderer: object, tokens: Sequence[Token], index: int, options: object, env: object) -> str:
    """As another element than `code`, around which the admin's stylesheet writes the backticks again."""
    return f"<samp>{escape(tokens[index].content)}</samp>"


def anchor_of(heading: str) -> str:
    """Return what GitHub makes of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _leave_out_links(children: list[Token]) -> None:
    """Other documents are named, and are not here."""
    is_left_out = False
    for child in children:
        if child.type == "link_open":
            is_left_out = not str(child.attrGet("href")).startswith(("https://", "#"))
        if child.type in ("link_open", "link_close") and is_left_out:
            child.tag, child.attrs = "em", {}
