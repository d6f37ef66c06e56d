"""What people type about members: whom to invite, and in which role."""

from typing import Any

from django import forms

from accounts.models import Role, User
from pages.forms import Form


class InvitationForm(Form):
    """Invites an address, whether or not it has an account."""

    email = forms.EmailField(label="E-mail address", widget=forms.EmailInput(attrs={"autocomplete": "off"}))
    role = forms.ChoiceField(label="Role")

    def __init__(self, *args: Any, roles: list[Role], **options: Any) -> None:
        super().__init__(*args, **options)
        role = self.fields["role"]
        assert isinstance(role, forms.ChoiceField)  # noqa: S101  told to the type checker
        role.choices = [(role.value, role.label) for role in roles]
        self.initial.setdefault("role", Role.DEVELOPER)


class RoleForm(Form):
    role = forms.ChoiceField(label="Role")

    def __init__(self, *args: Any, roles: list[Role], **options: Any) -> None:
        super().__init__(*args, **options)
        role = self.fields["role"]
        assert isinstance(role, forms.ChoiceField)  # noqa: S101  told to the type checker
        role.choices = [(role.value, role.label) for role in roles]


class RemovalForm(Form):
    """What becomes of the keys of somebody who is removed: disabled, or another member's."""

    keys_go_to = forms.TypedChoiceField(label="Their keys", coerce=int, required=False, empty_value=None)

    def __init__(self, *args: Any, takers: list[User], **options: Any) -> None:
        super().__init__(*args, **options)
        self.takers = {user.pk: user for user in takers}
        field = self.fields["keys_go_to"]
        assert isinstance(field, forms.TypedChoiceField)  # noqa: S101  told to the type checker
        field.choices = [("", "Disable them"), *((user.pk, f"Hand them over to {user.email}") for user in takers)]

    @property
    def chosen(self) -> User | None:
        return self.takers.get(self.cleaned_data["keys_go_to"] or 0)
