"""The operators' admin: it opens, it changes limits only through the domain, and the ledger stays read only."""

import html
import re
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from django.apps import apps
from django.contrib import admin
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import reverse

from accounts.models import AdmissionChange, ApiKey, Member, Organization, User
from accounts.staff_roles import StaffRole, permissions_of
from billing.admission.redis_keys import shard_keys_of
from billing.catalog.price_versions import PriceDraft, approve_price_version, draft_price
from billing.models import (
    CreditLot,
    LedgerTransaction,
    OrganizationBalance,
    PriceVersion,
    Upstream,
    UsageQuarantine,
    UsageRecord,
)
from tests.support.operators import operator_client
from tests.support.people import People, client_of, make_person
from tests.support.settled_usage import billed_event, failed_event, sell_model, settle

OURS = {"accounts", "billing"}
READ_ONLY = {
    "admissionchange",
    "creditlot",
    "failedrequest",
    "ledgeraccount",
    "ledgerentry",
    "ledgertransaction",
    "priceversion",
    "usagequarantine",
    "usagerecord",
}


@pytest.fixture
def operator(people: People) -> Client:
    person = make_person("operator", is_staff=True)
    person.is_superuser = True
    person.save()
    return client_of(person)


def registered() -> list[tuple[str, str]]:
    return [(model._meta.app_label, model._meta.model_name or "") for model in admin.site._registry]


def url(model: str, page: str, *args: Any) -> str:
    app = next(app for app, name in registered() if name == model)
    return reverse(f"admin:{app}_{model}_{page}", args=args)


@pytest.fixture
def something_of_everything(people: People) -> None:
    version = sell_model()
    settle([billed_event(people.key, version), failed_event(people.key, version)])
    UsageQuarantine.objects.create(
        organization=people.organization, shard=1, stream_id="1-1", raw_event=b"\xff{}", reason="not JSON"
    )


@pytest.mark.usefixtures("something_of_everything")
def test_every_table_opens_and_so_does_its_first_row(operator: Client) -> None:
    for app, model in registered():
        response = operator.get(url(model, "changelist"))
        assert response.status_code == 200, model
        row = apps.get_model(app, model)._default_manager.order_by("pk").first()
        if row is not None:
            assert operator.get(url(model, "change", row.pk), follow=True).status_code == 200, model


@pytest.mark.usefixtures("something_of_everything")
def test_rows_open_for_every_staff_role_that_may_look_at_them() -> None:
    for role in StaffRole:
        client = operator_client(role.value, role)
        opened = 0
        for app, model in registered():
            row = apps.get_model(app, model)._default_manager.order_by("pk").first()
            if row is not None and f"{app}.view_{model}" in permissions_of(role):
                assert client.get(url(model, "change", row.pk), follow=True).status_code == 200, (role, model)
                opened += 1
        assert opened > 10


def test_members_of_organizations_do_not_get_in(people: People) -> None:
    response = client_of(people.alice).get("/admin/")
    assert response.status_code == 302
    assert "/admin/login/" in response["Location"]


@pytest.mark.usefixtures("something_of_everything")
def test_the_ledger_prices_and_usage_can_only_be_looked_at(operator: Client) -> None:
    names = {model for app, model in registered() if app in OURS}
    assert names >= READ_ONLY
    for app, model in registered():
        if model not in READ_ONLY:
            continue
        if model != "priceversion":  # Its page compares with a price list, and makes drafts.
            assert operator.get(url(model, "add")).status_code == 403, model
            assert operator.post(url(model, "add"), {}).status_code == 403, model
        row = apps.get_model(app, model)._default_manager.order_by("pk").first()
        if row is not None:
            assert operator.post(url(model, "delete", row.pk), {"post": "yes"}).status_code == 403, model
            assert operator.post(url(model, "change", row.pk), {}).status_code == 403, model


@pytest.mark.parametrize("model", ["organization", "apikey", "user", "languagemodel", "upstream"])
def test_what_others_name_is_never_deleted(operator: Client, people: People, model: str) -> None:
    pk = {"organization": people.organization.pk, "apikey": people.key.pk, "user": people.alice.pk}.get(model, 1)
    assert operator.post(url(model, "delete", pk), {"post": "yes"}).status_code == 403


