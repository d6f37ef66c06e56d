"""Finds mistakes in templates before a person meets them: bad syntax, and names of what does not exist."""

from collections.abc import Iterator
from pathlib import Path

from django.conf import settings
from django.contrib.staticfiles import finders
from django.template import Engine, Template, TemplateDoesNotExist, TemplateSyntaxError
from django.template.base import FilterExpression, Node, Variable
from django.template.defaulttags import URLNode
from django.template.loader_tags import ExtendsNode, IncludeNode
from django.templatetags.static import StaticNode
from django.urls import NoReverseMatch, get_resolver
from django.urls.resolvers import URLResolver

SUFFIXES = {".html", ".txt", ".xml", ".svg"}


def check_templates() -> list[str]:
    """Return one line for each mistake in this project's templates, sorted by file and line."""
    engine = Engine.get_default()
    routes = set(_route_names(get_resolver()))
    mistakes = []
    for root in template_folders():
        for path in sorted(path for path in root.rglob("*") if path.suffix in SUFFIXES):
            name = path.relative_to(root).as_posix()
            mistakes += [f"{_shown(path)}:{mistake}" for mistake in _check_template(engine, path, name, routes)]
    return mistakes


def template_folders() -> list[Path]:
    """Return the folders of this project's own templates, not those of installed packages."""
    folders = [settings.BASE_DIR / "templates", *settings.BASE_DIR.glob("*/templates")]
    return [folder for folder in folders if folder.is_dir()]


def _check_template(engine: Engine, path: Path, name: str, routes: set[str]) -> Iterator[str]:
    try:
        template = Template(path.read_text(encoding="utf-8"), name=name, engine=engine)
    except TemplateSyntaxError as error:
        token = getattr(error, "token", None)
        yield f"{token.lineno if token else 1}: {error}"
        return
    for node in template.nodelist.get_nodes_by_type(Node):
        complaint = _check_node(engine, node, routes)
        if complaint:
            yield f"{node.token.lineno if node.token else 1}: {complaint}"


def _check_node(engine: Engine, node: Node, routes: set[str]) -> str:
    """Return what is wrong with a node, as far as its arguments are constants; empty when nothing is."""
    if isinstance(node, ExtendsNode | IncludeNode):
        wanted = _constant(node.parent_name if isinstance(node, ExtendsNode) else node.template)
        if wanted:
            try:
                engine.get_template(wanted.partition("#")[0])
            except TemplateDoesNotExist:
                return f"there is no template {wanted!r}"
            except TemplateSyntaxError:
                return ""  # Told where that template is checked itself.
    elif isinstance(node, URLNode):
        wanted = _constant(node.view_name)
        if wanted and wanted not in routes:
            return f"no URL is named {wanted!r}"
    elif isinstance(node, StaticNode):
        wanted = _constant(node.path)
        if wanted and finders.find(wanted) is None:
            return f"there is no static file {wanted!r}"
    return ""


def _constant(expression: object) -> str:
    """Return the text of a constant argument, empty when it depends on the context."""
    if isinstance(expression, FilterExpression) and not expression.filters:
        expression = expression.var
    if isinstance(expression, Variable):
        expression = expression.literal
    return expression if isinstance(expression, str) else ""


def _route_names(resolver: URLResolver, namespace: str = "") -> Iterator[str]:
    for key in resolver.reverse_dict:
        if isinstance(key, str):
            yield namespace + key
    for name, (_, child) in resolver.namespace_dict.items():
        try:
            yield from _route_names(child, f"{namespace}{name}:")
        except NoReverseMatch:
            continue


def _shown(path: Path) -> Path:
    return path.relative_to(settings.BASE_DIR) if path.is_relative_to(settings.BASE_DIR) else path
