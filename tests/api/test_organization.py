"""What a management key does beside keys: members, budgets, top-ups, documents, webhooks, alerts, activity."""

import re
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from django.core import mail
from pytest_django.fixtures import Settings

from accounts.invitations import invite
from accounts.keys import create_key
from accounts.models import Invitation, Member, Role
from accounts.organizations import change_organization
from billing.alerts.book import raise_alert
from billing.documents.closing import close_everywhere
from billing.models import Alert, Document, TopUp, WebhookDelivery
from billing.money import format_usd
from billing.webhooks.endpoints import add_endpoint
from billing.webhooks.queue import queue_test
from tests.api.manager import Manager
from tests.api.test_roles import documented_routes
from tests.billing.documents.months import SEPTEMBER, Customer, at
from tests.billing.ledger_factory import USD
from tests.console.test_top_ups import sandbox, sandbox_process
from tests.support.payment_sandbox import PaymentSandbox
from tests.support.people import People
from tests.support.settled_usage import billed_event, sell_model, settle

__all__ = ["sandbox", "sandbox_process"]  # Fixtures that are used here, too.


@pytest.fixture
def manager(people: People) -> Manager:
    return Manager(people.organization, person=people.alice)


def test_budgets_are_set_as_a_whole(manager: Manager) -> None:
    shown = manager.do("PUT", "budgets", {"daily": "2", "monthly": "30.5"})["data"]
    assert [shown[period]["limit"] for period in ("daily", "weekly", "monthly")] == ["2.00", None, "30.50"]
    assert manager.get("budgets")["data"] == shown
    assert manager.do("PUT", "budgets", {})["data"]["daily"]["limit"] is None
    assert manager.refusal("PUT", "budgets", {"yearly": "1"}) == (400, "invalid_parameters")


def test_limits_say_what_is_in_force_and_how_near_it_is(manager: Manager, people: People, settings: Settings) -> None:
    change_organization(people.organization, fields={"input_tokens_per_minute": 5000})
    shown = manager.get("limits")["data"]
    assert (shown["requests_per_minute"], shown["input_tokens_per_minute"]) == (None, 5000)
    assert shown["in_force"] == {
        "requests_per_minute": {"limit": settings.DEFAULT_REQUESTS_PER_MINUTE, "used": 0},
        "input_tokens_per_minute": {"limit": 5000, "used": 0},
        "output_tokens_per_minute": None,
        "concurrent_requests": {"limit": settings.DEFAULT_CONCURRENT_REQUESTS, "used": 0},
    }
    assert shown["is_current"]


def test_members_are_invited_changed_and_removed(manager: Manager, people: People) -> None:
    bob = Member.objects.get(user=people.bob, organization=people.organization)
    path = f"members/member_{bob.pk}"
    assert [member["email"] for member in manager.get("members")["data"]] == ["bob@example.org", "alice@example.org"]
    assert manager.do("PUT", path, {"role": "developer"})["data"]["role"] == "developer"
    alice = Member.objects.get(user=people.alice, organization=people.organization)
    assert manager.refusal("PUT", f"members/{alice.pk}", {"role": "viewer"}) == (409, "last_owner")
    assert manager.refusal("DELETE", f"members/{alice.pk}") == (409, "last_owner")
    assert manager.do("DELETE", path)["deleted"]
    assert manager.refusal("GET", path) == (404, "not_found")
    invited = manager.do("POST", "invitations", {"email": "New@Example.org", "role": "viewer"})["data"]
    assert (invited["email"], invited["state"], invited["invited_by"]) == (
        "new@example.org",
        "open",
        "alice@example.org",
    )
    assert mail.outbox[-1].to == ["new@example.org"]
    assert manager.refusal("POST", "invitations", {"email": "alice@example.org", "role": "viewer"}) == (
        409, "already_member",
    )  # fmt: skip
    assert manager.do("DELETE", f"invitations/{invited['id']}")["data"]["state"] == "withdrawn"
    assert [row["state"] for row in manager.get("invitations")["data"]] == ["withdrawn"]


