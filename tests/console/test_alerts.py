"""The pages of alerts and webhooks: choices, secrets shown once, the log, tests and replays."""

import re
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from accounts.models import Role
from billing.alerts.book import clear_alert, raise_alert
from billing.alerts.choices import read_choices
from billing.models import Alert, WebhookDelivery, WebhookEndpoint
from billing.webhooks.deliveries import Answer, claim_deliveries, note_answer
from billing.webhooks.endpoints import add_endpoint, switch_off
from billing.webhooks.queue import queue_test
from billing.webhooks.secrets import unseal
from tests.support.people import People, client_of
from tests.support.spending import raise_some_alert

ALERTS = "/console/alice/alerts/"
WEBHOOKS = "/console/alice/webhooks/"
CHOICES = {
    "low_balance_nanos": "25",
    "budget_warning_percent": "70",
    "spike_percent": "250",
    "spike_minimum_nanos": "1.50",
    "mails_owners": "on",
    "told_kinds": ["low_balance", "budget_warning"],
}
SECRET = re.compile(r"whsec_[A-Za-z0-9+/=]{44}")


@pytest.fixture
def alice(people: People) -> Client:
    return client_of(people.alice)


@pytest.fixture
def endpoint(people: People) -> WebhookEndpoint:
    return add_endpoint(people.organization, url="https://example.org/hook", created_by=people.alice)[0]


def text_of(client: Client, path: str) -> str:
    response = client.get(path)
    assert response.status_code == 200
    return response.content.decode()


def form_id_on(page: str) -> str:
    found = re.search(r'name="form_id" value="([^"]+)"', page)
    assert found
    return found[1]


def test_open_alerts_show_on_their_page_and_on_the_overview(alice: Client, people: People) -> None:
    assert "Nothing needs your attention" in text_of(alice, ALERTS)
    raise_some_alert(people.organization)
    for path in (ALERTS, "/console/alice/"):
        assert "A payment failed" in text_of(alice, path)
    assert "A payment failed" not in text_of(client_of(people.charlie), "/console/charlie/alerts/")
    clear_alert(people.organization, Alert.Kind.PAYMENT_FAILED)
    assert "A payment failed" in text_of(alice, ALERTS)  # Among those that are over.
    assert "A payment failed" not in text_of(alice, "/console/alice/")


@pytest.mark.parametrize("role", list(Role))
def test_what_payments_and_webhooks_say_is_for_those_who_may_see_them(people: People, role: Role) -> None:
    people.give_bob(role)
    raise_some_alert(people.organization)
    raise_alert(people.organization, Alert.Kind.WEBHOOK_FAILING, details={"host": "example.org", "problem": "It is."})
    raise_alert(
        people.organization, Alert.Kind.MODEL_RETIRING, details={"model": "m", "retires_at": "2027-01-01T00:00Z"}
    )
    for path in (ALERTS, "/console/alice/"):
        page = text_of(client_of(people.bob), path)
        assert "m retires" in page
        assert ("A payment failed" in page) == (role in {Role.OWNER, Role.ADMIN, Role.BILLING})
        assert ("A webhook fails" in page) == (role in {Role.OWNER, Role.ADMIN})


def test_choices_are_kept_and_shown_again(alice: Client, people: People) -> None:
    assert alice.post(ALERTS, CHOICES).status_code == 302
    chosen = read_choices(people.organization)
    assert (chosen.low_balance_nanos, chosen.budget_warning_percent) == (25_000_000_000, 70)
    assert (chosen.spike_percent, chosen.spike_minimum_nanos) == (250, 1_500_000_000)
    assert (chosen.mails_owners, chosen.mails_billing) == (True, False)
    assert sorted([*chosen.muted_kinds, "low_balance", "budget_warning"]) == sorted(Alert.Kind.values)
    page = text_of(alice, ALERTS)
    assert 'value="25.00"' in page
    assert page.count("checked") == 3


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("budget_warning_percent", "100"),
        ("budget_warning_percent", "0"),
        ("budget_warning_percent", ""),
        ("spike_percent", "100"),
        ("spike_percent", "99999999999999"),
        ("low_balance_nanos", "-1"),
        ("low_balance_nanos", "99999999999"),
        ("spike_minimum_nanos", ""),
        ("told_kinds", ["everything"]),
    ],
)
def test_what_makes_no_sense_is_not_kept(alice: Client, people: People, field: str, value: object) -> None:
    assert alice.post(ALERTS, {**CHOICES, field: value}).status_code == 422
    assert read_choices(people.organization).budget_warning_percent == 80


