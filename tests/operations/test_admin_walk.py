"""Every address of the admin, as the URL resolver has them, for every staff role, with whatever in it: never 500."""

from collections.abc import Iterable, Iterator
from urllib.parse import urlencode

import pytest
from django.apps import apps
from django.contrib import admin
from django.db.models import Model
from django.test import Client

from accounts.staff_roles import StaffRole
from billing.models import UsageRecord
from tests.support.every_table import fill_every_table
from tests.support.operators import make_operator
from tests.support.people import People, client_of
from tests.support.roles import routes

pytestmark = pytest.mark.long

SUPERUSER = "superuser"
FINE = {200, 302, 400, 403, 404, 405, 422}
ODD_IDS = ["0", "-1", "9" * 30, "abc", "a" * 3000, "%00", "1%00", "%F0%9F%98%80", "1_2F2", "%25"]
ODD_WORDS = ["\x00", "'\"", "9" * 40, "a" * 5000, "req_zz", "e@example.org " * 9, "cm-\\"]
ODD_VALUES = ["-1", "x" * 6000, "\x00", "9" * 400, "NaN", "0001-01-01"]
ODD_PAGES = ["-1", "999999999", "x", "\x00"]
ODD_ORDERS = ["1.-2.99", "-", "9" * 30, "\x00"]


@pytest.fixture
def world(people: People) -> People:
    fill_every_table(people)
    return people


def walker(role: str) -> Client:
    roles = [StaffRole(role)] if role in set(StaffRole) else []
    operator = make_operator(f"walker-{role}", *roles, is_superuser=role == SUPERUSER)
    return client_of(operator, raise_request_exception=False)


def addresses(*, of_rows: bool) -> list[tuple[str, str]]:
    """Return the admin's addresses and their names, with a place for a row or without one."""
    found = {(path, name) for path, name, _ in routes() if path.startswith("/admin/") and "logout" not in name}
    return sorted((path, name) for path, name in found if ("<" in path) == of_rows)


def filled(path: str, value: str) -> str:
    for name in ("object_id", "request_id", "name", "content_type_id", "app_label", "id"):
        path = path.replace(f"<{name}>", value)
    assert "<" not in path
    return path


def first_row(path: str) -> str:
    _, _, app, model, *_ = path.split("/")
    row = apps.get_model(app, model)._default_manager.order_by("pk").first()
    assert row is not None, model
    return str(row.pk)


def walk(client: Client, paths: Iterable[str]) -> int:
    """Open each; return how many had something to show."""
    statuses = {path: client.get(path).status_code for path in paths}
    assert {path: status for path, status in statuses.items() if status not in FINE} == {}
    return [*statuses.values()].count(200)


def lists() -> Iterator[tuple[type[Model], str]]:
    for model in admin.site._registry:
        yield model, f"/admin/{model._meta.app_label}/{model._meta.model_name}/"


@pytest.mark.parametrize("role", [*StaffRole, SUPERUSER])
def test_every_page_with_something_on_it(world: People, role: str) -> None:
    record = UsageRecord.objects.get()
    known = {
        "operations_request": record.pk.hex,
        "operations_send_to_support": record.pk.hex,
        "operations_run_job": "traffic",
        "admin:view_on_site": "1",
        "admin:app_list": "billing",
    }
    rows = [filled(path, known.get(name) or first_row(path)) for path, name in addresses(of_rows=True)]
    assert walk(walker(role), [*(path for path, _ in addresses(of_rows=False)), *rows]) > 60


@pytest.mark.parametrize("half", [0, 1])
def test_rows_that_are_not_there_and_ids_that_none_has(world: People, half: int) -> None:
    paths = [filled(path, odd) for path, _ in addresses(of_rows=True)[half::2] for odd in ODD_IDS]
    assert len(paths) > 500
    walk(walker(SUPERUSER), paths)


@pytest.mark.parametrize("third", [0, 1, 2])
def test_lists_that_are_asked_for_nonsense(world: People, third: int) -> None:
    questions = [{"q": word} for word in ODD_WORDS] + [{"p": page} for page in ODD_PAGES]
    questions += [{"o": order} for order in ODD_ORDERS]
    questions += [{"none__exact": "1"}, {"id__in": "x,y"}, {"all": ""}, {"e": "1"}, {"_popup": "x", "_to_field": "y"}]
    paths = []
    for model, path in list(lists())[third::3]:
        filters = [entry[0] if isinstance(entry, tuple) else entry for entry in admin.site._registry[model].list_filter]
        columns = [column for column in filters if isinstance(column, str)]
        asked = questions + [{f"{column}__exact": odd} for column in columns for odd in ("x", "\x00", "9" * 30)]
        asked += [{f"{column}__isempty": "x"} for column in columns]
        paths += [f"{path}?{urlencode(question)}" for question in asked]
    assert len(paths) > 200
    walk(walker(SUPERUSER), paths)


def test_pages_of_our_own_that_are_asked_for_nonsense(world: People) -> None:
    paths = [f"/admin/find/?{urlencode({'q': word})}" for word in ODD_WORDS]
    paths += [f"/admin/search/?{urlencode({'s': word})}" for word in ODD_WORDS]
    paths += [f"/admin/?{urlencode({'span': word})}" for word in ODD_WORDS[:4]]
    paths += [f"/admin/autocomplete/?{urlencode({'term': word})}" for word in ODD_WORDS[:4]]
    paths += [f"/admin/r/{odd}/{odd}/" for odd in ODD_IDS]
    assert walk(walker(SUPERUSER), paths) >= len(ODD_WORDS)


@pytest.mark.parametrize("half", [0, 1])
def test_forms_that_are_sent_nonsense(world: People, half: int) -> None:
    client = walker(SUPERUSER)
    forms = [path for path, _ in addresses(of_rows=False)]
    forms += [filled(path, first_row(path)) for path, _ in addresses(of_rows=True) if path.count("/") > 5]
    sent, broken = 0, []
    for path in forms[half::2]:
        answer = client.get(path)
        names = fields_of(answer) if answer.status_code == 200 else []
        for odd in ODD_VALUES if names else [""]:
            status = client.post(path, dict.fromkeys(names, odd)).status_code
            broken += [] if status in FINE else [(path, odd[:20], status)]
            sent += bool(names)
    assert broken == []
    assert sent > 20


def fields_of(answer: object) -> list[str]:
    """Return the names of the fields of the form that a page shows."""
    context = getattr(answer, "context", None) or {}
    form = context["adminform"].form if "adminform" in context else context.get("form")
    return list(getattr(form, "fields", []))
