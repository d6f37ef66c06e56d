"""What a key is restricted to, as customers and operators type it."""

import ipaddress
from collections.abc import Mapping

from django.core.exceptions import ValidationError

from accounts.models import ApiKey
from billing.catalog.names import UnknownModelsError, find_model_ids
from pages.forms import ModelForm

MAX_NETWORKS = 50
MAX_MODELS = 100
LIMIT_FIELDS = (
    "requests_per_minute",
    "input_tokens_per_minute",
    "output_tokens_per_minute",
    "concurrent_requests",
)
BUDGET_FIELDS = ("daily_budget_nanos", "weekly_budget_nanos", "monthly_budget_nanos")


class KeyRestrictions(ModelForm[ApiKey]):
    """Cleans what a key is restricted to. `model_ids` holds the id of each model by the names that may be typed.

    The request path compares ids, so ids are what is kept.
    """

    model_ids: Mapping[str, str]

    def clean_allowed_models(self) -> list[str]:
        try:
            return find_model_ids(
                self.cleaned_data["allowed_models"], by_name=self.model_ids, kept=self.instance.allowed_models
            )
        except UnknownModelsError as error:
            raise ValidationError(str(error)) from None

    def clean_allowed_networks(self) -> list[str]:
        networks = []
        for text in self.cleaned_data["allowed_networks"]:
            try:
                networks.append(str(ipaddress.ip_network(text)))
            except ValueError as error:
                raise ValidationError(f"{text} is not a network: {error}.") from None
        return networks
