"""What docs/roles.md says: its tables, as the tests that walk them read them."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from django.urls import get_resolver
from django.urls.resolvers import URLResolver

from accounts.models import Role

DOCUMENT = Path(__file__).parents[2] / "docs" / "roles.md"
NAME = re.compile(r"`([\w:.]+)`")


def table(first_heading: str, *, of: str = "") -> list[list[str]]:
    """Return the rows of the first table with this first heading, in the section `of` when it is named."""
    text = DOCUMENT.read_text()
    section = text[text.index(f"## {of}\n") :] if of else text
    lines = iter(section.splitlines())
    for line in lines:
        if line.startswith(f"| {first_heading} |"):
            next(lines)  # The line under the headings.
            rows: list[list[str]] = []
            for row in lines:
                if not row.startswith("|"):
                    return rows
                rows.append([cell.strip() for cell in row.strip("|").split("|")])
            return rows
    raise AssertionError(f"docs/roles.md has no table of {first_heading}s")


def permissions() -> dict[str, set[str]]:
    """Return by permission the roles that have it."""
    return {
        NAME.findall(row[0])[0]: {role for role, cell in zip(Role.values, row[2:], strict=True) if cell == "yes"}
        for row in table("permission")
    }


def pages() -> dict[str, tuple[str, str]]:
    """Return by name of each page of an organization its address and the permission that it needs."""
    rows = table("page", of="Pages of an organization")
    return {NAME.findall(name)[0]: (address.strip("`"), needs.strip("`")) for name, address, needs in rows}


def who() -> dict[str, set[str]]:
    """Return by name of each page of an organization the roles that may open it."""
    roles = permissions()
    return {name: roles[needs] for name, (_, needs) in pages().items()}


def routes(
    resolver: URLResolver | None = None, path: str = "/", namespace: str = ""
) -> Iterator[tuple[str, str, Callable[..., Any]]]:
    """Yield every named address of the site, its arguments in angle brackets, with its name and its view."""
    for pattern in (resolver or get_resolver()).url_patterns:
        here = path + _readable(str(pattern.pattern))
        if isinstance(pattern, URLResolver):
            yield from routes(pattern, here, f"{pattern.namespace}:" if pattern.namespace else namespace)
        elif pattern.name:
            yield here, namespace + pattern.name, pattern.callback


def _readable(text: str) -> str:
    """Return the pattern of an address as a person writes it: `(?P<key>.+)` and `<int:key>` are `<key>`."""
    text = re.sub(r"\(\?P<(\w+)>(?:\[[^\]]*\]|[^()\[\]])*\)", r"<\1>", text)
    return re.sub(r"<\w+:(\w+)>", r"<\1>", text).removeprefix("^").removesuffix("$")