def test_others_see_the_alerts_and_choose_nothing(people: People) -> None:
    bob = client_of(people.bob)
    assert "Who gets which alerts" not in text_of(bob, ALERTS)
    assert bob.post(ALERTS, CHOICES).status_code == 403


def test_an_endpoint_is_added_once_and_its_secret_is_shown_once(alice: Client, people: People) -> None:
    form = {
        "url": "https://example.org/hook",
        "description": "Pager",
        "kinds": ["low_balance"],
        "form_id": form_id_on(text_of(alice, WEBHOOKS)),
    }
    page = alice.post(WEBHOOKS, form).content.decode()
    endpoint = WebhookEndpoint.objects.get()
    assert SECRET.findall(page) == [unseal(endpoint.sealed_secret)]
    assert (endpoint.kinds, endpoint.description, endpoint.created_by) == (["low_balance"], "Pager", people.alice)
    again = alice.post(WEBHOOKS, form, follow=True).content.decode()
    assert "added its endpoint already" in again
    assert WebhookEndpoint.objects.count() == 1
    for path in (WEBHOOKS, f"{WEBHOOKS}{endpoint.pk}/"):
        assert not SECRET.search(text_of(alice, path))


def test_all_kinds_means_those_to_come_too(alice: Client) -> None:
    alice.post(WEBHOOKS, {"url": "https://example.org/", "kinds": Alert.Kind.values, "form_id": "a"})
    assert WebhookEndpoint.objects.get().kinds == []


@pytest.mark.parametrize("form", [{"url": "https://example.org/"}, {"url": "https://u:p@example.org/", "kinds": "x"}])
def test_a_wrong_endpoint_is_refused_with_its_reason(alice: Client, form: dict[str, str]) -> None:
    response = alice.post(WEBHOOKS, form)
    assert response.status_code == 422
    assert "errorlist" in response.content.decode()
    assert not WebhookEndpoint.objects.exists()


def test_a_test_is_queued_and_what_came_of_it_is_shown(alice: Client, endpoint: WebhookEndpoint) -> None:
    response = alice.post(f"{WEBHOOKS}{endpoint.pk}/test/", follow=True)
    assert "None yet." in response.content.decode()
    [taken] = claim_deliveries(limit=1)
    note_answer(taken, Answer(500, "It answered 500.", "<script>alert(1)</script>", 12))
    page = text_of(alice, f"{WEBHOOKS}deliveries/{taken.pk}/")
    assert "It answered 500." in page
    assert taken.event_id in page
    assert "<script>alert" not in page
    assert "webhook.test" in text_of(alice, f"{WEBHOOKS}{endpoint.pk}/")
    assert "Failing since" in text_of(alice, WEBHOOKS)


def test_a_secret_is_rotated_once_for_each_form(alice: Client, endpoint: WebhookEndpoint) -> None:
    form = {"form_id": form_id_on(text_of(alice, f"{WEBHOOKS}{endpoint.pk}/"))}
    page = alice.post(f"{WEBHOOKS}{endpoint.pk}/rotate/", form).content.decode()
    endpoint.refresh_from_db()
    assert SECRET.findall(page) == [unseal(endpoint.sealed_secret)]
    before = endpoint.sealed_previous_secret
    alice.post(f"{WEBHOOKS}{endpoint.pk}/rotate/", form)
    endpoint.refresh_from_db()
    assert endpoint.sealed_previous_secret == before  # A double click ends nobody's day of grace.


