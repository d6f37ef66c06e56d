"""What people type on the billing page."""

from django import forms

from billing.credit.redemption import MAX_TYPED_CHARACTERS
from pages.forms import Form


class RedeemForm(Form):
    code = forms.CharField(
        max_length=MAX_TYPED_CHARACTERS,
        label="Redemption code",
        widget=forms.TextInput(
            attrs={"autocomplete": "off", "spellcheck": "false", "placeholder": "XXXXX-XXXXX-XXXXX-XXXXX"}
        ),
    )
