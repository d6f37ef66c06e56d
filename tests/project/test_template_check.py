"""`manage.py check_templates`: it passes on this project, and each kind of mistake is found where it is."""

import re
from pathlib import Path

import pytest
from django.test import override_settings

from crossmodel_site.template_check import check_templates, template_folders

TEMPLATES = Path(__file__).parents[2] / "templates"


def test_the_templates_of_this_project_are_in_order() -> None:
    assert check_templates() == []
    assert any(folder.rglob("*.html") for folder in template_folders())


@pytest.mark.parametrize(
    ("content", "mistake"),
    [
        ("\n{% if %}", "2: Unexpected end of expression in if tag."),
        ('{% extends "nowhere.html" %}', "1: there is no template 'nowhere.html'"),
        ('\n\n{% include "_nothing.html" %}', "3: there is no template '_nothing.html'"),
        ('{% block a %}{% url "no_such_page" %}{% endblock %}', "1: no URL is named 'no_such_page'"),
        ('{% load static %}\n{% static "no.css" %}', "2: there is no static file 'no.css'"),
        ("{% load amounts_that_do_not_exist %}", "1: 'amounts_that_do_not_exist' is not a registered tag library."),
    ],
)
def test_a_mistake_is_found_where_it_is(tmp_path: Path, content: str, mistake: str) -> None:
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "page.html").write_text(content)
    with override_settings(BASE_DIR=tmp_path):
        found = check_templates()
    assert [line.partition(" Must be one of:")[0] for line in found] == [f"templates/page.html:{mistake}"]


def test_what_depends_on_the_context_is_not_judged(tmp_path: Path) -> None:
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "page.html").write_text('{% include name %}{% url view %}{% url "admin:index" %}')
    with override_settings(BASE_DIR=tmp_path):
        assert check_templates() == []


def test_customers_read_dates_in_one_form() -> None:
    """pages/dates.py writes them so where no template does. "Y-m-d" is for addresses, "c" for programs."""
    days, times = {"M j, Y", "M j,", "M j", "c", "Y-m-d"}, {"H:i", "H:i:s"}
    allowed = days | times | {f"{day}, {time}" for day in ("M j, Y", "M j") for time in times}
    found = {
        (form, str(path.relative_to(TEMPLATES)))
        for folder in ("account", "console", "mail", "mfa", "usersessions")
        for path in (TEMPLATES / folder).rglob("*.*")
        for form in re.findall(r"""\|date:["']([^"']+)["']""", path.read_text())
    }
    assert {each for each in found if each[0] not in allowed} == set()
