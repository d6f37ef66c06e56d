"""Which payment providers this installation has, by the settings. Adapters are made once and kept."""

from functools import cache

from django.conf import settings

from billing.payments.provider import PaymentProvider
from billing.payments.providers.sandbox import SandboxProvider
from billing.payments.providers.stripe import StripeProvider

NONE = "none"


class UnknownProviderError(LookupError):
    """This installation has no payment provider of that name."""


def current_provider() -> PaymentProvider | None:
    """Return the provider that new orders go to, or None where customers cannot pay online."""
    return None if settings.PAYMENT_PROVIDER == NONE else find_provider(settings.PAYMENT_PROVIDER)


def provider_names() -> list[str]:
    """Return every provider that an order may name; "manual" took a payment by hand."""
    return [*settings.PAYMENT_PROVIDERS[1:], "manual"]  # Without "none".


def find_provider(name: str) -> PaymentProvider:
    """Return a provider that the settings have all of: also one that new orders no longer go to.

    Raises UnknownProviderError. Without a webhook secret there is no provider: its messages could be anybody's.
    """
    if name == SandboxProvider.name and settings.PAYMENT_SANDBOX_URL and settings.PAYMENT_SANDBOX_SECRET:
        return _sandbox(settings.PAYMENT_SANDBOX_URL, settings.PAYMENT_SANDBOX_SECRET)
    if name == StripeProvider.name and settings.STRIPE_SECRET_KEY and settings.STRIPE_WEBHOOK_SECRET:
        return _stripe(settings.STRIPE_SECRET_KEY, settings.STRIPE_WEBHOOK_SECRET, settings.STRIPE_API_URL)
    raise UnknownProviderError(f"There is no payment provider {name[:40]!r} here.")


@cache
def _sandbox(url: str, secret: str) -> SandboxProvider:
    return SandboxProvider(url, secret)


@cache
def _stripe(secret_key: str, webhook_secret: str, api_url: str) -> StripeProvider:
    return StripeProvider(secret_key, webhook_secret, api_url=api_url)
