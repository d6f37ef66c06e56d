import uuid
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
import redis
from django.test import Client
from django.utils import timezone

from accounts.key_secrets import find_key
from accounts.keys import TooManyKeysError, create_key, revoke_key
from accounts.members import change_role
from accounts.models import AdmissionChange, ApiKey, Member, Role
from billing.admission.redis_keys import shard_keys_of
from billing.models import LanguageModel
from tests.support.people import People, client_of
from tests.support.settled_usage import billed_event, sell_model, settle
from tests.support.together import run_together

KEYS = "/console/alice/keys/"
LIST_QUERIES = 9  # With one key as with a page of them.


@pytest.fixture
def alice(people: People) -> Client:
    return client_of(people.alice)


def form(**values: Any) -> dict[str, Any]:
    return {"name": "Laptop", "form_id": uuid.uuid4().hex, **values}


def test_a_new_key_is_shown_once_and_kept_nowhere(alice: Client, people: People) -> None:
    values = form()
    response = alice.post(f"{KEYS}new/", values)
    assert response.status_code == 200
    text = response.context["text"]
    assert text in response.content.decode()
    assert response["Cache-Control"] == "private, no-store"
    key = ApiKey.objects.get(name="Laptop")
    assert key.created_by == people.alice
    assert text not in str([vars(row) for row in ApiKey.objects.all()])
    assert text not in str(dict(alice.session))
    assert text not in alice.get(KEYS).content.decode()

    reloaded = alice.post(f"{KEYS}new/", values)
    assert reloaded.status_code == 302
    assert ApiKey.objects.filter(name="Laptop").count() == 1


def test_a_key_takes_limits_budgets_and_restrictions(alice: Client) -> None:
    LanguageModel.objects.create(model_id="acme/large", display_name="L", context_tokens=1, max_output_tokens=1)
    expires_at = (timezone.now() + timedelta(days=3)).replace(second=0, microsecond=0)
    alice.post(
        f"{KEYS}new/",
        form(
            daily_budget_nanos="$2.50",
            monthly_budget_nanos="1,000",
            requests_per_minute="60",
            expires_at=f"{expires_at:%Y-%m-%dT%H:%M}",
            allowed_models="acme/large\nacme/large",
            allowed_networks="203.0.113.0/24, 2001:db8::/32",
        ),
    )
    key = ApiKey.objects.get(name="Laptop")
    assert (key.daily_budget_nanos, key.weekly_budget_nanos, key.monthly_budget_nanos) == (2_500_000_000, None, 10**12)
    assert (key.requests_per_minute, key.concurrent_requests) == (60, None)
    assert key.expires_at == expires_at
    assert key.allowed_models == ["acme/large"]
    assert key.allowed_networks == ["203.0.113.0/24", "2001:db8::/32"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", "x" * 101),
        ("daily_budget_nanos", "-1"),
        ("daily_budget_nanos", "0.0000000001"),
        ("daily_budget_nanos", "NaN"),
        ("daily_budget_nanos", "9" * 30),
        ("requests_per_minute", "0"),
        ("requests_per_minute", "99999999999"),
        ("concurrent_requests", "many"),
        ("expires_at", "2020-01-01T00:00"),
        ("allowed_models", "no/such"),
        ("allowed_networks", "203.0.113.1/24"),
        ("allowed_networks", "10.0.0.0/8 " * 1 + " ".join(f"10.0.{n}.0/24" for n in range(60))),
    ],
)
def test_nonsense_is_told_and_makes_no_key(alice: Client, field: str, value: str) -> None:
    response = alice.post(f"{KEYS}new/", form(**{field: value}))
    assert response.status_code == 422
    assert response.context["form"].errors.get(field)
    assert ApiKey.objects.count() == 1


def test_revoking_asks_first_and_reports_success_once_redis_has_it(
    alice: Client, people: People, redis_client: redis.Redis
) -> None:
    url = f"{KEYS}{people.key.pk}/revoke/"
    assert "Revoke key" in alice.get(url).content.decode()
    people.key.refresh_from_db()
    assert not people.key.is_revoked

    response = alice.post(url, follow=True)
    assert "every gateway refuses it" in response.content.decode()
    names = shard_keys_of(people.organization.pk)
    assert redis_client.hget(names.key(people.key.pk), "status") == b"revoked"
    assert AdmissionChange.objects.count() == 0
    people.key.refresh_from_db()
    assert people.key.revoked_by == people.alice
    assert alice.get(url)["Location"] == KEYS


@pytest.mark.usefixtures("redis_away")
def test_revoking_without_redis_says_that_gateways_do_not_know_yet(alice: Client, people: People) -> None:
    response = alice.post(f"{KEYS}{people.key.pk}/revoke/", follow=True)
    page = response.content.decode()
    assert "as soon as the admission store (Redis) can be reached again" in page
    assert "every gateway refuses it" not in page
    people.key.refresh_from_db()
    assert people.key.is_revoked
    assert AdmissionChange.objects.filter(key=people.key).exists()


