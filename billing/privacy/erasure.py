"""Erases an organization, or a person. Money stays: the ledger, usage records and documents keep numbers and ids.

What erases is told to Postgres (`crossmodel.erasing`), whose guards then let the name of a person be replaced by
`person <number>` in rows that are otherwise never changed, and nothing else (migration erasing_people).
"""

from collections.abc import Iterator

from django.apps import apps
from django.db import connection, transaction
from django.db.models import CharField, Model

from accounts.key_secrets import end_lent_secrets
from accounts.keys import disable_keys
from accounts.models import ApiKey, Invitation, Member, Organization, Role, User
from accounts.organizations import ERASED
from accounts.outbox import record_key_change, record_organization_change
from billing.admission.blocking import read_admission_state
from billing.ledger.seals import APPROVED_BY
from billing.models import OutgoingMail, WebhookDelivery
from billing.privacy.places import ACTOR_COLUMNS, OF_ORGANIZATION, Fate

APPS = ("accounts", "api", "billing", "gateway", "operations")
ERASED_DOMAIN = "erased.invalid"  # RFC 2606: no mail ever reaches it.
ROWS_AT_ONCE = 10_000
WHAT_ASKS = "billing_deletionrequest"  # Goes last, so that what was broken off on the way is done again.


class CannotEraseError(Exception):
    """It cannot be erased yet; the text says why."""


def erase_organization(organization: Organization) -> dict[str, int]:
    """Erase a closed organization in which nothing runs; return how many rows were deleted, by table.

    Raises CannotEraseError, AdmissionUnavailableError. Again, it deletes what is left.
    """
    if organization.status != Organization.Status.CLOSED:
        raise CannotEraseError(f"{organization.slug} is {organization.status}: close it first.")
    state = read_admission_state(organization.pk)
    if state is not None and (state.held_nanos or state.unsettled_nanos):
        raise CannotEraseError(f"Requests of {organization.slug} still run, or wait for settlement.")
    tables = [table for table in tables_with(Fate.ERASED) if table != WHAT_ASKS]
    erased = {table: _delete_rows(table, organization.pk) for table in tables}
    with transaction.atomic():
        for key in ApiKey.objects.select_for_update().filter(organization=organization):
            ApiKey.objects.filter(pk=key.pk).update(name=f"key {key.pk}", allowed_networks=[], created_by=None)
            record_key_change(key)
        locked = Organization.objects.select_for_update().get(pk=organization.pk)
        locked.name, locked.slug = f"Erased organization {locked.pk}", f"{ERASED}{locked.pk}"
        locked.config_version += 1
        locked.save()
        record_organization_change(locked)
    erased[WHAT_ASKS] = _delete_rows(WHAT_ASKS, organization.pk)
    return {table: count for table, count in erased.items() if count}


