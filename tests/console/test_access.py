"""Tenancy and roles, for every URL that names an organization, so that a new page cannot be forgotten here."""

import uuid
from typing import Any

import pytest
from django.db import transaction
from django.test import Client
from django.urls import reverse

from accounts.invitations import invite
from accounts.keys import create_key
from accounts.models import ApiKey, Member, Role
from billing.documents.invoices import close_month
from billing.models import Document, LedgerTransaction
from billing.payments.orders import place_order
from billing.webhooks.endpoints import add_endpoint
from billing.webhooks.queue import queue_test
from tests.billing.documents.months import SEPTEMBER, Customer, at
from tests.billing.ledger_factory import USD
from tests.support.people import People, client_of
from tests.support.roles import pages, who
from tests.support.settled_usage import billed_event, sell_model, settle

# What each page needs, written out a second time in docs/roles.md: the views are judged by it, not by themselves.
WHO = who()
# What each page's address names beside the organization. A month is everybody's.
ROWS = {name for name, (address, _) in pages().items() if address.count("<") > 1 and "<month>" not in address}

# What these answer to whoever may, when nothing is sent.
NOTHING_SENT = {("member_role", 403), ("playground_secret", 404), ("requests_live", 286), ("overview_steps", 286)}


@pytest.fixture
def urls(people: People) -> dict[str, str]:
    """A URL of Alice's organization for every route, with ids that exist there."""
    version = sell_model()
    customer = Customer(people.organization)
    customer.give(20 * USD, at(9, 1))
    customer.use(version, at(9, 2), input_tokens=100_000, output_tokens=0)
    close_month(people.organization, SEPTEMBER)
    document = Document.objects.get(kind="invoice")
    event = billed_event(people.key, version)
    settle([event])
    bob = Member.objects.get(user=people.bob, organization=people.organization)
    bobs_key, _ = create_key(people.organization, name="Bob's", created_by=people.bob)
    invitation, _ = invite(people.organization, email="v@example.org", role=Role.VIEWER, invited_by=people.alice)
    endpoint, _ = add_endpoint(people.organization, url="https://example.org/", created_by=people.alice)
    delivery = queue_test(endpoint)
    top_up = place_order(
        people.organization, amount_nanos=10**10, provider="sandbox", idempotency_key="k", actor="alice@example.org"
    )
    ids: dict[str, dict[str, Any]] = {
        "top_up": {"top_up_id": top_up.pk},
        "document": {"label": document.label},
        "document_file": {"label": document.label, "kind": "json"},
        "statement": {"month": str(SEPTEMBER)},
        "statement_day": {"month": str(SEPTEMBER), "day": 2},
        "statement_file": {"month": str(SEPTEMBER), "kind": "json"},
        "statement_usage": {"month": str(SEPTEMBER)},
        "receipt": {"request_id": event.request_id},
        "transaction": {"transaction_id": LedgerTransaction.objects.latest("id").pk},
        "budget": {"scope": "key", "holder": bobs_key.pk},
        **{
            name: {"scope": "member", "holder": people.bob.pk}
            for name in ("budget_remove", "budget_override", "budget_override_end")
        },
        **{name: {"key_id": bobs_key.pk} for name in addresses_with("<key_id>")},
        **{name: {"invitation_id": invitation.pk} for name in addresses_with("<invitation_id>")},
        "member_role": {"member_id": bob.pk},
        "member_remove": {"member_id": bob.pk},
        **{name: {"endpoint_id": endpoint.pk} for name in addresses_with("<endpoint_id>")},
        **{name: {"delivery_id": delivery.pk} for name in addresses_with("<delivery_id>")},
    }
    return {name: reverse(name, kwargs={"slug": "alice", **ids.get(name, {})}) for name in WHO}


def test_a_stranger_finds_nothing(people: People, urls: dict[str, str]) -> None:
    client = client_of(people.charlie)
    for name in sorted(WHO):
        for response in (client.get(urls[name]), client.post(urls[name])):
            assert response.status_code in {404, 405}, name
            assert "Alice" not in response.content.decode(), name
        assert read_or_write(client, urls[name]).status_code == 404, name


def test_nobody_is_sent_to_sign_in(people: People, urls: dict[str, str]) -> None:
    for name in sorted(WHO):
        response = read_or_write(Client(), urls[name])
        assert response.status_code == 302, name
        assert response["Location"].startswith("/accounts/login/?next="), name


