"""Every address of the admin, as the URL resolver has them, posted to by each staff role: docs/roles.md says who may.

A form that a page does not show is sent all the same here, as somebody with curl would.
"""

from collections.abc import Iterable

import pytest
from django.test import Client

from accounts.staff_roles import StaffRole
from tests.operations.test_admin_walk import FINE, SUPERUSER, addresses, filled, first_row, walker
from tests.operations.test_staff_attacks import fingerprint
from tests.support.every_table import fill_every_table
from tests.support.people import People
from tests.support.roles import NAME, table

pytestmark = pytest.mark.long

REFUSED = {403, 405}  # 405: a page that only is looked at.
# Pages of Django's own for passwords: of oneself, and of others, who are operators perhaps.
DJANGOS = {"admin:password_change": "staff", "admin:auth_user_password_change": "superuser"}
NOBODY = "nobody"  # Staff without a role.
STANDARD = {"add": "add", "change": "change", "delete": "delete", "changelist": "view", "history": "view"}


@pytest.fixture
def world(people: People) -> People:
    fill_every_table(people)
    return people


def permissions() -> dict[str, set[str]]:
    """Return what each staff role may do, and whose rows it sees, as the document has it."""
    found: dict[str, set[str]] = {role: set() for role in (*StaffRole, NOBODY)}
    rows = [(NAME.findall(row[0])[0], row[1:]) for row in table("may do", of="The admin")]
    for name, cells in ((NAME.findall(row[0])[0], row[1:]) for row in table("table", of="The admin")):
        app, _, model = name.lower().partition(".")
        rows.append((f"{app}.view_{model}", cells))
    for permission, cells in rows:
        for role, cell in zip(StaffRole, cells, strict=True):
            if cell == "yes":
                found[role].add(permission)
    return found


def needed() -> dict[str, str]:
    """Return by address of the admin which permission a form that is sent there needs; "staff" is none."""
    named = dict(DJANGOS)
    named |= {NAME.findall(name)[0]: needs.strip("`") for name, needs in table("page or button")}
    for names, needs in table("page of the admin"):
        named |= dict.fromkeys(NAME.findall(names), needs.partition(":")[0])
    found = {}
    for path, name in [*addresses(of_rows=False), *addresses(of_rows=True)]:
        app, _, rest = name.removeprefix("admin:").partition("_")
        model, _, view = rest.partition("_")
        found[path] = named.get(name) or f"{app}.{STANDARD[view]}_{model}"
    return found


def send(client: Client, paths: Iterable[str]) -> dict[str, int]:
    """Post to each, where it is of a row, to one that is there; return the statuses."""
    of_rows = {path: "<object_id>" in path and not path.startswith("/admin/r/") for path in paths}
    return {
        path: client.post(filled(path, first_row(path) if of_row else "0" * 32)).status_code
        for path, of_row in of_rows.items()
    }


@pytest.mark.parametrize("role", [*StaffRole, NOBODY, SUPERUSER])
def test_what_is_sent_by_force_is_refused_where_the_page_of_roles_says_so(world: People, role: str) -> None:
    needs = needed()
    allowed = {"staff", "nobody", *permissions().get(role, needs.values())}
    client, before = walker(role), fingerprint()
    refused = [path for path, permission in needs.items() if permission not in allowed]
    assert {path: status for path, status in send(client, refused).items() if status not in REFUSED} == {}
    assert fingerprint() == before
    buttons = [path for path, permission in needs.items() if permission in allowed and is_ours(permission, path)]
    assert {path for path, status in send(client, buttons).items() if status == 403 or status not in FINE} == set()
    assert bool(refused) == (role != SUPERUSER)
    assert bool(buttons) == (role != NOBODY)


def is_ours(permission: str, path: str) -> bool:
    """Say whether it is a button or a page of ours; Django's forms refuse many rows that nobody changes by a form."""
    return permission not in {"staff", "nobody"} and path.rstrip("/").rpartition("/")[2] not in STANDARD
