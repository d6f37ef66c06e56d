"""ModelForm[Key], which Django has only in the eyes of a type checker, for the running program too.

What is typed into a field of one line is one line: a browser sees to that, and whoever uses none does not.
"""

from typing import TYPE_CHECKING

from django import forms
from django.core.exceptions import ValidationError

from accounts.one_line import is_one_line


def require_one_line(text: str) -> None:
    """Raises ValidationError."""
    if isinstance(text, str) and not is_one_line(text):
        raise ValidationError("Leave out line breaks and characters that cannot be seen.")


if TYPE_CHECKING:
    ModelForm = forms.ModelForm
else:

    class ModelForm(forms.ModelForm):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            for field in self.fields.values():
                if isinstance(field, forms.CharField) and not isinstance(field.widget, forms.Textarea):
                    field.validators.append(require_one_line)

        def __class_getitem__(cls, model):
            return cls
