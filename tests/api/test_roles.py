"""Each address of the API opens for the kind of key that docs/roles.md names, and for no other."""

import re

import pytest
from django.test import Client

from accounts.keys import create_key
from accounts.models import Role
from api.management import ManagementView
from tests.api.manager import Manager
from tests.support.people import People
from tests.support.roles import permissions, routes, table

# By what an address needs: whether it lets in nobody's request, an ordinary key's, a management key's.
LETS_IN = {
    "nobody": (True, True, True),
    "a key": (False, True, True),
    "a key that is no management key": (False, True, False),
    "a management key": (False, False, True),
}


@pytest.mark.long
def test_every_address_asks_for_its_kind_of_key(people: People) -> None:
    _, management = create_key(
        people.organization, name="FinOps", created_by=people.alice, is_management=True, role=Role.OWNER
    )
    rows = [(address.strip("`"), needs) for _, address, needs in table("name", of="The API")]
    judged = [row for row in rows if not re.fullmatch(r"/v1/(messages|models).*|/api/v1/estimate", row[0])]
    assert len(judged) > 5
    for address, needs in judged:
        found = tuple(lets_in(address, key) for key in ("", people.secret, management))
        assert found == LETS_IN[needs], address


def lets_in(address: str, key: str) -> bool:
    """Whether the answer is about anything but who asks. What it needs beside a key is not given."""
    path = re.sub(r"<\w+>", "1", address)
    client = Client(headers={"x-api-key": key} if key else {})
    response = client.get(path)
    if response.status_code == 405:
        response = client.post(path, {}, content_type="application/json")
    return response.status_code not in {401, 403}


def management_routes() -> dict[tuple[str, str], str]:
    """Return by address and method of each call that manages which permission it asks for."""
    found: dict[tuple[str, str], str] = {}
    for address, _, callback in routes():
        view = getattr(callback, "view_class", None)
        if isinstance(view, type) and issubclass(view, ManagementView):
            found |= {(address, method): permission.value for method, permission in view.needs.items()}
    return found


def documented_routes() -> dict[tuple[str, str], str]:
    rows = [[cell.strip("`") for cell in row] for row in table("address", of="The API")]
    return {(address, method.strip("` ")): needs for address, methods, needs in rows for method in methods.split(",")}


def test_the_table_names_every_call_that_manages() -> None:
    assert documented_routes() == management_routes()


@pytest.mark.parametrize("role", list(Role))
def test_a_management_key_may_what_its_role_may(people: People, role: Role) -> None:
    """An empty body or an id that is nowhere is refused after the permission is asked for, and never before."""
    manager = Manager(people.organization, role=role, person=people.alice)
    granted = {name for name, roles in permissions().items() if role in roles}
    for (address, method), needs in documented_routes().items():
        path = re.sub(r"<\w+>", "999999999", address).removeprefix("/api/v1/")
        answer = manager.call(method, path, {} if method != "GET" else None)
        is_refused = answer.status_code == 403
        assert is_refused == (needs not in granted), (address, method, answer.content)
        if is_refused:
            assert answer.json()["error"]["code"] == "permission_required"