@pytest.mark.parametrize(
    ("fields", "taker", "status", "owner"),
    [({}, "", "disabled", "bob"), ({"keys": "keep"}, "", "active", "bob"), ({}, "alice", "active", "alice")],
)
def test_a_role_without_keys_ends_keeps_or_hands_over_what_its_member_owns(
    manager: Manager, people: People, fields: dict[str, str], taker: str, status: str, owner: str
) -> None:
    people.give_bob(Role.DEVELOPER)
    key, _ = create_key(people.organization, name="Bob's", created_by=people.bob)
    alice, bob = (Member.objects.get(user=who, organization=people.organization) for who in (people.alice, people.bob))
    path = f"members/member_{bob.pk}"
    assert manager.do("PUT", path, {"role": "admin", **fields})["data"]["role"] == "admin"  # It has keys: they stay.
    assert manager.refusal("PUT", f"{path}?keys_go_to=member_{bob.pk}", {"role": "viewer"})[0] == 400
    manager.do("PUT", f"{path}?keys_go_to=member_{alice.pk}" if taker else path, {"role": "viewer", **fields})
    key.refresh_from_db()
    assert (key.status, key.owner) == (status, getattr(people, owner))


def test_only_an_owners_key_makes_or_touches_owners(people: People) -> None:
    admin = Manager(people.organization, role=Role.ADMIN, person=people.alice)
    alice = Member.objects.get(user=people.alice, organization=people.organization)
    bob = Member.objects.get(user=people.bob, organization=people.organization)
    for method, path, body in (
        ("PUT", f"members/{alice.pk}", {"role": "viewer"}),
        ("DELETE", f"members/{alice.pk}", None),
        ("PUT", f"members/{bob.pk}", {"role": "owner"}),
        ("POST", "invitations", {"email": "x@example.org", "role": "owner"}),
    ):
        assert admin.refusal(method, path, body) == (403, "permission_required")
    waiting, _ = invite(people.organization, email="y@example.org", role=Role.OWNER, invited_by=people.alice)
    lower = {"email": "Y@example.org", "role": "viewer"}
    assert admin.refusal("POST", "invitations", lower) == (403, "permission_required")
    waiting.refresh_from_db()
    assert waiting.withdrawn_at is None
    waiting.delete()
    nobodys = Manager(people.organization)
    assert nobodys.refusal("POST", "invitations", {"email": "x@example.org", "role": "viewer"}) == (
        409, "nobody_invites",
    )  # fmt: skip
    assert not Invitation.objects.exists()


def test_a_top_up_is_ordered_once_and_leads_to_its_payment_page(
    manager: Manager, sandbox: PaymentSandbox, people: People
) -> None:
    sent = {"amount": "25"}
    first = manager.do("POST", "top-ups", sent, **{"idempotency-key": "jan"})["data"]
    again = manager.do("POST", "top-ups", sent, **{"idempotency-key": "jan"})["data"]
    assert first == again
    assert (first["amount"], first["state"], first["currency"]) == ("25.00", "pending", "USD")
    assert first["origin"] == "api"
    assert first["pay_url"].startswith("http")
    assert manager.get(f"top-ups/{first['id']}")["data"] == first
    assert manager.refusal("POST", "top-ups", {"amount": "26"}, **{"idempotency-key": "jan"}) == (
        409, "idempotency_key_reused",
    )  # fmt: skip
    for amount in ("0", "1", "25.001", "999999999"):
        assert manager.refusal("POST", "top-ups", {"amount": amount}) == (400, "invalid_parameters")
    assert TopUp.objects.count() == 1
    assert TopUp.objects.get().created_by == people.alice.email
    TopUp.objects.update(state=TopUp.State.FAILED, failed_at=datetime.now(UTC), failure="It bounced.")
    shown = manager.get("top-ups")["data"][0]
    assert (shown["state"], shown["failure"], shown["pay_url"]) == ("failed", "It bounced.", None)


def test_without_a_provider_nothing_is_ordered(manager: Manager, settings: Settings) -> None:
    settings.PAYMENT_PROVIDER = "none"
    assert manager.refusal("POST", "top-ups", {"amount": "25"}) == (409, "payments_not_set_up")