def test_what_is_typed_into_any_form_waits_for_whoever_signs_in_again(people: People, urls: dict[str, str]) -> None:
    forms = [name for name in sorted(WHO) if client_of(people.charlie).post(urls[name]).status_code != 405]
    assert len(forms) > 25
    for name in forms:
        browser = Client()
        sent = browser.post(urls[name], {"note": "typed before"})
        assert sent["Location"] == "/accounts/login/?next=/console/alice/kept/", name
        assert "What you typed is kept" in browser.get(sent["Location"]).content.decode(), name
        browser.force_login(people.alice, backend="django.contrib.auth.backends.ModelBackend")
        shown = browser.get("/console/alice/kept/").content.decode()
        assert "typed before" in shown and f'action="{urls[name]}"' in shown, name


def test_a_button_of_whoever_must_sign_in_again_leads_back_to_its_page(people: People, urls: dict[str, str]) -> None:
    """There is nothing to keep, and the address of the button shows nothing."""
    for page, back in {
        "http://testserver/console/alice/keys/?q=x": "/console/alice/keys/%3Fq%3Dx",
        "https://elsewhere.example/console/alice/keys/": "/console/alice/",
        "http://testserver/console/charlie/": "/console/alice/",
    }.items():
        sent = Client().post(urls["key_switch"], headers={"referer": page})
        assert sent["Location"] == f"/accounts/login/?next={back}", page
    opened = client_of(people.alice).get(urls["key_switch"])
    assert (opened.status_code, opened["Allow"]) == (405, "POST")
    assert "There is nothing to open here" in opened.content.decode()


@pytest.mark.parametrize("role", list(Role))
def test_roles_open_what_they_should(people: People, urls: dict[str, str], role: Role) -> None:
    people.give_bob(role)
    client = client_of(people.bob)
    for name in sorted(WHO):
        with transaction.atomic():
            status = read_or_write(client, urls[name]).status_code
            transaction.set_rollback(True)  # What one page did, the next one does not see.
        if role in WHO[name]:
            assert status in {200, 302, 422} or (name, status) in NOTHING_SENT, name
        else:
            assert status == 403, name


def test_a_viewer_writes_nothing(people: People, urls: dict[str, str]) -> None:
    def state() -> list[Any]:
        return [ApiKey.objects.filter(revoked_at=None).count(), *sorted(Member.objects.values_list("pk", "role"))]

    before = state()
    client = client_of(people.bob)
    values = {"name": "Mine", "form_id": uuid.uuid4().hex, "role": "owner", "email": people.charlie.email}
    for name in sorted(WHO.keys() - {"member_leave"}):  # That is all that a viewer can do.
        assert client.post(urls[name], values).status_code in {403, 405}, name
    assert state() == before


def test_ids_of_another_organization_are_unknown_in_ones_own(people: People, urls: dict[str, str]) -> None:
    """Charlie owns an organization and asks for Alice's rows under his own name."""
    client = client_of(people.charlie)
    assert len(ROWS) > 10
    for name in sorted(ROWS):
        url = urls[name].replace("/console/alice/", "/console/charlie/")
        for response in (client.get(url), client.post(url, {"role": "viewer"})):
            assert response.status_code in {404, 405}, name
        assert read_or_write(client, url).status_code == 404, name
    assert not ApiKey.objects.exclude(revoked_at=None).exists()


def test_filters_do_not_reach_across(people: People, urls: dict[str, str]) -> None:
    theirs, _ = create_key(people.charlies, name="Charlies", created_by=people.charlie)
    mine = client_of(people.charlie)
    response = mine.get(reverse("usage", kwargs={"slug": "charlie"}), {"key": people.key.pk})
    assert response.status_code == 422
    assert "Backend" not in response.content.decode()
    assert mine.get(reverse("usage", kwargs={"slug": "charlie"}), {"key": theirs.pk}).status_code == 200
    for name in ("usage_export", "usage_csv", "requests"):
        response = mine.get(reverse(name, kwargs={"slug": "charlie"}), {"key": people.key.pk})
        assert response.status_code == 422, name
        assert "Backend" not in response.content.decode(), name


def read_or_write(client: Client, url: str) -> Any:
    """Open a page, or do what can only be done."""
    response = client.get(url)
    return client.post(url, {}) if response.status_code == 405 else response


def addresses_with(argument: str) -> list[str]:
    return [name for name, (address, _) in pages().items() if argument in address]
