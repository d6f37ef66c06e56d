"""Every table is watched by the audit, or stands below with the reason why not; what it writes is whole and stays."""

import pytest
from django.apps import apps
from django.db import IntegrityError, connection, transaction
from django.test import Client

from accounts.audit import AuditContext, audited, note_actor, note_key
from accounts.audit_entries import record
from accounts.keys import change_key, revoke_key
from accounts.models import ApiKey, AuditEntry, Organization, User
from billing.models import Upstream
from pages.audit_lines import HOUSE, NOUNS, PEOPLE, describe, lines_of_organization
from tests.support.people import PASSWORD, People, client_of, make_person

UNWATCHED = {
    "accounts": {"AdmissionChange", "AuditEntry"},
    "billing": {
        # The ledger and what hangs on it is its own record: rows are only added, with their actor.
        *("LedgerAccount", "LedgerEntry", "LedgerTransaction", "OrganizationBalance", "CreditLot", "CreditLotEntry"),
        "LedgerSealKey",  # Made by the first posting; its one change is another encryption.
        *("UsageCorrection", "ReratedRequest", "Redemption", "PaymentReversal", "PriceComponent"),
        *("ClosedMonth", "Document", "DocumentLine", "DocumentSeries", "ProvenMonth"),
        # Written by requests, settlement, providers and jobs.
        *("AttributedDay", "BudgetDay", "FailedDay", "FailedRequest", "RefusedDay", "RefusedRequest"),
        *("RequestDetail", "SpenderDay", "UsageDay", "UsageHour", "UsageRecord"),
        *("Alert", "OutgoingMail", "WebhookDelivery", "RedemptionAttempts", "CatalogVersion"),
        *("TopUp", "PaymentMovement", "PaymentDispute"),
        *("ProviderReport", "ProviderReportLine", "ReconciliationRun"),
    },
    "gateway": {"IdempotentAnswer"},
    "operations": {"JobRun", "JobState", "ProviderBalance", "TrafficHour", "TrafficMinute"},
}


def watched_tables() -> set[str]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT tgrelid::regclass::text FROM pg_trigger WHERE tgname = 'audited'")
        return {name for (name,) in cursor.fetchall()}


@pytest.mark.django_db
def test_every_table_is_watched_or_exempt() -> None:
    """A new table is watched by `SELECT audit_watch(...)` in its migration (see billing 0019), or stands above."""
    watched = watched_tables()
    for app, exempt in UNWATCHED.items():
        models = {model.__name__: model._meta.db_table for model in apps.get_app_config(app).get_models()}
        assert exempt <= set(models), app
        assert {name for name, table in models.items() if table not in watched} == exempt, app
    assert set(NOUNS) == watched  # Each has a word for people.


def test_every_column_that_names_a_person_is_read_as_one() -> None:
    columns = {
        field.column
        for app in UNWATCHED
        for model in apps.get_app_config(app).get_models()
        if model._meta.db_table in NOUNS
        for field in model._meta.concrete_fields
        if field.related_model is User
    }
    assert columns - set(PEOPLE) == set()


def change(person: User, people: People) -> AuditEntry:
    with audited(AuditContext(source="a test's page", address="192.0.2.7")):
        note_actor(person.pk)
        change_key(people.key, fields={"name": "It's 100 % \\ new", "monthly_budget_nanos": 7_000_000_000})
    return AuditEntry.objects.latest("pk")


def test_a_change_is_written_down_with_who_and_from_where(people: People) -> None:
    entry = change(people.alice, people)
    assert (entry.action, entry.subject_table, entry.subject_id) == ("changed", "accounts_apikey", str(people.key.pk))
    assert entry.before == {"name": "Backend", "monthly_budget_nanos": None}
    assert entry.after == {"name": "It's 100 % \\ new", "monthly_budget_nanos": 7_000_000_000}
    assert (entry.organization_id, entry.actor_id) == (people.organization.pk, people.alice.pk)
    assert (entry.source, entry.address) == ("a test's page", "192.0.2.7")


def test_secrets_and_addresses_of_people_are_not_kept(people: People) -> None:
    for entry in AuditEntry.objects.filter(subject_table__in=["accounts_apikey", "accounts_user"]):
        hidden = ("password", "email", "name") if entry.subject_table == "accounts_user" else ("secret_sha256",)
        assert {name: (entry.after or {})[name] for name in hidden} == dict.fromkeys(hidden, "(hidden)")
    people.bob.set_password(PASSWORD)
    people.bob.save()
    assert AuditEntry.objects.latest("pk").after == {"password": "(hidden)"}


def test_saving_what_is_there_and_signing_in_write_nothing(people: People) -> None:
    before = AuditEntry.objects.count()
    client_of(people.alice)  # Sets last_login.
    people.organization.save()
    assert AuditEntry.objects.count() == before


