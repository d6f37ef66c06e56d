"""Looks for what should be alerts, over all organizations at once. Doubled or late rounds change only the delay."""

from collections.abc import Collection, Iterator
from datetime import UTC, datetime, timedelta
from itertools import groupby
from operator import itemgetter

from billing.alerts.book import apply_findings
from billing.alerts.judgement import Finding, Spending, fold_end_users, is_near_a_limit, judge
from billing.alerts.spending import read_budgeted_keys, read_budgeted_spenders, read_organizations, read_usual_holds
from billing.budgets.spenders import END_USER
from billing.bulk_rows import fetch_all
from billing.models import Alert, LanguageModel
from billing.money import PICOS_PER_NANO
from billing.watching import watched

Kind = Alert.Kind

SPENDING_KINDS = (
    Kind.LOW_BALANCE,
    Kind.BALANCE_EXHAUSTED,
    Kind.BUDGET_WARNING,
    Kind.BUDGET_REACHED,
    Kind.SPEND_SPIKE,
    Kind.PROJECTED_OVER_BUDGET,
    Kind.KEY_EXPIRING,
)
CATALOG_KINDS = (Kind.PRICE_CHANGE, Kind.MODEL_RETIRING)

KEY_NOTICE = timedelta(days=7)
# A price is told about from its approval on, until it has been in force for a while; a retirement from so long before.
PRICE_NOTICE = timedelta(days=90)
PRICE_AFTERWARDS = timedelta(days=2)
RETIREMENT_NOTICE = timedelta(days=60)
USED_WITHIN = timedelta(days=30)
TOKENS_PER_MILLION = 1_000_000


