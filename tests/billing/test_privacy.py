"""What is kept of whom, for how long; erasing takes names and leaves the money, and every table has its answer."""

import io
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import IntegrityError, OperationalError, connection, transaction
from django.db.models import Sum

from accounts.audit import AuditContext, audited
from accounts.audit_entries import record
from accounts.key_secrets import find_key, lend_secret
from accounts.keys import create_key
from accounts.members import add_member
from accounts.models import AuditEntry, BillingDetails, Member, Organization, Role, User
from accounts.organizations import change_organization
from billing.budgets.amounts import Amounts
from billing.budgets.choices import set_end_user_budget
from billing.checks import CHECKS, run_checks
from billing.credit.top_ups import grant_credit
from billing.models import (
    AttributedDay,
    CreditLot,
    DataRetention,
    LedgerEntry,
    LedgerTransaction,
    RequestDetail,
    SpenderDay,
    UsageRecord,
)
from billing.privacy.erasure import CannotEraseError, actor_places, erase_organization, erase_person
from billing.privacy.retention import choose_retention, due_retentions, erase_day, erase_due_details
from tests.billing.ledger_factory import make_organization
from tests.support.people import PASSWORD, People, make_person
from tests.support.settled_usage import billed_event, sell_model, settle

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 11, 20, 14, 30, tzinfo=UTC)
DAY = timedelta(days=1)


def command(*arguments: str) -> str:
    out = io.StringIO()
    call_command(*arguments, stdout=out)
    return out.getvalue()


def grant(people: People, *, actor: str) -> None:
    grant_credit(
        people.organization, amount_nanos=10**9, kind=CreditLot.Kind.PAID, reason="r", actor=actor,
        idempotency_key=f"by {actor}",
    )  # fmt: skip


def use(people: People, version: Any, *, days_ago: int, end_user: str = "enduser-7") -> None:
    settle([billed_event(people.key, version, at=NOW - days_ago * DAY, end_user=end_user, client="curl/8")])


def books() -> list[Any]:
    """The money as it stands, whoever it is said to be of."""
    sums = LedgerEntry.objects.values("account_id").annotate(sum=Sum("amount_nanos")).order_by("account_id")
    return [list(sums), list(UsageRecord.objects.order_by("request_id").values_list("request_id", "cost_nanos"))]


def test_details_go_when_their_time_is_over_and_sums_go_on_agreeing(people: People) -> None:
    version = sell_model()
    set_end_user_budget(people.organization, end_user="", amounts=Amounts(monthly_nanos=1), actor="alice@example.org")
    for days_ago in (40, 31, 30, 29, 1):
        use(people, version, days_ago=days_ago)
    before = books()
    assert due_retentions(NOW.date()) == []
    choose_retention(people.organization, details_days=30, actor="alice@example.org")
    assert erase_due_details(now=NOW) == 2
    kept = set(RequestDetail.objects.values_list("request_id", flat=True))
    days = UsageRecord.objects.filter(request_id__in=kept).values_list("admitted_at__date", flat=True)
    assert sorted(days) == [(NOW - days_ago * DAY).date() for days_ago in (30, 29, 1)]
    assert min(AttributedDay.objects.values_list("day", flat=True)) == (NOW - 30 * DAY).date()
    named = SpenderDay.objects.exclude(end_user="").count()
    assert (named, SpenderDay.objects.count()) == (3, 5), "Budgets count on, and do not know whom."
    assert run_checks(CHECKS).breaks == []
    assert books() == before
    assert (erase_due_details(now=NOW), due_retentions(NOW.date())) == (0, []), "Again is nothing."
    assert erase_due_details(now=NOW + DAY) == 1
    assert DataRetention.objects.get().erased_before == (NOW - 29 * DAY).date()
    assert "kept forever" in command("keep_details", people.organization.slug, "forever")
    assert erase_due_details(now=NOW + 90 * DAY) == 0
    with pytest.raises(CommandError, match="1 to 3650"):
        command("keep_details", people.organization.slug, "0")


