"""The forms of people's pages. What is typed into a field of one line is one line.

A browser sees to that, and whoever uses none does not. ModelForm[Key] is there for the running program too, which in
Django is so only in the eyes of a type checker.
"""

from typing import TYPE_CHECKING

from django import forms
from django.core.exceptions import ValidationError

from accounts.one_line import is_one_line


def require_one_line(text: str) -> None:
    """Raises ValidationError."""
    if isinstance(text, str) and not is_one_line(text):
        raise ValidationError("Leave out line breaks and characters that cannot be seen.")


def is_of_one_line(field: forms.Field) -> bool:
    """Say whether people type one line into the field. What a page hides in itself nobody types."""
    return isinstance(field, forms.CharField) and not isinstance(field.widget, forms.Textarea | forms.HiddenInput)


class LinesMixin:
    """Holds every field of one line to it, those too that a form adds to itself later."""

    fields: dict[str, forms.Field]

    def full_clean(self) -> None:
        for field in self.fields.values():
            if is_of_one_line(field) and require_one_line not in field.validators:
                field.validators = [*field.validators, require_one_line]
        super().full_clean()  # type: ignore[misc]  # Each form has it.


class Form(LinesMixin, forms.Form):
    """What stands in for Django's in all of this project."""


if TYPE_CHECKING:
    ModelForm = forms.ModelForm
else:

    class ModelForm(LinesMixin, forms.ModelForm):
        def __class_getitem__(cls, model):
            return cls