def evaluate_spending(*, now: datetime | None = None) -> tuple[int, int]:
    """Raise and clear what depends on balances, budgets and the clock; return how many alerts of each."""
    now = now or datetime.now(UTC)
    findings = [*_spending_findings(int(now.timestamp()) // 86_400), *_expiring_keys(now)]
    return apply_findings(SPENDING_KINDS, findings)


def evaluate_catalog(*, now: datetime | None = None) -> tuple[int, int]:
    """Raise and clear what depends on prices and models; return how many alerts of each. Reads far more: hourly."""
    now = now or datetime.now(UTC)
    kinds = (_price_changes, _retiring_models)
    return apply_findings(CATALOG_KINDS, [finding for find in watched(kinds, len(kinds)) for finding in find(now)])


def _spending_findings(today: int) -> Iterator[Finding]:
    """Yield what holds of all organizations, and of all keys, members and end users with budgets."""
    holders: list[Spending] = [*read_organizations(today), *read_budgeted_keys(today), *read_budgeted_spenders(today)]
    near = {(holder.organization_id, holder.key_id) for holder in holders if is_near_a_limit(holder, today)}
    holds = read_usual_holds(sorted(near))
    of_end_users: list[Finding] = []
    for holder in watched(holders, len(holders)):
        usual_hold_nanos = holds.get((holder.organization_id, holder.key_id), 0)
        findings = judge(holder, today=today, usual_hold_nanos=usual_hold_nanos)
        if holder.scope == END_USER:
            of_end_users += findings
        else:
            yield from findings
    yield from fold_end_users(of_end_users)


def _expiring_keys(now: datetime) -> Iterator[Finding]:
    rows = fetch_all(
        """
        SELECT key.organization_id, key.id, key.expires_at
        FROM accounts_apikey key JOIN accounts_organization organization ON organization.id = key.organization_id
        WHERE key.revoked_at IS NULL AND key.expires_at > %s AND key.expires_at <= %s
            AND key.expires_at - key.created_at > %s AND organization.status = 'active'
        """,
        # A key that was made for less time than the notice is known to expire by whoever made it.
        [now, now + KEY_NOTICE, KEY_NOTICE],
    )
    for organization_id, key_id, expires_at in rows:
        details = {"expires_at": expires_at.isoformat()}
        # With its time in the subject, so that a key which was prolonged is told of again.
        subject = f"key:{key_id}:{int(expires_at.timestamp())}"
        yield Finding(organization_id, Kind.KEY_EXPIRING, subject, key_id, details=details)


def _price_changes(now: datetime) -> Iterator[Finding]:
    """Yield a finding for each approved sale price that replaces another, and each organization that uses its model."""
    changes = fetch_all(
        f"""
        SELECT change.*, {_price_of("replaced_id", "input")}, {_price_of("change.id", "input")},
            {_price_of("replaced_id", "output")}, {_price_of("change.id", "output")}
        FROM (SELECT version.id, model.model_id, version.effective_from,
                (SELECT earlier.id FROM billing_priceversion earlier
                    WHERE earlier.language_model_id = version.language_model_id AND earlier.upstream_id IS NULL
                        AND earlier.approved_at IS NOT NULL AND earlier.effective_from < version.effective_from
                    ORDER BY effective_from DESC, id DESC LIMIT 1) AS replaced_id
            FROM billing_priceversion version JOIN billing_languagemodel model ON model.id = version.language_model_id
            WHERE version.upstream_id IS NULL AND version.approved_at IS NOT NULL AND version.effective_from > %s
                AND version.effective_from < %s) change
        WHERE change.replaced_id IS NOT NULL
        """,  # noqa: S608  Constants.
        [now - PRICE_AFTERWARDS, now + PRICE_NOTICE],
    )
    users = _users_of({model_id for _, model_id, *_ in changes}, now)
    for version_id, model_id, begins, _, old_input, new_input, old_output, new_output in changes:
        details = {
            "model": model_id,
            "begins": begins.isoformat(),
            "old_input_per_million_nanos": _per_million(old_input),
            "new_input_per_million_nanos": _per_million(new_input),
            "old_output_per_million_nanos": _per_million(old_output),
            "new_output_per_million_nanos": _per_million(new_output),
        }
        for organization_id in users.get(model_id, ()):
            yield Finding(organization_id, Kind.PRICE_CHANGE, f"price:{version_id}", details=details)


def _retiring_models(now: datetime) -> Iterator[Finding]:
    retiring = LanguageModel.objects.filter(retires_at__gt=now, retires_at__lt=now + RETIREMENT_NOTICE)
    models = [(model.pk, model.model_id, model.retires_at) for model in retiring if model.retires_at is not None]
    users = _users_of({model_id for _, model_id, _ in models}, now)
    for pk, model_id, retires_at in models:
        details = {"model": model_id, "retires_at": retires_at.isoformat()}
        for organization_id in users.get(model_id, ()):
            subject = f"model:{pk}:{int(retires_at.timestamp())}"
            yield Finding(organization_id, Kind.MODEL_RETIRING, subject, details=details)


def _users_of(model_ids: Collection[str], now: datetime) -> dict[str, list[int]]:
    """Return which active organizations used each of these models lately. Organization by organization: along the only
    index of the roll-up.
    """
    if not model_ids:
        return {}
    rows = fetch_all(
        """
        SELECT hours.model_id, organization.id FROM accounts_organization organization
        CROSS JOIN LATERAL (SELECT DISTINCT model_id FROM billing_usagehour
            WHERE organization_id = organization.id AND hour >= %s AND model_id = ANY(%s)) hours
        WHERE organization.status = 'active' ORDER BY 1, 2
        """,
        [now - USED_WITHIN, list(model_ids)],
    )
    return {model_id: [pk for _, pk in group] for model_id, group in groupby(rows, key=itemgetter(0))}


def _price_of(version: str, component: str) -> str:
    return (
        f"(SELECT picos_per_unit FROM billing_pricecomponent WHERE price_version_id = {version}"  # noqa: S608
        f" AND component = '{component}' AND prompt_tokens_from = 0)"
    )


def _per_million(picos_per_token: int | None) -> int:
    return (picos_per_token or 0) * TOKENS_PER_MILLION // PICOS_PER_NANO