@pytest.mark.parametrize("statement", ["UPDATE accounts_auditentry SET action = ''", "DELETE FROM accounts_auditentry"])
def test_the_audit_is_only_added_to(people: People, statement: str) -> None:
    with pytest.raises(IntegrityError, match="only added to"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL crossmodel.may_truncate = 'off'")
        with pytest.raises(IntegrityError, match="only added to"), transaction.atomic():
            cursor.execute("TRUNCATE accounts_auditentry")


def test_who_it_was_cannot_be_claimed_by_the_row(people: People) -> None:
    entry = AuditEntry.objects.create(action="x", subject_table="t", subject_id="1", actor_id=people.alice.pk)
    entry.refresh_from_db()
    assert (entry.actor_id, entry.database_user != "") == (None, True)


@pytest.mark.django_db(transaction=True)
def test_what_is_told_ends_with_its_transaction() -> None:
    """Connections are shared: what the next one does is not this one's."""
    with audited(AuditContext(source="first")):
        upstream = Upstream.objects.create(name="one", protocol="messages", base_url="http://x")
        Upstream.objects.bulk_update([upstream], ["name"])
        Upstream.objects.filter(pk=upstream.pk).update(name="two")
        Upstream.objects.raw("WITH x AS (SELECT 1) SELECT * FROM billing_upstream")
    Upstream.objects.filter(pk=upstream.pk).update(name="three")
    sources = [*AuditEntry.objects.order_by("pk").values_list("source", flat=True)]
    assert sources == ["first", "first", ""]


def test_a_page_says_who_and_an_api_key_says_which(people: People) -> None:
    client = client_of(people.alice)
    client.post(f"/console/alice/keys/{people.key.pk}/revoke/", REMOTE_ADDR="192.0.2.9")
    entry = AuditEntry.objects.latest("pk")
    assert (entry.actor_id, entry.address) == (people.alice.pk, "192.0.2.9")
    assert entry.source == f"POST /console/alice/keys/{people.key.pk}/revoke/"
    with audited(AuditContext(source="api")):
        note_key(people.key.pk)
        Organization.objects.filter(pk=people.organization.pk).update(name="By key")
    assert AuditEntry.objects.latest("pk").key_id == people.key.pk


def test_owners_read_their_own_part_and_operators_are_nameless_there(people: People) -> None:
    operator = make_person("operator", is_staff=True)
    change(people.alice, people)
    change(operator, people)
    with audited(AuditContext(source="x", actor_id=operator.pk)):
        Organization.objects.filter(pk=people.organization.pk).update(credit_limit_nanos=5_000_000_000)
        record("looked at", subject_table="accounts_user", subject_id=1, organization_id=people.organization.pk)
    lines = lines_of_organization(people.organization.pk)
    assert [line.who for line in lines[:2]] == [HOUSE, people.alice.email]
    assert (lines[0].what, lines[0].address, lines[0].origin) == ("organization changed", "", "")
    assert [(c.name, c.before, c.after) for c in lines[0].changes] == [("credit limit", "0.00 USD", "5.00 USD")]
    assert lines[1].subject == "It's 100 % \\ new (…)".replace("(…)", f"({people.key.prefix}…{people.key.last_four})")
    assert lines_of_organization(people.organization.pk, before_id=lines[0].id, limit=1) == lines[1:2]
    assert not [line for line in lines_of_organization(people.charlies.pk) if "Alice" in line.subject]
    assert describe(AuditEntry.objects.order_by("-pk")[1:2])[0].who == operator.email


def test_an_audit_of_many_rows_takes_as_many_queries_as_of_one(
    people: People, django_assert_num_queries: object
) -> None:
    for number in range(30):
        change_key(people.key, fields={"name": str(number)})
    revoke_key(ApiKey.objects.get(pk=people.key.pk), revoked_by=people.bob)
    with django_assert_num_queries(4):  # type: ignore[operator]
        assert len(lines_of_organization(people.organization.pk, limit=20)) == 20


def test_commands_name_the_shell_and_the_operator(people: People) -> None:
    from accounts.audit import of_command

    operator = make_person("operator", is_staff=True)
    with audited(of_command(["manage.py", "load_catalog", "--secret=x"])):
        note_actor(operator.pk)
        Organization.objects.filter(pk=people.organization.pk).update(name="New")
    entry = AuditEntry.objects.latest("pk")
    assert (entry.source, entry.shell_user != "", entry.actor_id) == ("manage.py load_catalog", True, operator.pk)


def test_nobody_is_asked_for_a_page_that_signs_nobody_in(client: Client, people: People) -> None:
    assert client.get("/").status_code == 200
