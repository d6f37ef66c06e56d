"""What must be set before anybody can pay. A message of a payment provider is believed for its signature alone."""

from collections.abc import Mapping
from typing import Any

from billing.money import parse_usd

MIN_SECRET_CHARS = 16


def payment_problems(settings: Mapping[str, Any]) -> list[str]:
    """Return a line for each setting of payments that is missing or makes no sense, the variable's name first."""
    problems = []
    if parse_usd(settings["MIN_TOP_UP_USD"]) > parse_usd(settings["MAX_TOP_UP_USD"]):
        problems.append("CROSSMODEL_MIN_TOP_UP_USD must not be above CROSSMODEL_MAX_TOP_UP_USD.")
    needed = {
        "none": (),
        "sandbox": ("PAYMENT_SANDBOX_URL", "PAYMENT_SANDBOX_SECRET"),
        "stripe": ("STRIPE_SECRET_KEY", "STRIPE_WEBHOOK_SECRET"),
    }[settings["PAYMENT_PROVIDER"]]
    problems += [
        f"CROSSMODEL_{name} is not set, and CROSSMODEL_PAYMENT_PROVIDER is {settings['PAYMENT_PROVIDER']}."
        for name in needed
        if not settings[name]
    ]
    problems += [
        f"CROSSMODEL_{name} is too short to be a secret: messages signed with it credit money."
        for name in ("STRIPE_WEBHOOK_SECRET", "PAYMENT_SANDBOX_SECRET")
        if 0 < len(settings[name]) < MIN_SECRET_CHARS
    ]
    return problems