def erase_person(user: User) -> dict[str, int]:
    """Erase what says who the person was; return how many rows named them, by table and column.

    The login stays as `person <number>`, which nobody can sign in to: what was done goes on having one author. Raises
    CannotEraseError for the last owner of an organization that is not closed, and for an operator.
    """
    if user.is_staff:
        raise CannotEraseError("Operators keep their names: take the rights away first.")
    _refuse_last_owner(user)
    email = user.email
    alias = f"person {user.pk}"
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT set_config('crossmodel.erasing', 'on', true)")
        counts = {}
        for table, column in actor_places():
            where, values = naming(column, email)
            cursor.execute(
                f"""UPDATE "{table}" SET "{column}" = array_to_string(ARRAY(
                    SELECT CASE WHEN part = %s OR part LIKE %s THEN %s ELSE part END
                    FROM unnest(string_to_array("{column}", %s)) WITH ORDINALITY AS parts (part, place)
                    ORDER BY place), %s) WHERE {where}""",  # noqa: S608  Names of ours.
                [email, _like(email), alias, APPROVED_BY, APPROVED_BY, *values],
            )
            counts[f"{table}.{column}"] = int(cursor.rowcount)
        cursor.execute(
            """UPDATE accounts_auditentry SET before = replace(before::text, %(email)s, %(alias)s)::jsonb,
                after = replace(after::text, %(email)s, %(alias)s)::jsonb
                WHERE before::text LIKE %(like)s OR after::text LIKE %(like)s""",
            {"email": email, "alias": alias, "like": f"%{_escaped(email)}%"},
        )
        counts["accounts_auditentry"] = int(cursor.rowcount)
        cursor.execute("SELECT set_config('crossmodel.erasing', '', true)")
        end_lent_secrets(user)
        counts["accounts_apikey"] = disable_keys(of=user)  # As when they leave: they know the secrets.
        for related in (Member.objects.filter(user=user), Invitation.objects.filter(email__iexact=email)):
            counts[related.model._meta.db_table] = related.delete()[0]
        counts["billing_outgoingmail"] = OutgoingMail.objects.filter(user=user).delete()[0]
        for model in _of_login(user):
            counts[model._meta.db_table] = model._default_manager.filter(user=user).delete()[0]
        user.email, user.name, user.is_active = f"person-{user.pk}@{ERASED_DOMAIN}", "", False
        user.last_login = None
        user.set_unusable_password()  # Ends every session: they hold a hash of it.
        user.save()
    return {place: count for place, count in counts.items() if count}


def actor_places() -> Iterator[tuple[str, str]]:
    """Yield the table and column of every text that names who did something."""
    for model in _models():
        for field in model._meta.concrete_fields:
            if isinstance(field, CharField) and field.name in ACTOR_COLUMNS:
                yield model._meta.db_table, str(field.column)


def naming(column: str, email: str) -> tuple[str, list[str | list[str]]]:
    """Return the condition, and its values, of rows in which a text names this person: alone, or as one of two."""
    escaped = _escaped(email)
    likes = [_like(email), f"{escaped}{APPROVED_BY}%", f"%{APPROVED_BY}{escaped}"]
    return f'("{column}" = %s OR "{column}" LIKE ANY (%s))', [email, likes]


def tables_with(fate: Fate) -> list[str]:
    return [table for table, told in OF_ORGANIZATION.items() if told is fate]


def _delete_rows(table: str, organization_id: int) -> int:
    """Delete the rows of one organization, so many at a time that nobody waits for it."""
    if table == "billing_webhookendpoint":
        WebhookDelivery.objects.filter(endpoint__organization=organization_id).delete()
    total = 0
    with connection.cursor() as cursor:
        while True:
            cursor.execute(
                f'DELETE FROM "{table}" WHERE ctid = ANY (ARRAY(SELECT ctid FROM "{table}"'  # noqa: S608
                " WHERE organization_id = %s LIMIT %s))",
                [organization_id, ROWS_AT_ONCE],
            )
            total += int(cursor.rowcount)
            if cursor.rowcount < ROWS_AT_ONCE:
                return total


def _refuse_last_owner(user: User) -> None:
    owned = Member.objects.filter(user=user, role=Role.OWNER).exclude(organization__status=Organization.Status.CLOSED)
    for membership in owned.select_related("organization"):
        others = Member.objects.filter(organization=membership.organization, role=Role.OWNER).exclude(user=user)
        if not others.exists():
            slug = membership.organization.slug
            raise CannotEraseError(
                f"{user.email} is the last owner of {slug}: close it, or make somebody else its owner."
            )


def _of_login(user: User) -> list[type[Model]]:
    """Return the tables of sign-in that belong to one login: addresses, second factors, sessions, other logins."""
    return [
        model
        for model in apps.get_models()
        if model._meta.app_label not in APPS
        and any(field.name == "user" and field.related_model is User for field in model._meta.concrete_fields)
    ]


def _models() -> Iterator[type[Model]]:
    for label in APPS:
        yield from apps.get_app_config(label).get_models()


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def _like(email: str) -> str:
    """Return the pattern of what commands write: the address, and whose shell it was."""
    return f"{_escaped(email)} (shell:%"