def test_automatic_top_up_needs_a_card(manager: Manager) -> None:
    wanted = {
        "is_on": False,
        "threshold": "10",
        "amount": "50",
        "max_per_day": "100",
        "max_per_month": "500",
        "max_count_per_day": 2,
        "max_count_per_month": 10,
    }
    shown = manager.do("PUT", "automatic-top-up", wanted)["data"]
    assert (shown["threshold"], shown["max_count_per_month"], shown["card"]) == ("10.00", 10, None)
    assert manager.refusal("PUT", "automatic-top-up", {**wanted, "is_on": True}) == (409, "invalid_automatic_top_up")
    assert manager.refusal("PUT", "automatic-top-up", {"is_on": False}) == (400, "invalid_parameters")
    assert manager.get("automatic-top-up")["data"] == shown


def test_documents_are_listed_read_and_set(people: People) -> None:
    manager = Manager(people.organization, role=Role.BILLING)
    customer = Customer(people.organization)
    customer.give(20 * USD, at(9, 1))
    customer.use(sell_model(), at(9, 2), input_tokens=100_000, output_tokens=0)
    list(close_everywhere(SEPTEMBER))
    invoice = Document.objects.get(kind="invoice")
    listed = manager.get("documents?kind=invoice")["data"]
    assert [row["id"] for row in listed] == [invoice.label]
    assert listed[0]["month"] == str(SEPTEMBER)
    body = manager.get(f"documents/{invoice.label}")["data"]
    assert (body["number"], body["gross"]) == (invoice.label, listed[0]["gross"])
    answer = manager.call("GET", f"documents/{invoice.label}/pdf")
    assert (answer["content-type"], answer.content[:5]) == ("application/pdf", b"%PDF-")
    months = manager.get("statements")["data"]
    assert {"id": str(SEPTEMBER), "is_closed": True} in months
    statement = manager.get(f"statements/{SEPTEMBER}")["data"]
    assert statement["opening_balance"] == "0.00"
    assert manager.call("GET", f"statements/{SEPTEMBER}/pdf").content[:5] == b"%PDF-"
    for path in ("documents/INV-999999", "documents/x/pdf", "statements/2099-01", "statements/1", "statements/x/pdf"):
        assert manager.refusal("GET", path) == (404, "not_found")
    assert manager.refusal("GET", "documents?kind=letter") == (400, "invalid_parameters")
    others = Manager(people.charlies)
    assert others.refusal("GET", f"documents/{invoice.label}") == (404, "not_found")
    assert others.get("documents")["data"] == []


def test_webhooks_are_made_tested_rotated_and_removed(manager: Manager) -> None:
    made = manager.do("POST", "webhooks", {"url": "https://example.org/hook", "kinds": ["low_balance"]})
    path = f"webhooks/{made['data']['id']}"
    assert made["secret"].startswith("whsec_")
    assert made["secret"] not in str(manager.get(path))
    delivery = manager.do("POST", f"{path}/test")["data"]
    assert [row["id"] for row in manager.get(f"{path}/deliveries")["data"]] == [delivery["id"]]
    assert manager.refusal("GET", f"{path}/deliveries?before={delivery['id']}") == (400, "invalid_parameters")
    one = f"{path}/deliveries/{delivery['id']}"
    assert manager.refusal("POST", f"{one}/replay") == (409, "delivery_is_waiting")
    WebhookDelivery.objects.update(state=WebhookDelivery.State.FAILED)
    assert manager.do("POST", f"{one}/replay")["data"]["state"] == "waiting"
    WebhookDelivery.objects.update(state=WebhookDelivery.State.FAILED)
    assert manager.do("POST", f"{path}/replay")["data"] == {"replayed": 1}
    assert manager.do("POST", f"{path}/rotate")["secret"] != made["secret"]
    off = manager.do("PUT", path, {"url": "https://example.org/other", "disabled": True})["data"]
    assert (off["disabled"], off["kinds"], off["disabled_reason"]) == (True, [], "By alice@example.org.")
    for tail in ("test", "replay"):
        assert manager.refusal("POST", f"{path}/{tail}") == (409, "webhook_is_disabled")
    assert manager.refusal("PUT", path, {"url": "http://10.0.0.1/"}) == (400, "invalid_parameters")
    assert manager.do("DELETE", path)["deleted"]
    assert manager.refusal("GET", path) == (404, "not_found")
    assert manager.get("webhooks")["data"] == []