def test_details_of_requests_that_only_ever_failed_go_too(people: People) -> None:
    """The first billed request came later, or never."""
    failed = billed_event(people.key, sell_model(), at=NOW - 40 * DAY, end_user="enduser-7", client="curl/8")
    settle([replace(failed, outcome="failed", cost_nanos=0, error_code="upstream_error")])
    choose_retention(people.organization, details_days=30, actor="alice@example.org")
    assert RequestDetail.objects.count() == 1
    assert erase_due_details(now=NOW) == 1
    assert not RequestDetail.objects.exists()


def test_an_erased_person_is_nobody_and_the_ledger_stands(people: People) -> None:
    bob = people.bob
    with audited(AuditContext(source="test")):
        grant(people, actor=bob.email)
        grant(people, actor=f"{bob.email} (shell:root)")
        choose_retention(people.organization, details_days=400, actor=bob.email)
    before, checks = books(), run_checks(CHECKS).breaks
    exported = command("export_data", "--person", bob.email)
    assert {"accounts_user", "accounts_member", "billing_ledgertransaction"} <= {
        json.loads(line)["table"] for line in exported.splitlines()
    }
    assert "pbkdf2" not in exported
    assert "Nothing is erased" in command("erase_data", "--person", bob.email)
    command("erase_data", "--person", bob.email, "--yes")
    bob.refresh_from_db()
    assert (bob.is_active, bob.name, bob.email) == (False, "", f"person-{bob.pk}@erased.invalid")
    assert not bob.check_password(PASSWORD)
    assert not Member.objects.filter(user=bob).exists()
    assert set(LedgerTransaction.objects.filter(kind="top_up").values_list("actor", flat=True)) == {f"person {bob.pk}"}
    assert (books(), run_checks(CHECKS).breaks) == (before, checks)
    with connection.cursor() as cursor:
        for table, column in [*actor_places(), ("accounts_auditentry", "before"), ("accounts_auditentry", "after")]:
            where = f'"{table}" WHERE "{column}"::text LIKE %s'
            cursor.execute(f"SELECT count(*) FROM {where}", ["%bob@example.org%"])  # noqa: S608  Names of ours.
            assert cursor.fetchone() == (0,), (table, column)
    assert AuditEntry.objects.filter(action="erased", subject_id=str(bob.pk)).exists()