def test_editing_limits_reaches_redis(alice: Client, people: People, redis_client: redis.Redis) -> None:
    url = f"{KEYS}{people.key.pk}/"
    response = alice.post(url, {"name": "Backend 2", "weekly_budget_nanos": "3"}, follow=True)
    assert response.redirect_chain == [(KEYS, 302)]
    people.key.refresh_from_db()
    assert (people.key.name, people.key.weekly_budget_nanos, people.key.config_version) == ("Backend 2", 3 * 10**9, 2)
    assert redis_client.hget(shard_keys_of(people.organization.pk).key(people.key.pk), "weekly_budget") == b"3000000000"


def test_an_expired_key_can_still_be_renamed(alice: Client, people: People) -> None:
    ApiKey.objects.filter(pk=people.key.pk).update(expires_at=timezone.now() - timedelta(days=1))
    people.key.refresh_from_db()
    shown = f"{people.key.expires_at:%Y-%m-%dT%H:%M}"
    url = f"{KEYS}{people.key.pk}/"
    page = alice.get(url)
    assert f'value="{shown}"' in page.content.decode()


@pytest.mark.parametrize("rows", [1, 3])
def test_the_list_costs_the_same_queries(
    alice: Client, people: People, rows: int, django_assert_num_queries: Any
) -> None:
    for number in range(rows - 1):
        alice.post(f"{KEYS}new/", form(name=f"Key {number}"))
    settle([billed_event(key, version) for version in [sell_model()] for key in ApiKey.objects.all()])
    alice.get(KEYS)
    with django_assert_num_queries(LIST_QUERIES):
        assert alice.get(KEYS).content.decode().count("Revoke<") == rows


def test_a_management_key_is_made_by_who_manages_all_keys(alice: Client, people: People) -> None:
    path = f"{KEYS}management/"
    form_id = alice.get(path).context["form_id"]
    page = alice.post(path, {"name": "FinOps", "role": "owner", "form_id": form_id})
    key = ApiKey.objects.get(is_management=True)
    assert (key.name, key.role) == ("FinOps", "owner")
    assert page.context["text"].startswith(key.prefix)
    assert alice.post(path, {"name": "FinOps", "form_id": form_id}).status_code == 302
    assert ApiKey.objects.filter(is_management=True).count() == 1
    assert "management" in alice.get(KEYS).content.decode()
    people.give_bob(Role.ADMIN)
    assert client_of(people.bob).post(path, {"name": "Up", "role": "owner", "form_id": "x"}).status_code == 422
    people.give_bob(Role.DEVELOPER)
    assert client_of(people.bob).get(path).status_code == 403


def test_nobody_gets_the_secret_of_a_management_key_that_may_more_than_they(people: People) -> None:
    key, _ = create_key(
        people.organization, name="Owns", created_by=people.alice, owner=people.bob, is_management=True, role=Role.OWNER
    )
    path = f"{KEYS}{key.pk}/rotate/"
    for role, status in ((Role.ADMIN, 403), (Role.DEVELOPER, 403), (Role.OWNER, 200)):
        people.give_bob(role)
        assert client_of(people.bob).get(path).status_code == status
        assert (path in client_of(people.bob).get(KEYS).content.decode()) == (status == 200)
        assert client_of(people.bob).post(path, {"overlap": "24", "form_id": uuid.uuid4().hex}).status_code == status


def test_a_management_key_that_may_more_than_its_owner_by_now_is_disabled(people: People) -> None:
    people.give_bob(Role.OWNER)
    for role in (Role.OWNER, Role.ADMIN, Role.VIEWER):
        create_key(
            people.organization, name=role, created_by=people.bob, owner=people.bob, is_management=True, role=role
        )
    member = Member.objects.get(user=people.bob)
    change_role(member, role=Role.ADMIN)
    working = ApiKey.objects.filter(disabled_at=None, is_management=True).order_by("pk")
    assert [key.name for key in working] == ["admin", "viewer"]
    change_role(member, role=Role.DEVELOPER)
    assert not working.all().exists()


