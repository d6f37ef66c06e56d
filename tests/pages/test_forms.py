"""What is typed into a field of one line is one line, on every page: names and reasons are in mails and logs."""

import importlib
import pkgutil
from collections.abc import Iterator

import pytest
from allauth.account import forms as account_forms
from allauth.socialaccount import forms as socialaccount_forms
from django import forms
from django.contrib import admin
from django.test import RequestFactory

import console
import operations
import pages
from accounts.models import User
from pages.forms import LinesMixin, is_of_one_line
from tests.support.people import People, client_of

TWO_LINES = (
    "Rent\r\nFrom: bank@example.org",
    "Rent\nmore",
    "Rent\N{LINE SEPARATOR}more",
    "Rent\N{RIGHT-TO-LEFT OVERRIDE}",
)
# What is signed in with is compared, and shown to nobody.
OF_SIGN_IN = (
    account_forms.LoginForm,
    account_forms.BaseSignupForm,
    account_forms.PasswordVerificationMixin,
    account_forms.ResetPasswordForm,
    socialaccount_forms.SignupForm,
)


def forms_of_ours(of: type[forms.BaseForm] = forms.BaseForm) -> Iterator[type[forms.BaseForm]]:
    for form in of.__subclasses__():
        if form.__module__.partition(".")[0] in {"console", "operations", "pages"}:
            yield form
        yield from forms_of_ours(form)


def test_every_form_holds_its_fields_to_one_line() -> None:
    for package in (console, operations, pages):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if "migrations" not in module.name:
                importlib.import_module(module.name)
    found = [form for form in forms_of_ours() if not issubclass(form, OF_SIGN_IN)]
    assert len(found) > 40
    assert {form.__qualname__ for form in found if not issubclass(form, LinesMixin)} == {
        "PersonChangeForm",  # The admin holds these to lines when it shows them, as below.
        "PersonCreationForm",
    }


@pytest.mark.django_db
def test_so_does_every_form_of_the_admin() -> None:
    request = RequestFactory().get("/")
    request.user = User.objects.create_superuser("root@example.org", "x")
    judged = 0
    for page in admin.site._registry.values():
        if not page.has_add_permission(request) and not page.has_change_permission(request):
            continue
        inlines = [inline.get_formset(request).form for inline in page.get_inline_instances(request)]
        for form in (page.get_form(request), *inlines):
            judged += any(is_of_one_line(field) for field in form.base_fields.values())
            assert issubclass(form, LinesMixin), (page, form)
    assert judged > 3


@pytest.mark.parametrize("text", TWO_LINES)
def test_two_lines_are_refused_and_told(people: People, text: str) -> None:
    override = {"daily_budget_nanos": "1", "until": "2099-01-01", "reason": text}
    alice = client_of(people.alice)
    answer = alice.post(
        "/console/alice/limits/end-user/new/", {"end_user": text, "daily_budget_nanos": "5", "effect": "refuse"}
    )
    assert answer.status_code == 422 and "Leave out line breaks" in answer.content.decode()
    answer = alice.post(f"/console/alice/limits/key/{people.key.pk}/override/", override)
    assert answer.status_code == 422 and "Leave out line breaks" in answer.content.decode()
    root = client_of(User.objects.create_superuser("root@example.org", "x"))
    answer = root.post(f"/admin/accounts/organization/{people.organization.pk}/suspend/", {"reason": text})
    people.organization.refresh_from_db()
    assert "Leave out line breaks" in answer.content.decode() and people.organization.status == "active"
    answer = root.post(
        f"/admin/accounts/user/{people.bob.pk}/change/", {"email": people.bob.email, "name": text, "is_active": "on"}
    )
    people.bob.refresh_from_db()
    assert "Leave out line breaks" in answer.content.decode() and people.bob.name == "Bob"
