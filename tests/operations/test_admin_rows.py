"""The page of a row says amounts as money, and offers what its state leaves to do."""

import html
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib import admin
from django.test import Client

from accounts.keys import revoke_key
from accounts.models import Organization
from accounts.staff_roles import StaffRole
from billing.models import (
    Approval,
    LedgerEntry,
    PriceVersion,
    ReconciliationBreak,
    ReconciliationSource,
    Route,
    TopUp,
    Upstream,
    UsageQuarantine,
    UsageRecord,
)
from billing.money import say_usd
from operations.admin.reconciliation import WHAT_TO_DO
from tests.support.every_table import fill_every_table
from tests.support.operators import make_operator, operator_client
from tests.support.people import People, client_of


@pytest.fixture
def world(people: People) -> People:
    fill_every_table(people)
    return people


@pytest.fixture
def root(world: People) -> Client:
    return operator_client("root", is_superuser=True)


def page_of(client: Client, row: Any) -> Any:
    meta = row._meta
    return client.get(f"/admin/{meta.app_label}/{meta.model_name}/{row.pk}/change/", follow=True)


def read_only_fields(page: Any) -> Iterator[str]:
    for fieldset in page.context["adminform"]:
        for line in fieldset:
            for field in line:
                if field.is_readonly:
                    yield field.field["name"]


def buttons(client: Client, row: Any) -> set[str]:
    """Return the last part of the address of each button on the page of a row."""
    return {action["path"].split("/")[-2] for action in page_of(client, row).context["actions_detail"]}


@pytest.mark.long
@pytest.mark.parametrize("role", [*StaffRole, None])
def test_no_row_shows_the_bare_number_of_a_column(world: People, role: StaffRole | None) -> None:
    client = operator_client("walker", *([role] if role else []), is_superuser=role is None)
    looked_at = 0
    for model in admin.site._registry:
        page = page_of(client, model._default_manager.order_by("pk").first())
        if page.status_code == 200 and page.context and "adminform" in page.context:
            bare = [name for name in read_only_fields(page) if name.endswith(("_nanos", "_ms", "_ppm", "_picos"))]
            assert bare == [], model
            looked_at += 1
    assert looked_at > 20
    lot = page_of(client, world.organization.credit_lots.first())
    assert "$10.00" in lot.content.decode()


def test_a_list_says_no_number_of_results_that_nobody_counted(root: Client) -> None:
    page = html.unescape(root.get("/admin/billing/ledgertransaction/").content.decode())
    assert "10000" not in page
    assert "Show all" not in page


def test_lists_of_requests_name_organizations_and_keys(root: Client, world: People) -> None:
    for table in ("usagerecord", "failedrequest"):
        page = root.get(f"/admin/billing/{table}/", {"q": world.organization.slug})
        assert len(page.context["cl"].result_list) == 1
        text = html.unescape(page.content.decode())
        assert f">{world.organization.name}</a>" in text
        assert f"{world.key.name} …{world.key.last_four}" in text
        assert not root.get(f"/admin/billing/{table}/", {"q": world.charlies.slug}).context["cl"].result_list


def test_an_organization_offers_what_its_status_leaves(root: Client, world: People) -> None:
    always = {"look", "grant-credit", "adjust-balance", "credit-limit"}
    expected = {"active": {"suspend", "close"}, "suspended": {"reopen", "close"}, "closed": {"reopen"}}
    for status, offered in expected.items():
        Organization.objects.filter(pk=world.organization.pk).update(status=status)
        assert buttons(root, world.organization) & {"suspend", "reopen", "close"} == offered
        assert buttons(root, world.organization) >= always


def test_keys_upstreams_and_payments_offer_what_can_be_done(root: Client, world: People) -> None:
    assert buttons(root, world.key) == {"revoke", "leaked"}
    revoke_key(world.key, revoked_by=world.alice)
    assert buttons(root, world.key) == set()
    upstream = Upstream.objects.get(name="acme")
    assert "disable" in buttons(root, upstream)
    assert "enable" not in buttons(root, upstream)
    assert buttons(root, TopUp.objects.get(idempotency_key="waits")) == set()


def test_what_waits_is_decided_by_others_and_withdrawn_by_who_asked(world: People) -> None:
    approval = Approval.objects.get(state=Approval.State.WAITING)
    assert buttons(client_of(approval.asked_by), approval) == {"refuse"}
    assert buttons(operator_client("fritz", StaffRole.FINANCE), approval) == {"approve", "refuse"}
    assert buttons(operator_client("sam", StaffRole.SUPPORT), approval) == set()
    draft = PriceVersion.objects.get(approved_at=None)
    assert draft.drafted_by is not None
    assert "approve" not in buttons(client_of(draft.drafted_by), draft)
    assert "approve" in buttons(client_of(make_operator("gus", StaffRole.FINANCE)), draft)


