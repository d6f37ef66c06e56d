"""What an operator sees of an organization at a glance: money, usage, keys, lots, documents. Each in a few queries."""

from collections.abc import Iterable
from datetime import UTC, datetime
from urllib.parse import urlencode

from django.contrib import admin
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from accounts.models import ApiKey, Organization, User
from billing.admission.balances import read_balance
from billing.approvals.kinds import describe
from billing.budgets.amounts import Amounts, HasAmounts
from billing.budgets.overrides import open_overrides
from billing.models import Approval, BudgetOverride, CreditLot, SpenderBudget
from billing.usage.overview import read_activity
from pages.templatetags.amounts import cents_usd, usd

ROWS = 5

Rows = Iterable[tuple[object, ...]]


class OrganizationPanels:
    """Read-only fields of the organization's page."""

    @admin.display(description="Balance now")
    def money(self, organization: Organization) -> SafeString:
        balance = read_balance(organization)
        rows = [("Posted", usd(balance.posted_nanos))]
        if balance.state is None:
            rows.append(("Held and unsettled", "unknown: Redis does not answer"))
        else:
            rows += [
                ("Held", f"{usd(balance.state.held_nanos)} for {balance.state.open_requests} running requests"),
                ("Unsettled", usd(balance.state.unsettled_nanos)),
                ("Available", usd(balance.state.available_nanos)),
            ]
        return _list("{}: {}", rows)

    @admin.display(description="Usage")
    def usage(self, organization: Organization) -> SafeString:
        today = datetime.now(UTC).date()
        month, day = (read_activity(organization, last_day=today, days=days) for days in (today.day, 1))
        rows = [
            (
                name,
                usd(period.sums.cost_nanos),
                f"{period.sums.requests:,} requests billed, {period.failed:,} failed, {period.refused:,} refused",
            )
            for name, period in (("This month", month), ("Today", day))
        ]
        return _list("{}: {}; {}", rows)

    @admin.display(description="API keys")
    def keys(self, organization: Organization) -> SafeString:
        live = organization.keys.filter(revoked_at=None)
        rows = (
            (reverse("admin:accounts_apikey_change", args=[key.pk]), key)
            for key in live.select_related("organization").order_by("-id")[:ROWS]
        )
        more = _more("accounts_apikey", organization, f"All keys ({live.count()} live)")
        return format_html("{}{}", _list('<a href="{}">{}</a>', rows), more)

    @admin.display(description="Credit lots")
    def lots(self, organization: Organization) -> SafeString:
        lots = CreditLot.objects.filter(organization=organization, remaining_nanos__gt=0)
        rows = (
            (
                reverse("admin:billing_creditlot_change", args=[lot.pk]),
                usd(lot.remaining_nanos),
                usd(lot.amount_nanos),
                lot.get_kind_display().lower(),
                f", expires {lot.expires_at:%Y-%m-%d %H:%M:%S} UTC" if lot.expires_at else "",
                lot.origin,
            )
            for lot in lots.order_by("priority", "expires_at", "id")[:ROWS]
        )
        text = '<a href="{}">{} of {}</a>, {}{}: {}'
        return format_html("{}{}", _list(text, rows), _more("billing_creditlot", organization, "All lots"))

    @admin.display(description="Budgets of members and end users, and overrides")
    def budgets(self, organization: Organization) -> SafeString:
        """What limits requests beside the limits below: with an override, those are not what holds."""
        budgets = organization.spender_budgets.select_related("user").order_by("scope", "spender")
        rows: list[tuple[object, ...]] = [
            (_spender(budget), _amounts(budget), ", only notifies" if budget.budgets_only_notify else "")
            for budget in budgets[:ROWS]
        ]
        rows += [
            (
                f"Override: {_holder(override)}",
                _amounts(override),
                f", until {override.until:%Y-%m-%d %H:%M:%S} UTC by {override.made_by}: {override.reason}",
            )
            for override in open_overrides(organization)[:ROWS]
        ]
        more = budgets.count() - ROWS
        return format_html("{}{}", _list("{}: {}{}", rows), f"and {more:,} more budgets" if more > 0 else "")

    @admin.display(description="Documents")
    def documents(self, organization: Organization) -> SafeString:
        rows = (
            (
                reverse("admin:billing_document_change", args=[document.pk]),
                document.label,
                cents_usd(document.gross_cents),
                f"{document.issued_at:%Y-%m-%d}",
            )
            for document in organization.documents.all()[:ROWS]
        )
        text = '<a href="{}">{}</a>: {}, {}'
        return format_html("{}{}", _list(text, rows), _more("billing_document", organization, "All documents"))

    @admin.display(description="Waits for a second person")
    def waiting(self, organization: Organization) -> SafeString:
        open_ones = organization.approvals.filter(state=Approval.State.WAITING).select_related("asked_by")
        rows = (
            (
                reverse("admin:billing_approval_change", args=[approval.pk]),
                approval,
                describe(approval),
                approval.asked_by,
            )
            for approval in open_ones[:ROWS]
        )
        text = '<a href="{}">{}</a>: {}, asked by {}'
        return format_html("{}{}", _list(text, rows), _more("billing_approval", organization, "All approvals"))

    @admin.display(description="More")
    def elsewhere(self, organization: Organization) -> SafeString:
        links = (
            ("billing_usagerecord", "Usage records"),
            ("billing_failedrequest", "Failed requests"),
            ("billing_ledgertransaction", "Ledger transactions"),
            ("billing_topup", "Top-ups"),
            ("billing_organizationpricefactor", "Price factors"),
            ("billing_recurringcredit", "Recurring credit"),
            ("accounts_auditentry", "Audit"),
        )
        return format_html_join("", "{} ", ((_more(name, organization, label),) for name, label in links))


def _spender(budget: SpenderBudget) -> str:
    scope = budget.get_scope_display()
    if not budget.spender:
        return f"Each {scope.lower()} without a budget of their own"
    return f"{scope} {budget.user or budget.end_user}"


def _holder(override: BudgetOverride) -> str:
    """Return whose budget is another for a while, as its page here can be looked for."""
    scope = override.get_scope_display().lower()
    if override.scope == BudgetOverride.Scope.ORGANIZATION:
        return "the organization"
    if not override.holder:
        return f"each {scope} without a budget of their own"
    if override.scope == BudgetOverride.Scope.KEY:
        return f"key {ApiKey.objects.filter(pk=override.holder).first() or override.holder}"
    if override.scope == BudgetOverride.Scope.MEMBER:
        return f"member {User.objects.filter(pk=override.holder).first() or override.holder}"
    budget = SpenderBudget.objects.filter(
        organization=override.organization_id, scope=override.scope, spender=override.holder
    ).first()
    return f"{scope} {budget.end_user if budget else override.holder}"


def _amounts(row: HasAmounts) -> str:
    """Return "$5.00 a day, $20.00 a month"."""
    amounts = zip(Amounts.of(row), ("day", "week", "month"), strict=True)
    words = [f"{usd(nanos)} a {period}" for nanos, period in amounts if nanos is not None]
    return ", ".join(words) or "no amount"


def _list(text: str, rows: Rows) -> SafeString:
    items = format_html_join("", f"<li>{text}</li>", rows)
    return format_html("<ul>{}</ul>", items) if items else format_html("{}", "None")


def _more(name: str, organization: Organization, label: str) -> SafeString:
    url = f"{reverse(f'admin:{name}_changelist')}?{urlencode({'q': organization.slug})}"
    return format_html('<a href="{}" class="underline block">{}</a>', url, label)
