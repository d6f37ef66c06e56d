"""The runbook is read in the admin: whole, with the sections that status lines and alerts name."""

import re
from pathlib import Path

import pytest
from django.test import Client

from accounts.staff_roles import StaffRole
from operations.runbook import DOCUMENT
from operations.status import STORES, read_status
from tests.support.operators import operator_client
from tests.support.people import People, client_of

PAGE = "/admin/runbook/"
ALERTS = Path(__file__).parents[2] / "deploy" / "prometheus" / "alerts.yml"


@pytest.fixture
def page(db: None) -> str:
    return operator_client("sam", StaffRole.SUPPORT).get(PAGE).content.decode()


def test_every_section_stands_under_the_name_that_alerts_and_status_lines_give_it(page: str) -> None:
    headings = re.findall(r"^#+ .*", DOCUMENT.read_text(), re.MULTILINE)
    anchors = re.findall(r'<h\d id="([^"]+)">', page)
    assert len(anchors) == len(headings) == len(set(anchors))
    named = set(re.findall(r"docs/operating\.md#([\w-]+)", ALERTS.read_text()))
    named |= {line.runbook for line in read_status() if line.runbook}
    assert {STORES, *named} <= set(anchors)


def test_tables_and_commands_are_drawn_and_other_documents_are_named_without_a_link(page: str) -> None:
    article = page[page.index("<article") : page.index("</article>")]
    assert "<table>" in article
    assert "<samp>manage.py status</samp>" in article
    assert "|---|" not in article
    assert "<em>money.md</em>" in article or "<em>payments.md</em>" in article
    assert re.findall(r'href="(?!https://|#)[^"]*"', article) == []


def test_what_needs_a_person_leads_to_its_section(people: People, redis_away: None) -> None:
    page = operator_client("root", is_superuser=True).get("/admin/").content.decode()
    assert f'href="{PAGE}#{STORES}"' in page


def test_it_is_for_operators(people: People, client: Client) -> None:
    assert client_of(people.alice).get(PAGE).status_code == 302
    assert client.get(PAGE).status_code == 302