def test_a_row_of_usage_leads_to_the_story_of_its_request(root: Client) -> None:
    record = UsageRecord.objects.get()
    answer = root.get(f"/admin/billing/usagerecord/{record.pk}/change/")
    assert answer["Location"] == f"/admin/requests/{record.request_id.hex}/"


def test_draining_an_upstream_says_which_others_have_no_credential_here(root: Client, settings: Any) -> None:
    sandbox, acme = Upstream.objects.exclude(name="acme").first(), Upstream.objects.get(name="acme")
    if sandbox is None:
        sandbox = Upstream.objects.create(name="other", protocol="messages", base_url="http://127.0.0.1:9")
    for route in acme.routes.all():
        Route.objects.get_or_create(
            language_model=route.language_model, upstream=sandbox, defaults={"upstream_model": "x"}
        )
    Upstream.objects.filter(pk=sandbox.pk).update(credential_env="OTHER_API_KEY", is_sandbox=False)
    page = root.get(f"/admin/billing/upstream/{acme.pk}/disable/").content.decode()
    assert f"no credential is set here for {sandbox.name}" in page


def test_what_waits_is_one_click_away(root: Client, world: People) -> None:
    form = {"amount_nanos": "900", "kind": "paid", "reason": "r", "form_id": "3" * 32}
    page = root.post(f"/admin/accounts/organization/{world.organization.pk}/grant-credit/", form, follow=True)
    approval = Approval.objects.latest("pk")
    assert f'href="/admin/billing/approval/{approval.pk}/change/">#{approval.pk}</a>). ' in page.content.decode()


def test_what_has_not_become_of_a_row_is_not_shown(root: Client, world: People) -> None:
    """A page of dashes hides what there is."""
    draft = PriceVersion.objects.get(approved_at=None)
    rows = (draft, draft.language_model.price_versions.exclude(pk=draft.pk).get(), UsageQuarantine.objects.get())
    shown = [set(read_only_fields(page_of(root, row))) for row in rows]
    of_decision = {"approved_by", "decided_by", "approved_at", "discarded_by", "discarded_at", "discard_reason"}
    assert shown[0] & of_decision == set()
    assert shown[1] & of_decision == {"approved_by", "approved_at"}
    assert shown[2].isdisjoint({"resolved_at", "resolved_by", "resolution", "resolution_reason"})


def test_a_break_says_what_differs_and_what_to_do(root: Client, world: People) -> None:
    row = ReconciliationBreak.objects.get()
    for source in ReconciliationSource:
        ReconciliationBreak.objects.update(source=source)
        page = html.unescape(page_of(root, row).content.decode())
        assert row.detail in page
        assert WHAT_TO_DO[source] in page
    assert row.detail in html.unescape(root.get("/admin/billing/reconciliationbreak/").content.decode())
    assert "not JSON" in root.get("/admin/billing/usagequarantine/").content.decode()


def test_upstreams_without_a_credential_here_are_not_said_to_be_complete(root: Client, monkeypatch: Any) -> None:
    Upstream.objects.filter(name="acme").update(credential_env="ACME_API_KEY", catalog_file="default.toml")
    pk = Upstream.objects.get(name="acme").pk
    assert "ACME_API_KEY, not set here" in root.get("/admin/billing/upstream/").content.decode()
    monkeypatch.setenv("ACME_API_KEY", "secret")
    page = root.get("/admin/billing/upstream/").content.decode()
    assert "ACME_API_KEY" in page
    assert "not set here" not in page
    assert (
        "A load of default.toml enables it again" in root.get(f"/admin/billing/upstream/{pk}/disable/").content.decode()
    )


def test_the_dashboard_leads_to_what_waits_and_nothing_else(root: Client, world: People) -> None:
    page = root.get("/admin/").content.decode()
    for address, count in (
        ("/admin/billing/priceversion/?state=draft", 1),
        ("/admin/billing/approval/?state__exact=waiting", 1),
        ("/admin/billing/usagequarantine/?resolved_at__isempty=1", 1),
        ("/admin/billing/reconciliationbreak/?state__exact=open", 1),
    ):
        assert f'href="{address}"' in page
        assert len(root.get(address).context["cl"].result_list) == count


def test_a_column_writes_money_that_is_gone_as_every_page_does(root: Client) -> None:
    gone = LedgerEntry.objects.filter(amount_nanos__lt=0).latest("pk")
    page = html.unescape(root.get("/admin/billing/ledgerentry/").content.decode())
    assert say_usd(gone.amount_nanos) in page
    assert "-$" not in page
