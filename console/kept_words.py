"""What was typed into a form, in the words of the form that it was typed into."""

from collections.abc import Iterable, Iterator
from typing import Any

from django import forms

from console.forms.alerts import AlertSettingsForm, WebhookForm
from console.forms.budgets import BudgetForm, EndUserBudgetForm, OverrideForm
from console.forms.keys import KeyForm, ManagementKeyForm, RotationForm
from console.forms.members import InvitationForm
from console.forms.organization import BillingDetailsForm, OrganizationSettingsForm, RetentionForm
from console.forms.top_ups import AutomaticTopUpForm, TopUpForm

FORMS: "tuple[type[forms.Form | forms.ModelForm[Any]], ...]" = (
    *(AlertSettingsForm, WebhookForm, BudgetForm, EndUserBudgetForm, OverrideForm),
    *(KeyForm, ManagementKeyForm, RotationForm, InvitationForm),
    *(BillingDetailsForm, OrganizationSettingsForm, RetentionForm, AutomaticTopUpForm, TopUpForm),
)
CHOSEN = {"owner", "keys_go_to"}  # Lists of people, whose values say nothing to a reader.
UNTYPED = {"form_id", "key"}


def in_words(fields: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Yield label and value of each field that a person typed or chose, as the page showed them."""
    typed = [(name, value) for name, value in fields if name not in UNTYPED]
    known = _fields_of({name for name, _ in typed})
    for name, value in typed:
        if value:
            field = known.get(name)
            label = str(field.label) if field is not None and field.label else _plain(name)
            yield label, "as chosen" if name in CHOSEN else _value_in_words(field, value)


def _fields_of(names: set[str]) -> dict[str, forms.Field]:
    """Return the fields of the smallest form that has all of these."""
    fits = [form.base_fields for form in FORMS if names <= form.base_fields.keys()]
    return min(fits, key=len, default={})


def _plain(name: str) -> str:
    return name.removesuffix("_nanos").replace("_", " ").capitalize()


def _value_in_words(field: forms.Field | None, value: str) -> str:
    if isinstance(field, forms.BooleanField):
        return "yes"
    if isinstance(field, forms.ChoiceField):
        choices: Iterable[Any] = field.widget.choices  # As the page offers them.
        return next((str(label) for choice, label in choices if str(choice) == value), value)
    return value
