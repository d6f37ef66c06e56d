"""Every form of the console, found on its page: filled with nonsense it says what is wrong and keeps what was typed."""

from dataclasses import dataclass, field
from html import escape
from html.parser import HTMLParser
from typing import Any

import pytest
from django.test import Client
from pytest_django import Settings

from accounts.closing import close_organization
from tests.console.test_access import WHO
from tests.console.test_access import urls as urls
from tests.support.people import People, client_of

NONSENSE = {
    "text": "\N{PILE OF POO}\x01" + "x" * 3_000,
    "empty": "",
    "markup": "<script>alert(1)</script>",
    "number": "-1e999",
}
# What is always there, whatever is typed.
HIDDEN = {"csrfmiddlewaretoken", "form_id", "to"}


@dataclass
class Form:
    action: str
    fields: dict[str, str] = field(default_factory=dict)


class FormReader(HTMLParser):
    """Collects the forms that are sent with POST, with the names of their fields."""

    def __init__(self) -> None:
        super().__init__()
        self.forms: list[Form] = []
        self._open: Form | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "form":
            self._open = Form(given.get("action") or "") if given.get("method") == "post" else None
            if self._open:
                self.forms.append(self._open)
        elif tag in ("input", "select", "textarea", "button") and self._open is not None and given.get("name"):
            self._open.fields[str(given["name"])] = given.get("value") or ""

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._open = None


def forms_of(client: Client, url: str) -> list[Form]:
    response = client.get(url)
    if response.status_code != 200 or response.streaming:
        return []
    reader = FormReader()
    reader.feed(response.content.decode())
    return [Form(form.action or url, form.fields) for form in reader.forms if "/console/alice/" in (form.action or url)]


@pytest.mark.parametrize("kind", NONSENSE)
def test_nonsense_is_told_and_never_a_fault(
    people: People, urls: dict[str, str], settings: Settings, kind: str
) -> None:
    settings.PAYMENT_PROVIDER, settings.PAYMENT_SANDBOX_SECRET = "sandbox", "x"
    settings.PAYMENT_SANDBOX_URL = "http://127.0.0.1:1"
    alice = client_of(people.alice, raise_request_exception=False)
    seen: set[tuple[str, ...]] = set()
    told = 0
    for name in sorted(WHO):
        for form in forms_of(alice, urls[name]):
            typed = {word: value if word in HIDDEN else NONSENSE[kind] for word, value in form.fields.items()}
            what = (form.action.split("?")[0], *sorted(typed))
            if what in seen or not set(typed) - HIDDEN:
                continue
            seen.add(what)
            response: Any = alice.post(form.action, typed)
            assert response.status_code in {302, 403, 404, 422}, (form.action, response.status_code)
            page = response.content.decode()
            assert "<script>alert" not in page, form.action
            if response.status_code == 422:
                told += 1
                assert 'class="errorlist' in page or "notice-error" in page, form.action
                assert escape(NONSENSE[kind]) in page, (form.action, "What was typed is kept.")
    assert len(seen) > 15 and told > 12, (len(seen), told)


def test_the_form_to_delete_says_what_is_wrong(people: People) -> None:
    close_organization(people.organization, name="Alice & Co", closed_by=people.alice)
    [form] = forms_of(client_of(people.alice), "/console/alice/settings/delete/")
    for text in NONSENSE.values():
        response = client_of(people.alice).post(form.action, {"name": text})
        assert response.status_code == 422 and "errorlist" in response.content.decode()
