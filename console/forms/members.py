"""What people type about members: whom to invite, and in which role."""

from typing import Any

from django import forms

from accounts.models import Role, User
from pages.forms import Form

KEPT = "kept"


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


class KeysForm(Form):
    """What becomes of somebody's keys: disabled, another member's, or, where that may be, as they are."""

    keys_go_to = forms.ChoiceField(label="Their keys", required=False)

    def __init__(self, *args: Any, takers: list[User], may_keep: bool = False, **options: Any) -> None:
        super().__init__(*args, **options)
        self.takers = {str(user.pk): user for user in takers}
        field = self.fields["keys_go_to"]
        assert isinstance(field, forms.ChoiceField)  # noqa: S101  told to the type checker
        field.choices = [
            ("", "Disable them"),
            *([(KEPT, "Let them work on, although nobody sees them but admins")] if may_keep else []),
            *((key, f"Hand them over to {user.email}") for key, user in self.takers.items()),
        ]

    @property
    def chosen(self) -> User | None:
        return self.takers.get(self.cleaned_data["keys_go_to"])

    @property
    def keeps(self) -> bool:
        return bool(self.cleaned_data["keys_go_to"] == KEPT)
