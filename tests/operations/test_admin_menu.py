"""The admin's menu: every table has its place in it, and everybody sees what they may open."""

import pytest
from django.contrib import admin
from django.urls import reverse

from accounts.staff_roles import StaffRole
from operations.menu import GROUPS
from tests.support.operators import operator_client


def test_every_table_has_one_place() -> None:
    placed = [table for _, tables in GROUPS for table in tables]
    assert sorted(placed) == sorted(model._meta.label_lower for model in admin.site._registry)


@pytest.mark.django_db
@pytest.mark.long
@pytest.mark.parametrize("role", [*StaffRole, None])
def test_the_menu_leads_where_one_may_go_and_nowhere_else(role: StaffRole | None) -> None:
    client = operator_client("olga", *([role] if role else []), is_superuser=role is None)
    menu = client.get("/admin/").context["sidebar_navigation"]
    links = {item["link"] for group in menu for item in group["items"]}
    lists = {
        reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist") for model in admin.site._registry
    }
    open_to = {path for path in lists if client.get(path).status_code == 200}
    assert links - {"/admin/", "/admin/jobs/", "/admin/runbook/"} == open_to
    assert {"/admin/", "/admin/jobs/", "/admin/runbook/"} <= links
    assert all(client.get(link).status_code == 200 for link in links)