def organization_form(organization: Organization, **values: Any) -> dict[str, Any]:
    inline = {"members-TOTAL_FORMS": "0", "members-INITIAL_FORMS": "0"}
    return {"name": organization.name, "slug": organization.slug, "status": "active", **inline, **values}


def test_limits_of_an_organization_reach_redis(operator: Client, people: People, redis_client: redis.Redis) -> None:
    values = organization_form(people.organization, credit_limit_nanos="12.5", requests_per_minute="90")
    response = operator.post(url("organization", "change", people.organization.pk), values)
    assert response.status_code == 302
    people.organization.refresh_from_db()
    assert people.organization.credit_limit_nanos == 0  # It has a button of its own.
    assert people.organization.requests_per_minute == 90
    assert people.organization.config_version == 2
    org = shard_keys_of(people.organization.pk).org(people.organization.pk)
    assert redis_client.hmget(org, "limit", "requests_per_minute", "status") == [b"0", b"90", b"active"]
    assert not AdmissionChange.objects.exists()


def test_saving_without_a_change_changes_nothing(operator: Client, people: People) -> None:
    values = organization_form(people.organization, credit_limit_nanos="0.00")
    operator.post(url("organization", "change", people.organization.pk), values)
    people.organization.refresh_from_db()
    assert people.organization.config_version == 1


def test_an_organization_is_made_with_a_member(operator: Client, people: People) -> None:
    values = {
        "name": "New",
        "slug": "new",
        "status": "active",
        "members-TOTAL_FORMS": "1",
        "members-INITIAL_FORMS": "0",
        "members-0-user": str(people.charlie.pk),
        "members-0-role": "owner",
    }
    response = operator.post(url("organization", "add"), values)
    assert response.status_code == 302
    organization = Organization.objects.get(slug="new")
    assert Member.objects.filter(organization=organization, user=people.charlie, role="owner").exists()


def test_limits_of_a_key_reach_redis(operator: Client, people: People, redis_client: redis.Redis) -> None:
    values = {"name": "Backend", "daily_budget_nanos": "1.25", "expires_at_0": "", "expires_at_1": ""}
    response = operator.post(url("apikey", "change", people.key.pk), values)
    assert response.status_code == 302
    people.key.refresh_from_db()
    assert (people.key.daily_budget_nanos, people.key.config_version) == (1_250_000_000, 2)
    assert redis_client.hget(shard_keys_of(people.organization.pk).key(people.key.pk), "daily_budget") == b"1250000000"


def test_no_page_shows_a_key(operator: Client, people: People) -> None:
    page = operator.get(url("apikey", "change", people.key.pk)).content.decode()
    assert people.secret not in page
    assert people.key.secret_sha256.hex() not in page
    assert operator.get(url("apikey", "add")).status_code == 403


def test_revoking_a_key_asks_first(operator: Client, people: People, redis_client: redis.Redis) -> None:
    page = url("apikey", "change", people.key.pk).replace("/change/", "/revoke/")
    assert operator.get(page).status_code == 200
    people.key.refresh_from_db()
    assert not people.key.is_revoked
    operator.post(page)
    assert redis_client.hget(shard_keys_of(people.organization.pk).key(people.key.pk), "status") == b"revoked"
    assert ApiKey.objects.get(pk=people.key.pk).revoked_by == User.objects.get(email="operator@example.org")


def grant_form(**values: Any) -> dict[str, Any]:
    return {"amount_nanos": "25", "kind": "paid", "reason": "Wire 4711", "form_id": str(uuid.uuid4()), **values}