def test_a_key_is_disabled_enabled_and_rotated(alice: Client, people: People, redis_client: redis.Redis) -> None:
    status = partial(redis_client.hget, shard_keys_of(people.organization.pk).key(people.key.pk), "status")
    assert "until you enable it" in alice.post(f"{KEYS}{people.key.pk}/switch/", follow=True).content.decode()
    assert status() == b"disabled"
    page = alice.post(f"{KEYS}{people.key.pk}/switch/", {"to": "on"}, follow=True).content.decode()
    assert "works again" in page
    assert status() == b"active"

    values = {"overlap": "24", "form_id": uuid.uuid4().hex}
    made = alice.post(f"{KEYS}{people.key.pk}/rotate/", values)
    new = made.context["text"]
    assert made.content.decode().count(new) == 6  # Alone, and in each snippet.
    assert alice.post(f"{KEYS}{people.key.pk}/rotate/", values).status_code == 302
    key, former = find_key(new), find_key(people.secret)
    assert key == former == people.key
    edit = f"{KEYS}{people.key.pk}/"
    assert "works until" in alice.get(edit).content.decode()
    alice.post(f"{edit}overlap/")
    assert find_key(people.secret) is None
    assert "works until" not in alice.get(edit).content.decode()


def test_keys_are_found_by_what_people_know_of_them(alice: Client, people: People) -> None:
    people.give_bob(Role.DEVELOPER)
    create_key(people.organization, name="Bob's laptop", created_by=people.alice, owner=people.bob)
    old, _ = create_key(people.organization, name="Old", created_by=people.alice)
    revoke_key(old, revoked_by=people.alice)

    def names(**query: str) -> list[str]:
        return [key.name for key, *_ in alice.get(KEYS, query).context["rows"]]

    assert names() == ["Bob's laptop", "Backend"]
    assert names(q="lapTOP") == names(q="bob@") == ["Bob's laptop"]
    assert names(q=people.key.last_four) == names(q=people.key.prefix) == names(q=people.secret) == ["Backend"]
    assert (names(state="revoked"), names(state="expired"), names(q="nothing")) == (["Old"], [], [])
    assert names(state="nonsense", page="99") == ["Bob's laptop", "Backend"]
    assert [key.name for key, *_ in client_of(people.bob).get(KEYS).context["rows"]] == ["Bob's laptop"]


def test_a_thousand_keys_are_shown_page_by_page(alice: Client, people: People, django_assert_num_queries: Any) -> None:
    ApiKey.objects.bulk_create(
        ApiKey(organization=people.organization, name=f"Key {number}", secret_sha256=number.to_bytes(32, "big"))
        for number in range(999)
    )
    alice.get(KEYS)
    with django_assert_num_queries(LIST_QUERIES):
        page = alice.get(KEYS)
    assert "1 to 50 of 1,000" in page.content.decode()
    assert "?page=2" in page.content.decode()
    last = alice.get(KEYS, {"page": "20", "q": ""})
    assert "951 to 1,000 of 1,000" in last.content.decode()
    with pytest.raises(TooManyKeysError):
        create_key(people.organization, name="One more", created_by=people.alice)


@pytest.mark.django_db(transaction=True)
def test_the_same_form_twice_at_once_makes_one_key(people: People) -> None:
    values = form()
    clients = [client_of(people.alice) for _ in range(3)]
    assert not run_together(*(partial(client.post, f"{KEYS}new/", values) for client in clients))
    assert ApiKey.objects.filter(name="Laptop").count() == 1


def test_when_a_key_was_used_is_known_to_the_minute(alice: Client, people: People) -> None:
    event = billed_event(people.key, sell_model())
    settle([event])
    [(_, activity, _)] = alice.get(KEYS).context["rows"]
    assert int(activity.used_at.timestamp() * 1000) == event.admitted_at_ms
    assert activity.month_cost_nanos == event.cost_nanos


def test_whose_key_it_is_is_chosen_by_who_manages_all(alice: Client, people: People) -> None:
    people.give_bob(Role.DEVELOPER)
    alice.post(f"{KEYS}new/", form(owner=people.bob.pk))
    assert ApiKey.objects.get(name="Laptop").owner == people.bob
    assert alice.post(f"{KEYS}new/", form(owner=people.charlie.pk)).status_code == 422
    client_of(people.bob).post(f"{KEYS}new/", form(name="Mine", owner=people.alice.pk))
    assert ApiKey.objects.get(name="Mine").owner == people.bob


def test_a_key_that_was_revoked_in_another_tab_is_called_so(alice: Client, people: People) -> None:
    revoke_key(people.key, revoked_by=people.alice)
    for page in ("", "revoke/", "rotate/"):
        for answer in (
            alice.get(f"{KEYS}{people.key.pk}/{page}", follow=True),
            alice.post(f"{KEYS}{people.key.pk}/{page}", {"name": "New"}, follow=True),
        ):
            assert answer.redirect_chain == [(KEYS, 302)]
            assert "“Backend” is revoked already. Nothing was changed." in answer.content.decode()
    for button in ("switch/", "overlap/"):
        assert "is revoked already" in alice.post(f"{KEYS}{people.key.pk}/{button}", follow=True).content.decode()
    assert client_of(people.charlie).get(f"/console/charlie/keys/{people.key.pk}/").status_code == 404
