"""What an organization decides for itself, and what only the operator decides."""

import json
from typing import Any

import pytest
import redis
from django.test import Client

from accounts.closing import close_organization
from accounts.invitations import invite, open_invitations
from accounts.models import AdmissionChange, AuditEntry, Organization, Role
from billing.admission.redis_keys import shard_keys_of
from billing.credit.top_ups import grant_credit
from billing.models import CreditLot, DataRetention, DeletionRequest, LedgerEntry
from tests.support.people import People, client_of
from tests.support.settled_usage import billed_event, sell_model, settle
from tests.support.streamed import read_streamed

PAGE = "/console/alice/settings/"


@pytest.fixture
def alice(people: People) -> Client:
    return client_of(people.alice)


def enforced(people: People, redis_client: redis.Redis, *fields: str) -> list[Any]:
    return redis_client.hmget(shard_keys_of(people.organization.pk).org(people.organization.pk), *fields)


def test_budgets_and_the_cost_in_answers_reach_redis(alice: Client, people: People, redis_client: redis.Redis) -> None:
    values = {"name": "Alice Ltd", "daily_budget_nanos": "$2.50", "monthly_budget_nanos": "1,000"}
    assert alice.post(PAGE, {**values, "shows_cost_in_usage": "on"}).status_code == 302
    people.organization.refresh_from_db()
    assert people.organization.name == "Alice Ltd"
    assert (people.organization.daily_budget_nanos, people.organization.weekly_budget_nanos) == (2_500_000_000, None)
    fields = ("daily_budget", "monthly_budget", "shows_cost")
    assert enforced(people, redis_client, *fields) == [b"2500000000", b"1000000000000", b"1"]
    assert not AdmissionChange.objects.exists()

    assert alice.post(PAGE, {"name": "Alice Ltd"}).status_code == 302
    assert enforced(people, redis_client, *fields) == [None, None, None]


@pytest.mark.parametrize(
    ("field", "value"), [("name", ""), ("daily_budget_nanos", "-1"), ("weekly_budget_nanos", "much")]
)
def test_what_makes_no_sense_is_told_and_changes_nothing(alice: Client, people: People, field: str, value: str) -> None:
    response = alice.post(PAGE, {"name": "Other", field: value})
    assert response.status_code == 422
    assert response.context["form"].errors[field]
    people.organization.refresh_from_db()
    assert (people.organization.name, people.organization.config_version) == ("Alice & Co", 1)


def test_limits_of_the_operator_are_shown_and_cannot_be_changed(alice: Client, people: People) -> None:
    alice.post(PAGE, {"name": "Alice & Co", "requests_per_minute": "1", "credit_limit_nanos": "9", "status": "closed"})
    people.organization.refresh_from_db()
    assert (people.organization.requests_per_minute, people.organization.credit_limit_nanos) == (None, 0)
    assert people.organization.status == "active"
    assert "None: requests are prepaid" in alice.get(PAGE).content.decode()


def test_fewer_days_of_details_need_a_word_more(alice: Client, people: People) -> None:
    page = "/console/alice/settings/retention/"
    assert alice.post(page, {"details_days": "0", "is_certain": "on"}).status_code == 422
    refused = alice.post(page, {"details_days": "30"})
    assert refused.status_code == 422 and "This erases details for good" in refused.content.decode()
    assert not DataRetention.objects.exists()
    assert alice.post(page, {"details_days": "30", "is_certain": "on"}).status_code == 302
    assert alice.post(page, {"details_days": "90"}).status_code == 302  # More erases nothing.
    kept = DataRetention.objects.get()
    assert (kept.organization, kept.details_days, kept.changed_by) == (people.organization, 90, "alice@example.org")
    assert alice.post(page, {"details_days": ""}).status_code == 302
    kept.refresh_from_db()
    assert kept.details_days is None


CLOSE = "/console/alice/settings/close/"


@pytest.mark.parametrize(
    "name", ["Alice\nYour account is locked", "Alice\u2028Pay here", "Alice\u202egnp.exe", "A\x1b[2J"]
)
def test_a_name_writes_no_lines_into_mails_and_documents(alice: Client, people: People, name: str) -> None:
    response = alice.post(PAGE, {"name": name})
    assert response.status_code == 422
    assert "Leave out line breaks" in response.content.decode()
    client_of(people.bob).post("/organizations/new/", {"name": name})
    assert not Organization.objects.filter(name=name).exists()


@pytest.mark.parametrize("name", ["شركة \u200fأليس", "Zoë & 👩\u200d👩\u200d👧 GmbH"])
def test_a_name_of_any_script_is_one(alice: Client, people: People, name: str) -> None:
    assert alice.post(PAGE, {"name": name}).status_code == 302
    people.organization.refresh_from_db()
    assert people.organization.name == name


def test_closing_needs_the_name_and_keeps_ledger_and_documents(people: People, redis_client: redis.Redis) -> None:
    alice = client_of(people.alice)
    settle([billed_event(people.key, sell_model())])
    invite(people.organization, email="nora@example.org", role=Role.VIEWER, invited_by=people.alice)
    entries = list(LedgerEntry.objects.values_list("pk", "amount_nanos"))
    assert "This is not its name" in alice.post(CLOSE, {"name": "Alice"}).content.decode()
    people.organization.refresh_from_db()
    assert people.organization.status == "active"
    page = alice.post(CLOSE, {"name": "Alice & Co"}, follow=True)
    assert page.redirect_chain[-1][0] == "/console/alice/billing/documents/"
    names = shard_keys_of(people.organization.pk)
    assert redis_client.hget(names.org(people.organization.pk), "status") == b"closed"
    assert redis_client.hget(names.key(people.key.pk), "status") == b"revoked"
    assert not open_invitations(people.organization)
    assert client_of(people.bob).get("/console/alice/").status_code == 404  # A viewer: removed.
    assert list(LedgerEntry.objects.values_list("pk", "amount_nanos")) == entries
    assert alice.get("/console/alice/billing/").status_code == 200


