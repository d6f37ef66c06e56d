"""docs/roles.md names every permission, every page, every address of the API and every page of the admin."""

import re

from django.apps import apps
from django.contrib import admin

import gateway.urls
from accounts.access import PERMISSIONS_OF_ROLE, Permission
from accounts.models import Role
from accounts.staff_roles import MAY_DO, MAY_VIEW, StaffRole
from tests.support.roles import NAME, pages, permissions, routes, table

ROWS_OF_THE_ADMIN = re.compile(r"admin:\w+_(changelist|add|history|delete|change|password_change)")


def test_the_table_of_permissions_is_the_one_in_force() -> None:
    in_force = {
        permission.value: {role for role in Role.values if permission in PERMISSIONS_OF_ROLE[role]}
        for permission in Permission
    }
    assert permissions() == in_force


def test_every_page_of_an_organization_is_named_with_the_permission_that_it_asks_for() -> None:
    """A page that is missing here needs a row in the table "Pages of an organization" of docs/roles.md."""
    asked = {
        name: (address, callback.permission.value)  # type: ignore[attr-defined]
        for address, name, callback in routes()
        if address.startswith("/console/<slug>/")
    }
    assert pages() == asked


def test_every_page_of_everybody_is_named() -> None:
    found = {
        name: address
        for address, name, _ in routes()
        if not address.startswith(("/console/<slug>/", "/admin/", "/api/", "/v1/"))
    }
    assert {
        NAME.findall(name)[0]: address.strip("`") for name, address, _ in table("page", of="Pages of everybody")
    } == found


def test_every_address_of_the_api_is_named() -> None:
    found = {name: address for address, name, _ in routes() if address.startswith(("/api/", "/v1/"))}
    found |= {
        pattern.callback.__name__: "/" + re.sub(r"<\w+:", "<", str(pattern.pattern))
        for pattern in gateway.urls.urlpatterns
    }
    assert {NAME.findall(name)[0]: address.strip("`") for name, address, _ in table("name", of="The API")} == found


def test_every_table_and_page_of_the_admin_is_named() -> None:
    looks_at = {NAME.findall(row[0])[0]: roles_in(row) for row in table("table", of="The admin")}
    labels = {model._meta.label: model._meta.label_lower for model in admin.site._registry}
    assert looks_at == {label: MAY_VIEW.get(lower, set()) for label, lower in labels.items()}
    named = {
        name
        for heading in ("page or button", "page of the admin")
        for row in table(heading)
        for name in NAME.findall(row[0])
    }
    found = {
        name for address, name, _ in routes() if address.startswith("/admin/") and not ROWS_OF_THE_ADMIN.fullmatch(name)
    }
    assert named == found


def test_the_table_of_staff_roles_is_the_one_in_force() -> None:
    assert {NAME.findall(row[0])[0]: roles_in(row) for row in table("may do")} == MAY_DO
    tables = {model._meta.label_lower for model in apps.get_models()}
    assert set(MAY_VIEW) <= tables
    permissions = {
        f"{model._meta.app_label}.{codename}"
        for model in apps.get_models()
        for codename in [
            *(f"{action}_{model._meta.model_name}" for action in model._meta.default_permissions),
            *(codename for codename, _ in model._meta.permissions),
        ]
    }
    assert set(MAY_DO) <= permissions


def roles_in(row: list[str]) -> set[str]:
    return {role for role, cell in zip(StaffRole, row[1:], strict=True) if cell == "yes"}