def test_granting_credit_needs_a_reason_and_posts_once(
    operator: Client, people: People, redis_client: redis.Redis
) -> None:
    page = url("organization", "change", people.organization.pk).replace("/change/", "/grant-credit/")
    assert 'name="reason"' in operator.get(page).content.decode()
    assert operator.post(page, grant_form(reason="")).status_code == 422
    assert not LedgerTransaction.objects.exists()

    form = grant_form()
    assert operator.post(page, form).status_code == 302
    operator.post(page, form)
    transaction = LedgerTransaction.objects.get()
    assert (transaction.actor, transaction.reason, transaction.kind) == ("operator@example.org", "Wire 4711", "top_up")
    assert OrganizationBalance.objects.get(organization=people.organization).posted_nanos == 25 * 10**9
    org = shard_keys_of(people.organization.pk).org(people.organization.pk)
    assert redis_client.hget(org, "credit") == b"25000000000"
    assert operator.post(page, {**form, "amount_nanos": "26"}).status_code == 422


@pytest.mark.parametrize(
    "values", [{"amount_nanos": "0"}, {"amount_nanos": "99999999999"}, {"expires_on": "2020-01-01"}, {"kind": "odd"}]
)
def test_a_grant_that_makes_no_sense_is_told(operator: Client, people: People, values: dict[str, str]) -> None:
    page = url("organization", "change", people.organization.pk).replace("/change/", "/grant-credit/")
    assert operator.post(page, grant_form(**values)).status_code == 422
    assert not CreditLot.objects.exists()


def test_operators_do_only_what_they_are_permitted(people: People) -> None:
    helper = make_person("helper", is_staff=True)
    helper.user_permissions.add(Permission.objects.get(codename="view_organization"))
    page = url("organization", "change", people.organization.pk)
    client = client_of(helper)
    assert client.get(page).status_code == 200
    assert client.post(page.replace("/change/", "/grant-credit/"), grant_form()).status_code == 403
    assert client.post(page, organization_form(people.organization, credit_limit_nanos="9")).status_code == 403
    revoke = url("apikey", "change", people.key.pk).replace("/change/", "/revoke/")
    assert client.post(revoke).status_code == 403
    people.key.refresh_from_db()
    assert not people.key.is_revoked


def test_prices_are_approved_by_somebody_else(operator: Client, people: People) -> None:
    model = sell_model().language_model
    tiers = {"input": ((0, 5),), "output": ((0, 6),)}
    now = datetime.now(UTC)
    draft = PriceDraft(effective_from=now + timedelta(days=1), source="s", source_date=now.date(), tiers=tiers)
    own = draft_price(model, draft, created_by="operator@example.org")
    others = draft_price(model, draft, created_by="somebody@example.org")
    for version in (own, others):
        page = url("priceversion", "change", version.pk).replace("/change/", "/approve/")
        assert operator.get(page).status_code == 200
        operator.post(page)
    assert PriceVersion.objects.get(pk=own.pk).approved_at is None
    assert PriceVersion.objects.get(pk=others.pk).approved_by == "operator@example.org"


@pytest.mark.usefixtures("something_of_everything")
def test_quarantine_is_resolved_once(operator: Client) -> None:
    row = UsageQuarantine.objects.get()
    page = url("usagequarantine", "change", row.pk)
    assert "\\xff{}" in operator.get(page).content.decode()
    settle_it, discard_it = page.replace("/change/", "/settle/"), page.replace("/change/", "/discard/")
    assert operator.get(discard_it).status_code == operator.get(settle_it).status_code == 200
    assert operator.post(discard_it, {"reason": ""}).status_code == 422
    assert "still refused" in operator.post(settle_it, {"reason": "fixed"}, follow=True).content.decode()
    assert operator.post(discard_it, {"reason": "written by hand"}).status_code == 302
    row.refresh_from_db()
    first = row.resolved_at
    assert first is not None
    assert (row.resolved_by, row.resolution, row.resolution_reason) == (
        "operator@example.org",
        "discarded",
        "written by hand",
    )
    assert "was resolved before" in operator.post(discard_it, {"reason": "again"}, follow=True).content.decode()
    row.refresh_from_db()
    assert (row.resolved_at, row.resolution_reason) == (first, "written by hand")


@pytest.mark.usefixtures("something_of_everything")
def test_the_dashboard_shows_how_things_are(operator: Client, people: People) -> None:
    context = operator.get("/admin/").context
    assert "in quarantine" in [line.name for line in context["urgent"]]
    now = {line.name: line.value for line in context["now"]}
    assert (now["in quarantine"], now["settlement lag"]) == (1, 0.0)
    assert now["unpublished changes"] == AdmissionChange.objects.count()


