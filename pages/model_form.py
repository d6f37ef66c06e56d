"""ModelForm[Key], which Django has only in the eyes of a type checker, for the running program too."""

from typing import TYPE_CHECKING

from django import forms

if TYPE_CHECKING:
    ModelForm = forms.ModelForm
else:

    class ModelForm(forms.ModelForm):
        def __class_getitem__(cls, model):
            return cls