def test_off_and_on_and_the_replay_of_what_was_missed(alice: Client, people: People, endpoint: WebhookEndpoint) -> None:
    path = f"{WEBHOOKS}{endpoint.pk}/"
    queue_test(endpoint)
    alice.post(f"{path}switch/", {"to": "off"})
    alice.post(f"{path}switch/", {"to": "off"})
    endpoint.refresh_from_db()
    assert endpoint.switched_off_reason == "By alice@example.org."
    assert "Replay" not in text_of(alice, path)
    assert "switched off" in alice.post(f"{path}test/", follow=True).content.decode()
    assert "Switch the endpoint on first" in alice.post(f"{path}replay/", follow=True).content.decode()
    alice.post(f"{path}switch/", {"to": "on"})
    assert "Replay 1 missed" in text_of(alice, path)
    assert "1 event is on the way again" in alice.post(f"{path}replay/", follow=True).content.decode()
    assert WebhookDelivery.objects.get().state == "waiting"


def test_one_delivery_is_replayed(alice: Client, endpoint: WebhookEndpoint) -> None:
    delivery = queue_test(endpoint)
    path = f"{WEBHOOKS}deliveries/{delivery.pk}/"
    assert "on its way already" in alice.post(f"{path}replay/", follow=True).content.decode()
    [taken] = claim_deliveries(limit=1)
    note_answer(taken, Answer(200, "", "ok", 1))
    assert "under the same id" in alice.post(f"{path}replay/", follow=True).content.decode()
    switch_off(endpoint, reason="x", at=timezone.now())
    assert "the endpoint is off" in alice.post(f"{path}replay/", follow=True).content.decode()


def test_deliveries_have_pages(alice: Client, endpoint: WebhookEndpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("console.views.webhooks.DELIVERIES_SHOWN", 2)
    for _ in range(5):
        queue_test(endpoint)
    path = f"{WEBHOOKS}{endpoint.pk}/"
    seen: list[list[Any]] = []
    query: str | None = ""
    while query is not None:
        page = alice.get(path + query)
        seen.append([delivery.pk for delivery in page.context["deliveries"]])
        older = page.context["older_than"]
        query = f"?before={older}" if older else None
    assert [len(page) for page in seen] == [2, 2, 1]
    in_order = WebhookDelivery.objects.order_by("-created_at", "-pk").values_list("pk", flat=True)
    assert [pk for page in seen for pk in page] == list(in_order)
    for wrong in ("x", "0" * 32):
        assert alice.get(f"{path}?before={wrong}").status_code == 404


def test_an_endpoint_is_changed_and_removed(alice: Client, endpoint: WebhookEndpoint) -> None:
    path = f"{WEBHOOKS}{endpoint.pk}/"
    form = {"url": "https://example.com/new", "description": "", "kinds": ["payment_failed"]}
    assert alice.post(path, form).status_code == 302
    endpoint.refresh_from_db()
    assert (endpoint.url, endpoint.kinds) == ("https://example.com/new", ["payment_failed"])
    wrong = alice.post(path, {**form, "url": "gopher://x"})
    assert wrong.status_code == 422
    assert "https://example.com/new" in wrong.content.decode()
    alice.post(f"{path}remove/")
    assert alice.get(path).status_code == 404
    assert "No endpoints yet" in text_of(alice, WEBHOOKS)


def test_an_admin_manages_webhooks_and_billing_does_not(people: People, endpoint: WebhookEndpoint) -> None:
    people.give_bob(Role.ADMIN)
    assert client_of(people.bob).get(WEBHOOKS).status_code == 200
    people.give_bob(Role.BILLING)
    assert client_of(people.bob).get(WEBHOOKS).status_code == 403