def test_an_admin_closes_nothing(people: People) -> None:
    people.give_bob(Role.ADMIN)
    assert client_of(people.bob).post(CLOSE, {"name": "Alice & Co"}).status_code == 403
    assert "Close the organization" not in client_of(people.bob).get("/console/alice/settings/").content.decode()


@pytest.mark.parametrize("before", ["", "x", "9" * 30, "-1"])
def test_the_audit_log_says_who_changed_what(people: People, before: str) -> None:
    alice = client_of(people.alice)
    alice.post(f"/console/alice/keys/{people.key.pk}/", {"name": "Renamed", "daily_budget_nanos": "2.50"})
    page = alice.get("/console/alice/settings/audit/", {"before": before} if before else {}).content.decode()
    assert "API key changed" in page
    said = [text for text in ("alice@example.org", "Renamed", "<ins>2.50 USD</ins>") if text in page]
    assert said == ["alice@example.org", "Renamed", "<ins>2.50 USD</ins>"]
    assert "Renamed" not in client_of(people.charlie).get("/console/charlie/settings/audit/").content.decode()


def test_its_address_is_its_own_to_change_and_what_was_typed_is_not_lost(alice: Client, people: People) -> None:
    page = "/console/alice/settings/address/"
    for slug in ("", "a", "-a", "a b", "charlie", "42", "erased-7", "a" * 51, "ä1"):
        answer = alice.post(page, {"slug": slug})
        assert answer.status_code == 422 and answer.context["form"].errors["slug"], slug
    assert alice.post(page, {"slug": " Acme-2 "}).headers["Location"] == "/console/acme-2/settings/"
    assert "It was alice before" in " ".join(alice.get("/console/acme-2/settings/address/").content.decode().split())
    assert alice.get("/console/").headers["Location"] == "/console/acme-2/"
    sent = alice.post(PAGE, {"name": "Acme"})
    assert (sent.status_code, sent.headers["Location"]) == (307, "/console/acme-2/settings/")
    refused = client_of(people.charlie).post("/console/charlie/settings/address/", {"slug": "alice"})
    assert "had it before" in refused.content.decode()


def rows_of(response: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in read_streamed(response).splitlines()]


def test_its_owner_exports_what_is_kept_and_the_audit_knows(alice: Client, people: People) -> None:
    people.give_bob(Role.ADMIN)
    page = "/console/alice/settings/export/"
    Organization.objects.filter(pk=people.organization.pk).update(status_reason="A note of ours", daily_budget_nanos=7)
    grant_credit(
        people.organization, amount_nanos=10**9, kind=CreditLot.Kind.PAID, reason="A reason of ours",
        actor="operator@example.org", idempotency_key="k",
    )  # fmt: skip
    assert client_of(people.bob).post(page).status_code == 403
    assert b"Download" in alice.get(page).content
    assert not AuditEntry.objects.filter(action="exported").exists()
    response = alice.post(page)
    rows = rows_of(response)
    assert response["Content-Disposition"].startswith('attachment; filename="alice-')
    assert {"organization", "members", "API keys", "credit"} <= {row["of"] for row in rows}
    told = json.dumps(rows)
    assert "bob@example.org" in told and '"daily_budget_usd": "0.000000007"' in told
    for word in ("of ours", "operator@example.org", "sha256", "charlie", people.secret):
        assert word not in told, word
    assert AuditEntry.objects.get(action="exported").actor_id == people.alice.pk
    assert "organization exported" in alice.get("/console/alice/settings/audit/").content.decode().lower()


def test_a_closed_organization_is_deleted_at_its_owners_word_which_can_be_taken_back(
    alice: Client, people: People
) -> None:
    page = "/console/alice/settings/delete/"
    answer = alice.post(page, {"name": "Alice & Co"})
    assert answer.status_code == 422 and "Close it" in answer.content.decode()
    close_organization(people.organization, name="Alice & Co", closed_by=people.alice)
    grant_credit(
        people.organization, amount_nanos=10**9, kind=CreditLot.Kind.PAID, reason="r", actor="a", idempotency_key="k"
    )
    assert "$1.00" in alice.get(page).content.decode()
    for wrong in ({"name": "Alice"}, {"name": "Alice & Co"}, {"name": "Alice", "gives_up_balance": "on"}):
        assert alice.post(page, wrong).status_code == 422
    assert not DeletionRequest.objects.exists()
    right = {"name": "Alice & Co", "gives_up_balance": "on"}
    assert alice.post(page, right).status_code == alice.post(page, right).status_code == 302
    assert DeletionRequest.objects.count() == 1, "Sent twice it is one."
    assert "will be deleted" in alice.get("/console/alice/settings/retention/").content.decode()
    assert "alice@example.org asked for it" in " ".join(alice.get(page).content.decode().split())
    assert alice.post(f"{page}withdraw/").status_code == alice.post(f"{page}withdraw/").status_code == 302
    assert DeletionRequest.objects.get().ended_by == "alice@example.org"
    assert "Delete after 30 days" in alice.get(page).content.decode()
