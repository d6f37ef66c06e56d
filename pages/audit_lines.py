"""The audit in words: who, what, before and after, for operators and for an organization's owners.

The console's page asks `lines_of_organization()`; the admin asks `describe()` for the entries of its own pages.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import QuerySet

from accounts.audit_entries import entries_of_organization
from accounts.models import ApiKey, AuditEntry, Member, Organization, User
from billing.models import Approval, LanguageModel, PriceVersion, RedemptionCode, Upstream, WebhookEndpoint
from billing.pricing.cost import FACTOR_ONE_PPM
from pages.dates import SECOND, moment_text
from pages.templatetags.amounts import usd

# What the owners of an organization see of it; the rest is the operators' own.
TABLES_OF_OWNERS = {
    "accounts_organization": "organization",
    "accounts_formerslug": "former slug",
    "accounts_member": "member",
    "accounts_apikey": "API key",
    "accounts_invitation": "invitation",
    "accounts_billingdetails": "billing details",
    "billing_organizationpricefactor": "price factor",
    "billing_recurringcredit": "recurring credit",
    "billing_automatictopup": "automatic top-up",
    "billing_spenderbudget": "budget",
    "billing_budgetoverride": "budget override",
    "billing_alertsettings": "alert settings",
    "billing_dataretention": "data retention",
    "billing_deletionrequest": "deletion request",
    "billing_webhookendpoint": "webhook endpoint",
}
TABLES_OF_OPERATORS = {
    "accounts_user": "person",
    "accounts_temporarysecret": "temporary secret of a key",
    "accounts_user_groups": "staff role of a person",
    "accounts_user_user_permissions": "permission of a person",
    "auth_group_permissions": "permission of a staff role",
    "billing_upstream": "upstream",
    "billing_languagemodel": "language model",
    "billing_languagemodelalias": "language model alias",
    "billing_route": "route",
    "billing_priceversion": "price version",
    "billing_redemptioncode": "redemption code",
    "billing_approval": "approval",
    "billing_paymentrefund": "payment refund",
    "billing_paymentbreak": "payment break",
    "billing_reconciliationbreak": "reconciliation break",
    "billing_usagequarantine": "quarantined event",
    "billing_rerating": "re-rating",
}
# What is called by a text of its own, and how it is read.
NAMED: Mapping[str, Callable[[], QuerySet[Any]]] = {
    "accounts_organization": Organization.objects.all,
    "billing_approval": Approval.objects.all,
    "billing_languagemodel": LanguageModel.objects.all,
    "billing_priceversion": lambda: PriceVersion.objects.select_related("language_model", "upstream"),
    "billing_redemptioncode": RedemptionCode.objects.all,
    "billing_upstream": Upstream.objects.all,
    "billing_webhookendpoint": WebhookEndpoint.objects.all,
}
Names = dict[tuple[str, str], str]  # By table and id.
NOUNS = TABLES_OF_OWNERS | TABLES_OF_OPERATORS
HOUSE = "CrossModel"
PEOPLE = (
    "user_id",
    "created_by_id",
    "revoked_by_id",
    "invited_by_id",
    "accepted_by_id",
    "owner_id",
    "asked_by_id",
    "decided_by_id",
    "drafted_by_id",
    "disabled_by_id",
    "discarded_by_id",
)
MAX_VALUE_CHARS = 200
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[.\d]*\+00:00\Z")


@dataclass(frozen=True, slots=True)
class AuditChange:
    """One column. Empty texts stand for what was not there."""

    name: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class AuditLine:
    """One entry as people read it. `who` is an e-mail address, a key, or CrossModel itself."""

    id: int
    at: datetime
    who: str
    what: str
    subject: str
    changes: Sequence[AuditChange]
    origin: str
    address: str


def lines_of_organization(organization_id: int, *, before_id: int | None = None, limit: int = 50) -> list[AuditLine]:
    """Return what its owners may read, newest first. Operators and jobs are CrossModel there, without an address."""
    tables = [*TABLES_OF_OWNERS]
    entries = entries_of_organization(organization_id, tables=tables, before_id=before_id, limit=limit)
    members = set(Member.objects.filter(organization=organization_id).values_list("user_id", flat=True))
    return describe(entries, people_shown=members)


def describe(entries: Iterable[AuditEntry], *, people_shown: set[int] | None = None) -> list[AuditLine]:
    """Return the entries in words, in a constant number of queries.

    With `people_shown` everybody else is CrossModel, and where they were is not told.
    """
    entries = list(entries)
    emails = _emails(entries, people_shown)
    names = _names(entries)
    keys = {key.pk: key for key in ApiKey.objects.filter(pk__in=_key_ids(entries))}
    return [_describe(entry, emails, keys, names, is_inside=people_shown is None) for entry in entries]


def _describe(
    entry: AuditEntry, emails: Mapping[int, str], keys: Mapping[int, ApiKey], names: Names, *, is_inside: bool
) -> AuditLine:
    who = _who(entry, emails, keys, is_inside=is_inside)
    is_told = is_inside or entry.key_id is not None or entry.actor_id in emails
    noun = NOUNS.get(entry.subject_table, entry.subject_table)
    return AuditLine(
        id=entry.pk,
        at=entry.at,
        who=who,
        what=f"{noun} {entry.action}".replace("_", " "),
        subject=_subject(entry, emails, keys, names),
        changes=_changes(entry, emails),
        origin=_origin(entry) if is_told else "",
        address=entry.address if is_told else "",
    )


def _who(entry: AuditEntry, emails: Mapping[int, str], keys: Mapping[int, ApiKey], *, is_inside: bool) -> str:
    if entry.actor_id is not None:
        return emails.get(entry.actor_id, f"person {entry.actor_id}" if is_inside else HOUSE)
    if entry.key_id is not None:
        return f"API key {keys[entry.key_id]}" if entry.key_id in keys else f"API key {entry.key_id}"
    if not is_inside:
        return HOUSE
    if entry.shell_user:
        return f"shell:{entry.shell_user}"
    return HOUSE if entry.source else f"database:{entry.database_user}"


def _origin(entry: AuditEntry) -> str:
    return f"{entry.source} (shell:{entry.shell_user})" if entry.shell_user else entry.source


def _subject(entry: AuditEntry, emails: Mapping[int, str], keys: Mapping[int, ApiKey], names: Names) -> str:
    """Return what a person calls the row: by its name, if it has one that stays."""
    values = {**(entry.before or {}), **(entry.after or {})}
    if entry.subject_table == "accounts_apikey":
        key = keys.get(int(entry.subject_id))
        return str(key) if key else f"#{entry.subject_id}"
    person = int(entry.subject_id) if entry.subject_table == "accounts_user" else values.get("user_id")
    if isinstance(person, int):
        return emails.get(person, f"person {person}")
    for name in ("name", "model_id", "alias", "url", "prefix"):
        if isinstance(values.get(name), str):
            return str(values[name])
    return names.get((entry.subject_table, entry.subject_id), f"#{entry.subject_id}")


def _names(entries: Sequence[AuditEntry]) -> Names:
    """Return what rows are called now whose entries do not say it, a query for each table that is there."""
    found: Names = {}
    for table, rows in NAMED.items():
        ids = {int(entry.subject_id) for entry in entries if entry.subject_table == table}
        if ids:
            found |= {(table, str(row.pk)): str(row) for row in rows().filter(pk__in=ids)}
    return found


def _changes(entry: AuditEntry, emails: Mapping[int, str]) -> list[AuditChange]:
    before, after = entry.before or {}, entry.after or {}
    names = [name for name in {**before, **after} if name not in ("id", "organization_id")]
    changes = (
        AuditChange(_label(name), _value(name, before.get(name), emails), _value(name, after.get(name), emails))
        for name in sorted(names)
    )
    return [change for change in changes if change.before or change.after]  # Not what was empty from the beginning.


def _label(name: str) -> str:
    for ending in ("_nanos", "_ppm", "_id"):
        name = name.removesuffix(ending)
    return name.replace("_", " ")


def _value(name: str, value: Any, emails: Mapping[int, str]) -> str:
    if value is None or value == "" or value == [] or value == {}:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name.endswith("_nanos") and isinstance(value, int):
        return f"{usd(value).replace('$', '')} USD"
    if name.endswith("_ppm") and isinstance(value, int):
        return f"{value / FACTOR_ONE_PPM:g}"
    if name in PEOPLE and isinstance(value, int):
        return emails.get(value, f"person {value}")
    if isinstance(value, str) and MOMENT.match(value):
        return f"{moment_text(datetime.fromisoformat(value), SECOND)} UTC"
    if isinstance(value, list):
        value = ", ".join(str(item) for item in value)
    return str(value)[:MAX_VALUE_CHARS]


def _emails(entries: Sequence[AuditEntry], shown: set[int] | None) -> dict[int, str]:
    """Return the addresses of everybody whom the entries name, as far as they are shown."""
    ids = {entry.actor_id for entry in entries if entry.actor_id is not None}
    for entry in entries:
        if entry.subject_table == "accounts_user":
            ids.add(int(entry.subject_id))
        for values in (entry.before or {}, entry.after or {}):
            ids |= {values[name] for name in PEOPLE if isinstance(values.get(name), int)}
    if shown is not None:
        ids &= shown
    return dict(User.objects.filter(pk__in=ids).values_list("pk", "email"))


def _key_ids(entries: Sequence[AuditEntry]) -> set[int]:
    named = {int(entry.subject_id) for entry in entries if entry.subject_table == "accounts_apikey"}
    return named | {entry.key_id for entry in entries if entry.key_id is not None}