def test_alerts_are_listed_as_the_role_may_see_them(manager: Manager, people: People) -> None:
    raise_alert(people.organization, Alert.Kind.LOW_BALANCE, details={"available_nanos": 5})
    raise_alert(people.organization, Alert.Kind.PAYMENT_FAILED, details={"amount_nanos": USD})
    raise_alert(people.charlies, Alert.Kind.LOW_BALANCE, details={})
    assert [row["kind"] for row in manager.get("alerts?open=true")["data"]] == ["payment_failed", "low_balance"]
    viewer = Manager(people.organization, role=Role.VIEWER)
    assert [row["kind"] for row in viewer.get("alerts")["data"]] == ["low_balance"]
    chosen = manager.do("PUT", "alert-settings", {"low_balance": "7.5", "mails": {"admins": True}})["data"]
    assert (chosen["low_balance"], chosen["spike_minimum"], chosen["mails"]["admins"]) == ("7.50", "5.00", True)
    assert manager.do("PUT", "alert-settings", {})["data"]["low_balance"] is None
    assert viewer.refusal("GET", "alert-settings") == (403, "permission_required")


def test_activity_is_by_day_and_model(manager: Manager, people: People) -> None:
    noon = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0)
    version = sell_model()
    events = [billed_event(people.key, version, at=noon - timedelta(days=days)) for days in (0, 1, 1, 2)]
    settle(events)
    rows = manager.get("activity")["data"]
    assert [row["requests"] for row in rows] == [2, 1]
    assert rows[0]["usage"] == format_usd(2 * events[1].cost_nanos)
    day = (noon - timedelta(days=2)).date()
    assert [row["date"] for row in manager.get(f"activity?date={day}")["data"]] == [str(day)]
    for bad in ("yesterday", str(noon.date()), "0001-01-01", "2026-13-45"):
        assert manager.refusal("GET", f"activity?date={bad}") == (400, "invalid_parameters")
    assert Manager(people.charlies).get("activity")["data"] == []


def test_no_id_of_another_organization_opens_anything(people: People) -> None:
    """Charlie's owner key asks for each of Alice's rows, by every call that takes an id."""
    endpoint, _ = add_endpoint(people.organization, url="https://example.org/", created_by=people.alice)
    delivery = queue_test(endpoint)
    invitation, _ = invite(people.organization, email="v@example.org", role=Role.VIEWER, invited_by=people.alice)
    order = TopUp.objects.create(
        organization=people.organization, amount_nanos=USD, provider="sandbox", idempotency_key="k", created_by="a"
    )
    bob = Member.objects.get(user=people.bob, organization=people.organization)
    ids = {
        "key_id": people.key.pk,
        "member_id": bob.pk,
        "invitation_id": invitation.pk,
        "top_up_id": order.pk,
        "webhook_id": endpoint.pk,
        "delivery_id": delivery.pk,
        "number": "INV-000001",
        "end_user": "eve",
    }
    charlie = Manager(people.charlies, person=people.charlie)
    tried = 0
    for address, method in documented_routes():
        names = re.findall(r"<(\w+)>", address)
        if not names or names == ["month"] or (method, names) == ("PUT", ["end_user"]):
            continue  # There is nothing of hers in the address.
        path = re.sub(r"<(\w+)>", lambda name: str(ids[name[1]]), address).removeprefix("/api/v1/")
        for wanted in (path, path.replace(str(delivery.pk), str(uuid.uuid4()))):
            assert charlie.refusal(method, wanted, {} if method != "GET" else None) == (404, "not_found"), (
                method,
                path,
            )
        tried += 1
    assert tried > 20
    people.key.refresh_from_db()
    assert not people.key.is_revoked