def test_the_dashboard_opens_without_redis(operator: Client, redis_away: None) -> None:
    assert "Redis cannot be used" in operator.get("/admin/").content.decode()


def test_a_login_is_made_by_email(operator: Client) -> None:
    password = "a long enough password"
    values = {"email": "erin@example.org", "usable_password": "true", "password1": password, "password2": password}
    response = operator.post(url("user", "add"), values)
    assert response.status_code == 302
    assert User.objects.get(email="erin@example.org").check_password(password)


def test_a_request_is_refunded_once_for_a_reason(operator: Client, people: People) -> None:
    settle([billed_event(people.key, sell_model())])
    record = UsageRecord.objects.get()
    page = url("usagerecord", "change", record.pk).replace("/change/", "/refund/")
    form_id = str(uuid.uuid4())
    values = {"amount_nanos": "0.001", "reason": "A slow answer", "form_id": form_id}
    assert operator.get(page).status_code == 200
    assert operator.post(page, {**values, "reason": ""}).status_code == 422
    shown = operator.post(page, values)
    assert shown.status_code == 200
    text = " ".join(html.unescape(shown.content.decode()).split())
    for line in ("Revenue: -0.001 USD", "Receivable: 0.001 USD", "The balance would be"):
        assert line in text
    assert not LedgerTransaction.objects.filter(kind="refund").exists()
    values["shown"] = shown.context["form"]["shown"].value()
    other = operator.post(page, {**values, "amount_nanos": "0.0005"})
    assert other.status_code == 200, "Another amount is shown first, too."
    for _ in range(2):
        assert operator.post(page, values).status_code == 302
    assert OrganizationBalance.objects.get().posted_nanos == 1_000_000 - record.cost_nanos
    too_much = operator.post(page, {**values, "amount_nanos": "5", "form_id": str(uuid.uuid4())})
    assert "cannot be refunded" in too_much.content.decode()
    refund = LedgerTransaction.objects.get(kind="refund")
    assert (refund.actor, refund.reason) == ("operator@example.org", "A slow answer")
    member = client_of(people.alice)
    receipt = member.get(f"/console/alice/usage/{record.pk.hex}/").content.decode()
    assert "Paid in the end" in receipt
    statement = member.get(f"/console/alice/billing/transactions/{refund.pk}/").content.decode()
    assert record.pk.hex in statement


def test_a_price_of_the_future_is_seen_to_be_scheduled(operator: Client) -> None:
    version = sell_model()
    future = draft_price(
        version.language_model,
        PriceDraft(
            datetime.now(UTC) + timedelta(days=3),
            "a test",
            version.source_date,
            {"input": ((0, 1),), "output": ((0, 1),)},
        ),
        created_by="alice",
    )
    list_url = url("priceversion", "changelist")
    cell = re.compile(r"<td[^>]*field-state[^>]*>\s*(\w+)")
    assert sorted(cell.findall(operator.get(list_url).content.decode())) == ["Approved", "Draft"]
    approve_price_version(future, approved_by="bob")
    assert sorted(cell.findall(operator.get(list_url).content.decode())) == ["Approved", "Scheduled"]


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        ("profile", '{"refuse_feilds": ["speed"]}', "refuse_feilds: no such setting."),
        ("profile", '["speed"]', "Enter a JSON object."),
        ("base_url", "ftp://acme.example", "Enter an http(s) address"),
        ("base_url", "https://me:word@acme.example", "without a password."),
        ("credential_env", "sk-1234", "never the secret itself."),
    ],
)
def test_an_upstream_takes_what_the_catalog_takes(operator: Client, field: str, value: str, complaint: str) -> None:
    values = {"name": "acme", "protocol": "messages", "base_url": "https://acme.example", "profile": "{}"}
    response = operator.post(url("upstream", "add"), {**values, field: value})
    assert complaint in response.content.decode()
    assert not Upstream.objects.filter(name="acme").exists()
    assert operator.post(url("upstream", "add"), values).status_code == 302
