"""What owners take along of their organization, by themselves: what its pages show of it, row by row.

Requests are not here: there may be a hundred million of them, and Usage exports them by period. Columns are named one
by one, so that what is the operator's own (notes, our costs, ids at payment providers) never slips in.
"""

from collections.abc import Iterator
from datetime import date, datetime
from decimal import Decimal
from typing import Any, NamedTuple

from django.db.models import Model

from accounts.models import ApiKey, BillingDetails, FormerSlug, Invitation, Member, Organization
from billing.models import (
    Alert,
    AlertSettings,
    AutomaticTopUp,
    BudgetOverride,
    CreditLot,
    DataRetention,
    Document,
    SpenderBudget,
    TopUp,
    WebhookEndpoint,
)
from billing.money import format_usd

MAX_ROWS_OF_KIND = 10_000
AMOUNTS = ("daily_budget_nanos", "weekly_budget_nanos", "monthly_budget_nanos")
LIMITS = (
    *("requests_per_minute", "input_tokens_per_minute", "output_tokens_per_minute", "concurrent_requests"),
    *AMOUNTS, "budgets_only_notify",
)  # fmt: skip
PERSON = "__email"  # How columns end that name a person: shown while they are a member.


class Kind(NamedTuple):
    model: type[Model]
    columns: tuple[str, ...]
    order: str = "-pk"
    organization: str = "organization"


KINDS: dict[str, Kind] = {
    "organization": Kind(
        Organization,
        ("name", "slug", "status", "created_at", "credit_limit_nanos", "shows_cost_in_usage", *LIMITS),
        organization="pk",
    ),
    "former addresses": Kind(FormerSlug, ("slug", "left_at")),
    "members": Kind(Member, ("user__email", "role", "joined_at")),
    "invitations": Kind(Invitation, ("email", "role", "created_at", "expires_at", "accepted_at", "withdrawn_at")),
    "API keys": Kind(
        ApiKey,
        (
            *("id", "name", "prefix", "last_four", "owner__email", "created_by__email", "created_at", "expires_at"),
            *("disabled_at", "revoked_at", "is_management", "role", "allowed_models", "allowed_networks", *LIMITS),
        ),
    ),
    "billing details": Kind(
        BillingDetails,
        (
            *("legal_name", "address_line_1", "address_line_2", "postal_code", "city", "region", "country"),
            *("tax_id", "tax_id_state", "tax_id_checked_at"),
        ),
    ),
    "budgets": Kind(SpenderBudget, ("scope", "user__email", "end_user", *AMOUNTS, "budgets_only_notify", "changed_at")),
    "overrides of budgets": Kind(
        BudgetOverride, ("scope", "holder", *AMOUNTS, "made_at", "until", "ended_at", "reason")
    ),
    "retention": Kind(DataRetention, ("details_days", "erased_before", "changed_at")),
    "alert settings": Kind(
        AlertSettings,
        (
            *("low_balance_nanos", "budget_warning_percent", "spike_percent", "spike_minimum_nanos"),
            *("mails_owners", "mails_admins", "mails_billing", "mails_key_makers"),
        ),
    ),
    "alerts": Kind(Alert, ("kind", "raised_at", "cleared_at")),
    "webhooks": Kind(
        WebhookEndpoint, ("id", "url", "description", "created_at", "failing_since", "switched_off_at", "removed_at")
    ),
    "automatic top-up": Kind(
        AutomaticTopUp,
        (
            *("is_on", "threshold_nanos", "amount_nanos", "max_day_nanos", "max_month_nanos", "max_day_count"),
            *("max_month_count", "method_label", "changed_at"),
        ),
    ),
    "top-ups": Kind(
        TopUp, ("reference", "state", "amount_nanos", "paid_nanos", "reversed_nanos", "created_at", "paid_at")
    ),
    "credit": Kind(
        CreditLot, ("kind", "amount_nanos", "remaining_nanos", "priority", "created_at", "expires_at", "expired_at")
    ),
    "documents": Kind(
        Document, ("kind", "number", "closed_month__month", "issued_at", "net_cents", "tax_cents", "gross_cents")
    ),
}


def export_own(organization: Organization) -> Iterator[dict[str, Any]]:
    """Yield each row as a dictionary of plain values, `of` naming its kind; a last one where some were left off."""
    members = set(Member.objects.filter(organization=organization).values_list("user__email", flat=True))
    for name, kind in KINDS.items():
        rows = kind.model._default_manager.filter(**{kind.organization: organization.pk}).order_by(kind.order)
        found = list(rows.values(*kind.columns)[: MAX_ROWS_OF_KIND + 1])
        for row in found[:MAX_ROWS_OF_KIND]:
            yield {"of": name, **dict(_plain(column, value, members) for column, value in row.items())}
        if len(found) > MAX_ROWS_OF_KIND:
            yield {"of": name, "left_off": f"older ones than these {MAX_ROWS_OF_KIND:,}"}


def _plain(column: str, value: Any, members: set[str]) -> tuple[str, Any]:
    if column.endswith(PERSON):
        return column.removesuffix(PERSON), value if value in members else None
    if column.endswith("_nanos"):
        return f"{column.removesuffix('_nanos')}_usd", None if value is None else format_usd(value)
    if column.endswith("_cents"):
        return column.removesuffix("_cents"), None if value is None else f"{Decimal(value) / 100:.2f}"
    if isinstance(value, datetime | date):
        return column, value.isoformat()
    return column.rpartition("__")[2], value
