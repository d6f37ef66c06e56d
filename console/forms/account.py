"""allauth's forms of one's own account, in the words of this house."""

from typing import Any

from allauth.account import forms as account_forms
from allauth.mfa.webauthn import forms as webauthn_forms
from allauth.socialaccount import forms as socialaccount_forms
from django.contrib.auth.hashers import make_password
from django.forms import Form
from django.http import HttpRequest, HttpResponse

from accounts.models import User
from pages.forms import LinesMixin

LABELS = {
    "login": "E-mail address",
    "email": "E-mail address",
    "remember": "Keep me signed in on this browser",
    "oldpassword": "Current password",
}
OF_PASSWORDS = "At least 10 characters: nothing like your address, and none that many people use."
NEW_PASSWORD = {"password1": "New password", "password2": "New password, again"}


def rename_fields(form: Form, labels: dict[str, str]) -> None:
    """Give fields their labels. A placeholder that only says the label again is left out."""
    for name, field in form.fields.items():
        field.label = labels.get(name, field.label)
        field.widget.attrs.pop("placeholder", None)
    if "password1" in form.fields:
        form.fields["password1"].help_text = OF_PASSWORDS


class SignInForm(account_forms.LoginForm):  # type: ignore[misc]  # allauth ships no types
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        rename_fields(self, LABELS)


class SignUpForm(account_forms.SignupForm):  # type: ignore[misc]  # allauth ships no types
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        rename_fields(self, LABELS | {"password2": "Password, again"})

    def try_save(self, request: HttpRequest) -> tuple[User | None, HttpResponse | None]:
        """Take as long for an address that has an account, which the answer does not tell, as for a new one."""
        if self.account_already_exists:
            make_password(self.cleaned_data["password1"])
        made: tuple[User | None, HttpResponse | None] = super().try_save(request)
        return made


class OutsideSignUpForm(socialaccount_forms.SignupForm):  # type: ignore[misc]  # allauth ships no types
    """Asks whoever another company signs in for the address that it did not tell."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        rename_fields(self, LABELS)


class ChangePasswordForm(account_forms.ChangePasswordForm):  # type: ignore[misc]  # allauth ships no types
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        rename_fields(self, LABELS | NEW_PASSWORD)


class ResetPasswordForm(account_forms.ResetPasswordForm):  # type: ignore[misc]  # allauth ships no types
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        rename_fields(self, LABELS)


class NewPasswordForm(account_forms.ResetPasswordKeyForm):  # type: ignore[misc]  # allauth ships no types
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        rename_fields(self, NEW_PASSWORD)


class AddPasskeyForm(LinesMixin, webauthn_forms.AddWebAuthnForm):  # type: ignore[misc]  # allauth ships no types
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        alone = self.fields["passwordless"]
        alone.label = "Sign in with it alone, without a password"
        alone.help_text = "It then asks for a PIN, a finger or a face."
