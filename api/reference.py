"""The reference of the API as a page, and `llms.txt`: what people and their models read before they call it.

Both are made from the schema that `/api/schema/` serves, so they say what is. The page has no script and loads nothing
but our own files, as the policy of all pages wants it.
"""

from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.template.loader import render_to_string
from django.views.decorators.http import require_safe

from api.made_once import MadeOnce
from api.schema_view import read_schema

METHODS = ("get", "post", "put", "patch", "delete")
JSON = "application/json"


@require_safe
def reference(request: HttpRequest) -> HttpResponse:
    context = {"groups": read_groups(), "calls": render_calls(), "base_url": settings.BASE_URL}
    return render(request, "api/reference.html", context)


@require_safe
def llms(request: HttpRequest) -> HttpResponse:
    """A map of the site for language models, as llmstxt.org describes it."""
    context = {"groups": read_groups(), "base_url": settings.BASE_URL}
    return render(request, "api/llms.txt", context, content_type="text/plain; charset=utf-8")


@MadeOnce
def render_calls() -> str:
    """Return the list of all calls with their fields: thousands of lines, which are the same for everybody."""
    return render_to_string("api/_calls.html", {"groups": read_groups()})


@MadeOnce
def read_groups() -> list[dict[str, Any]]:
    """Return the calls of the schema by their first word, as the page shows them. It is the same for everybody."""
    schema = read_schema()
    schemas = schema["components"]["schemas"]
    groups: dict[str, list[dict[str, Any]]] = {}
    for path, operations in schema["paths"].items():
        words = path.removeprefix("/api/v1/").removeprefix("/v1/").split("/")
        calls = [_read_call(path, method, operations[method], schemas) for method in METHODS if method in operations]
        groups.setdefault(words[0], []).extend(calls)
    return [{"name": name, "calls": calls} for name, calls in sorted(groups.items())]


def _read_call(path: str, method: str, operation: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    described = operation.get("description", "").strip()
    summary, _, rest = described.partition("\n\n")
    body = operation.get("requestBody", {}).get("content", {}).get(JSON, {}).get("schema")
    answers = [
        (status, answer["content"].get(JSON, {}).get("schema"))
        for status, answer in operation["responses"].items()
        if status.isdigit() and answer.get("content")
    ]
    return {
        "id": operation["operationId"],
        "method": method.upper(),
        "path": path,
        "summary": " ".join(summary.split()),
        "rest": " ".join(rest.split()),
        "needs": _needs(operation),
        "parameters": [_read_parameter(each) for each in operation.get("parameters", ())],
        "body": _read_fields(body, schemas) if body else [],
        "answers": [(status, _read_fields(schema, schemas) if schema else []) for status, schema in answers],
    }


def _needs(operation: dict[str, Any]) -> str:
    names = [name for each in operation.get("security", ()) for name in each]
    if "managementKey" in names:
        return "a management key"
    return "a key" if "apiKey" in names else "no key"


def _read_parameter(parameter: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": parameter["name"],
        "where": parameter["in"],
        "type": _type_of(parameter["schema"]),
        "is_required": parameter.get("required", False),
        "text": parameter.get("description", ""),
    }


def _read_fields(schema: dict[str, Any], schemas: dict[str, Any], above: str = "") -> list[dict[str, Any]]:
    """Return the fields of an object, those of inner objects under their way: `data.budgets.daily`."""
    schema = _follow(schema, schemas)
    if schema.get("type") == "array":
        return _read_fields(schema["items"], schemas, f"{above}[]")
    rows = []
    for name, field in schema.get("properties", {}).items():
        way = f"{above}.{name}" if above else name
        inner = _follow(field, schemas)
        rows.append(
            {
                "name": way,
                "type": _type_of(inner),
                "is_required": name in schema.get("required", ()),
                "text": field.get("description", "") or inner.get("description", ""),
            }
        )
        rows += _read_fields(inner, schemas, way) if inner.get("type") in ("object", "array") else []
    return rows


def _follow(schema: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    """Return what a schema refers to, with what it adds to it."""
    reference = schema.get("$ref") or next((each["$ref"] for each in schema.get("allOf", ()) if "$ref" in each), None)
    return {**schemas[reference.rpartition("/")[2]], **schema} if reference else schema


def _type_of(schema: dict[str, Any]) -> str:
    if choices := [choice for choice in schema.get("enum", ()) if choice is not None]:
        return " | ".join(map(str, choices))
    name = schema.get("format") or schema.get("type", "")
    return f"{name} or null" if schema.get("nullable") else str(name)