def test_one_whose_details_cannot_be_erased_holds_up_no_other(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    other, version = make_organization("Other"), sell_model()
    key, _ = create_key(other, name="k", created_by=None)
    use(people, version, days_ago=40)
    settle([billed_event(key, version, at=NOW - 40 * DAY, end_user="enduser-8")])
    for organization in (people.organization, other):
        choose_retention(organization, details_days=30, actor="alice@example.org")
    assert people.organization.pk < other.pk

    def erase(organization: Organization, day: Any) -> int:
        if organization == people.organization:
            raise OperationalError("too long")
        return erase_day(organization, day)

    monkeypatch.setattr("billing.privacy.retention.erase_day", erase)
    with pytest.raises(OperationalError):
        erase_due_details(now=NOW)
    assert list(RequestDetail.objects.values_list("organization_id", flat=True)) == [people.organization.pk]


@pytest.mark.parametrize("who", ["bob", "carol"])
def test_of_two_who_decided_each_is_erased_for_themselves(people: People, who: str) -> None:
    """An operator who has left is a person like any other; the one beside them goes on standing there."""
    carol = make_person("carol")
    for number, shell in enumerate(("", " (shell:root)")):
        grant(people, actor=f"bob@example.org{shell}, approved by carol@example.org")
        assert LedgerTransaction.objects.filter(kind="top_up").count() == number + 1
    person = people.bob if who == "bob" else carol
    checks = run_checks(CHECKS).breaks
    exported = command("export_data", "--person", person.email)
    assert exported.count('"billing_ledgertransaction"') == 2
    erase_person(person)
    actors = set(LedgerTransaction.objects.filter(kind="top_up").values_list("actor", flat=True))
    alone = f"person {person.pk}"
    assert actors == (
        {f"{alone}, approved by carol@example.org"}
        if who == "bob"
        else {f"bob@example.org{shell}, approved by {alone}" for shell in ("", " (shell:root)")}
    )
    assert run_checks(CHECKS).breaks == checks, "also the seals of the ledger go on holding"


def refused(statement: str, *, erasing: str = "on") -> bool:
    """Say whether Postgres refuses the statement to somebody who says that they erase a person."""
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT set_config('crossmodel.erasing', %s, true)", [erasing])
            cursor.execute(statement)
    except IntegrityError:
        return True
    return False


def test_erasing_changes_nothing_else_of_the_ledger(people: People) -> None:
    grant(people, actor="alice@example.org")
    record("tested", subject_table="accounts_user", subject_id=1)
    for statement in (
        "UPDATE billing_ledgertransaction SET reason = 'person 1'",
        "UPDATE billing_ledgertransaction SET actor = 'mallory'",
        "UPDATE billing_ledgertransaction SET actor = actor || ', approved by person 1'",
        "UPDATE billing_ledgertransaction SET actor = 'person 1, approved by mallory'",
        "UPDATE billing_ledgertransaction SET actor = ''",
        "UPDATE billing_ledgerentry SET amount_nanos = amount_nanos + 1",
        "DELETE FROM billing_ledgerentry",
        "UPDATE accounts_auditentry SET actor_id = 1",
        "DELETE FROM accounts_auditentry",
    ):
        assert refused(statement), statement
    assert refused("UPDATE billing_ledgertransaction SET actor = 'person 1'", erasing="")
    assert not refused("UPDATE billing_ledgertransaction SET actor = 'person 1'")


def test_who_cannot_be_erased_yet(people: People) -> None:
    with pytest.raises(CannotEraseError, match="last owner"):
        erase_person(people.alice)
    with pytest.raises(CannotEraseError, match="Operators"):
        erase_person(make_person("operator", is_staff=True))
    with pytest.raises(CannotEraseError, match="close it first"):
        erase_organization(people.organization)
    with pytest.raises(CommandError, match="Nothing was erased"):
        command("erase_data", "--organization", people.organization.slug, "--yes")
    assert User.objects.filter(email="alice@example.org").exists()


def test_an_erased_person_takes_no_key_along(people: People) -> None:
    people.give_bob(Role.DEVELOPER)
    key, _ = create_key(people.organization, name="Bob's laptop", created_by=people.bob)
    lent, _ = lend_secret(people.key, user=people.bob)
    erase_person(people.bob)
    key.refresh_from_db()
    people.key.refresh_from_db()
    assert (key.status, people.key.status, find_key(lent)) == ("disabled", "active", None)


def test_an_erased_organization_leaves_numbers(people: People) -> None:
    version = sell_model()
    grant(people, actor="system")
    use(people, version, days_ago=3)
    BillingDetails.objects.create(organization=people.organization, legal_name="Acme GmbH & Co", city="Ulm")
    others = add_member(people.organization, user=make_person("dora"), role=Role.VIEWER)
    slug, name = people.organization.slug, people.organization.name
    exported = [json.loads(line) for line in command("export_data", "--organization", slug).splitlines()]
    wanted = {"billing_usagerecord", "billing_ledgertransaction", "billing_requestdetail"}
    assert wanted <= {row["table"] for row in exported}
    assert not any("secret_sha256" in row for row in exported)
    change_organization(people.organization, fields={"status": Organization.Status.CLOSED})
    before = books()
    command("erase_data", "--organization", slug, "--yes")
    organization = Organization.objects.get(pk=people.organization.pk)
    assert (organization.slug, organization.status) == (f"erased-{organization.pk}", "closed")
    assert not RequestDetail.objects.filter(organization_id=organization.pk).exists()
    assert not Member.objects.filter(pk=others.pk).exists()
    assert not BillingDetails.objects.filter(organization=organization).exists()
    left = command("export_data", "--organization", organization.slug)
    kept = [line for line in left.splitlines() if json.loads(line)["table"] != "accounts_auditentry"]
    for word in (name, slug, "Acme GmbH", "enduser-7", "curl/8"):
        assert not any(f'"{word}' in line for line in kept), word
    assert (books(), run_checks(CHECKS).breaks) == (before, [])
    command("erase_data", "--organization", organization.slug, "--yes")
