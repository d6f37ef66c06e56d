"""What an alert says to people, in mail and in the console: one title, a sentence or two, and where to go."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from django.urls import reverse

from accounts.access import Permission, may
from accounts.models import ApiKey
from billing.models import Alert
from billing.money import NANOS_PER_USD, say_usd
from pages.dates import day_text, moment_text
from pages.templatetags.amounts import shorten_usd

Kind = Alert.Kind
NANOS_PER_CENT = NANOS_PER_USD // 100


@dataclass(frozen=True, slots=True)
class AlertText:
    title: str
    text: str
    link: str = ""  # A path of the console.
    link_label: str = ""


def describe_alert(alert: Alert, *, role: str) -> AlertText:
    """Return what to tell a member in this role, with a link that the role may follow.

    `alert` was read with its key and organization.
    """
    title, text = WORDS[alert.kind](alert.details, alert.key)
    page, label, permission = PLACES[alert.kind]
    if not may(role, permission):
        page, label, _ = ALERTS
    return AlertText(title, text, reverse(page, kwargs={"slug": alert.organization.slug}), label)


def _low_balance(details: Mapping[str, Any], key: ApiKey | None) -> tuple[str, str]:
    low = _usd(details, "low_balance")
    why = f"You asked to be told below {low}." if details.get("is_chosen") else f"About three days cost you {low}."
    usual = f" A usual day costs {_usd(details, 'usual_day')}." if details.get("usual_day_nanos") else ""
    left = f"{_usd(details, 'available')} was left."
    return ("Your balance is low", f"{left} {why}{usual} Requests are refused once nothing is left.")


def _balance_exhausted(details: Mapping[str, Any], key: ApiKey | None) -> tuple[str, str]:
    return (
        "Your balance is used up",
        f"{_usd(details, 'available')} was left, which no longer covers the most that a usual request of yours may"
        " cost. Such requests are refused until credit is added.",
    )


def _budget_warning(details: Mapping[str, Any], key: ApiKey | None) -> tuple[str, str]:
    return (
        f"{_capitalized(_whose_budget(details, key))} is nearly used up",
        f"{_usd(details, 'spent')} of {_usd(details, 'budget')} ({details.get('percent')} %) were spent"
        f" {_period(details)}. {_consequence(details)}",
    )


def _budget_reached(details: Mapping[str, Any], key: ApiKey | None) -> tuple[str, str]:
    spent = f"{_usd(details, 'spent')} of {_usd(details, 'budget')} were spent {_period(details)}."
    refused = (
        "What is left does not cover the most that a usual request may cost, so requests are refused until the period"
        " ends, or for a larger budget."
    )
    return (
        f"{_capitalized(_whose_budget(details, key))} is used up",
        f"{spent} {_consequence(details) if details.get('only_notifies') else refused}",
    )


def _spend_spike(details: Mapping[str, Any], key: ApiKey | None) -> tuple[str, str]:
    return (
        "Today costs far more than a usual day",
        f"{_usd(details, 'today')} were spent so far on {_day(details, 'day')} (UTC); a day of the eight before cost"
        f" {_usd(details, 'usual_day')}. That is {details.get('percent')} % of it.",
    )


def _projected(details: Mapping[str, Any], key: ApiKey | None) -> tuple[str, str]:
    return (
        "This month is likely to pass its budget",
        f"At the pace of the last eight days it will have cost {_usd(details, 'projected')} by its end; the budget is"
        f" {_usd(details, 'budget')}, of which {_usd(details, 'spent')} are spent.",
    )


def _key_expiring(details: Mapping[str, Any], key: ApiKey | None) -> tuple[str, str]:
    return (
        f"The key “{key.name if key else ''}” is about to expire",
        f"It ends on {_moment(details, 'expires_at')}. Whatever uses it is refused from then on.",
    )


def _price_change(details: Mapping[str, Any], key: ApiKey | None) -> tuple[str, str]:
    return (
        f"The price of {details.get('model')} changes",
        f"From {_moment(details, 'begins')} on, a million input tokens cost {_usd(details, 'new_input_per_million')}"
        f" (before: {_usd(details, 'old_input_per_million')}) and a million output tokens"
        f" {_usd(details, 'new_output_per_million')} (before: {_usd(details, 'old_output_per_million')}).",
    )


def _model_retiring(details: Mapping[str, Any], key: ApiKey | None) -> tuple[str, str]:
    return (
        f"{details.get('model')} retires",
        f"It goes off sale on {_moment(details, 'retires_at')}. You used it in the last 30 days: choose another"
        " by then.",
    )


def _automatic_failed(details: Mapping[str, Any], key: ApiKey | None) -> tuple[str, str]:
    return ("An automatic top-up failed", _with_reason("It is tried again.", details))


def _automatic_suspended(details: Mapping[str, Any], key: ApiKey | None) -> tuple[str, str]:
    return (
        "Automatic top-up is suspended",
        _with_reason("Nothing is charged until a payment succeeds or another card is given.", details),
    )


def _payment_failed(details: Mapping[str, Any], key: ApiKey | None) -> tuple[str, str]:
    amount = f" of {_usd(details, 'amount')}" if "amount_nanos" in details else ""
    return ("A payment failed", _with_reason(f"A payment{amount} did not come through.", details))


def _webhook_failing(details: Mapping[str, Any], key: ApiKey | None) -> tuple[str, str]:
    return (
        "A webhook fails",
        f"{details.get('host')}: {details.get('problem')} What could not be delivered is tried again for three days; an"
        " endpoint that fails for five days is switched off.",
    )


def _webhook_off(details: Mapping[str, Any], key: ApiKey | None) -> tuple[str, str]:
    return (
        "A webhook is switched off",
        f"{details.get('host')} has failed for too long: {details.get('problem')} Events are kept for 30 days: switch"
        " it on and replay what it missed.",
    )


WORDS: dict[str, Callable[[Mapping[str, Any], ApiKey | None], tuple[str, str]]] = {
    Kind.LOW_BALANCE: _low_balance,
    Kind.BALANCE_EXHAUSTED: _balance_exhausted,
    Kind.BUDGET_WARNING: _budget_warning,
    Kind.BUDGET_REACHED: _budget_reached,
    Kind.SPEND_SPIKE: _spend_spike,
    Kind.PROJECTED_OVER_BUDGET: _projected,
    Kind.KEY_EXPIRING: _key_expiring,
    Kind.PRICE_CHANGE: _price_change,
    Kind.MODEL_RETIRING: _model_retiring,
    Kind.AUTOMATIC_TOP_UP_FAILED: _automatic_failed,
    Kind.AUTOMATIC_TOP_UP_SUSPENDED: _automatic_suspended,
    Kind.PAYMENT_FAILED: _payment_failed,
    Kind.WEBHOOK_FAILING: _webhook_failing,
    Kind.WEBHOOK_SWITCHED_OFF: _webhook_off,
}
# The name of a page, what the link to it says, and what one needs to be let in.
ALERTS = ("alerts", "Open the alerts", Permission.SEE_USAGE)
BILLING = ("billing", "Open billing", Permission.SEE_BILLING)
KEYS = ("keys", "Open the keys", Permission.MANAGE_KEYS)
USAGE = ("usage", "Look at the usage", Permission.SEE_USAGE)
WEBHOOKS = ("webhooks", "Look at the deliveries", Permission.MANAGE_ALERTS)
PLACES: dict[str, tuple[str, str, Permission]] = {
    Kind.LOW_BALANCE: BILLING,
    Kind.BALANCE_EXHAUSTED: BILLING,
    Kind.BUDGET_WARNING: USAGE,
    Kind.BUDGET_REACHED: USAGE,
    Kind.SPEND_SPIKE: USAGE,
    Kind.PROJECTED_OVER_BUDGET: USAGE,
    Kind.KEY_EXPIRING: KEYS,
    Kind.PRICE_CHANGE: USAGE,
    Kind.MODEL_RETIRING: USAGE,
    Kind.AUTOMATIC_TOP_UP_FAILED: BILLING,
    Kind.AUTOMATIC_TOP_UP_SUSPENDED: BILLING,
    Kind.PAYMENT_FAILED: BILLING,
    Kind.WEBHOOK_FAILING: WEBHOOKS,
    Kind.WEBHOOK_SWITCHED_OFF: WEBHOOKS,
}


def _whose_budget(details: Mapping[str, Any], key: ApiKey | None) -> str:
    budget = {"day": "daily", "week": "weekly", "month": "monthly"}.get(str(details.get("period")), "")
    if "member" in details:
        return f"the {budget} budget of {details['member']}"
    if "end_user" in details:
        others = int(details.get("end_users", 1)) - 1
        more = f" and of {others} more" if others > 0 else ""
        return f"the {budget} budget of the end user “{details['end_user']}”{more}"
    return f"the {budget} budget of “{key.name}”" if key else f"your {budget} budget"


def _consequence(details: Mapping[str, Any]) -> str:
    if details.get("only_notifies"):
        return "Requests go on: this budget only notifies."
    return "Requests that could pass the budget are refused."


def _capitalized(text: str) -> str:
    return text[:1].upper() + text[1:]


def _period(details: Mapping[str, Any]) -> str:
    """Return since when, in words: an alert may be read long after its day."""
    begins = _day(details, "begins")
    return f"on {begins}" if details.get("period") == "day" else f"since {begins}"


def _with_reason(text: str, details: Mapping[str, Any]) -> str:
    reason = str(details.get("reason", "")).strip().rstrip(".")
    return f"{text} The reason given: {reason}." if reason else text


def _usd(details: Mapping[str, Any], name: str) -> str:
    """Return an amount as people read it: cents, or exactly where cents would hide it."""
    nanos = int(details.get(f"{name}_nanos", 0))
    in_cents = shorten_usd(nanos, 2)
    return in_cents if nanos == 0 or abs(nanos) >= NANOS_PER_CENT else say_usd(nanos)


def _day(details: Mapping[str, Any], name: str) -> str:
    return day_text(date.fromisoformat(str(details[name])))


def _moment(details: Mapping[str, Any], name: str) -> str:
    moment = datetime.fromisoformat(str(details[name]))
    return f"{moment_text(moment)} UTC"
