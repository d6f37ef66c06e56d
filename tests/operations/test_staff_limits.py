"""One permission of an operator is one permission: it leads neither to secrets, nor to more power, nor to revenue."""

from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse

from accounts.models import Member, User
from accounts.staff_roles import StaffRole
from billing.models import LedgerTransaction, Upstream
from tests.support.operators import make_operator
from tests.support.people import PASSWORD, People, client_of, make_person

UPSTREAM = {"name": "acme", "protocol": "messages", "base_url": "https://acme.example", "profile": "{}"}


def staff(*permissions: str) -> Client:
    person = make_person("operator", is_staff=True)
    person.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    return client_of(person)


def superuser() -> Client:
    return client_of(User.objects.create_superuser("root@example.org", PASSWORD))


@pytest.mark.django_db
def test_who_may_change_upstreams_does_not_choose_what_is_sent_where() -> None:
    upstream = Upstream.objects.create(name="acme", protocol="messages", base_url="https://acme.example")
    page = reverse("admin:billing_upstream_change", args=[upstream.pk])
    operator = staff("change_upstream", "view_upstream", "add_upstream")
    wanted = {**UPSTREAM, "base_url": "https://evil.example", "credential_env": "OPENAI_API_KEY"}
    assert operator.post(page, wanted).status_code == 302
    upstream.refresh_from_db()
    assert (upstream.base_url, upstream.credential_env, upstream.is_enabled) == ("https://acme.example", "", True)
    assert operator.post(reverse("admin:billing_upstream_add"), UPSTREAM).status_code == 403


@pytest.mark.django_db
@pytest.mark.parametrize(
    "values",
    [
        {"credential_env": "DJANGO_SECRET_KEY"},
        {"credential_env": "DATABASE_URL"},
        {"credential_env": "CROSSMODEL_EMAIL_PASSWORD"},
        {"credential_env": "HOME"},
        {"base_url": "https://evil.example/${DJANGO_SECRET_KEY}"},
        {"base_url": "${REDIS_URL}"},
    ],
)
def test_no_operator_sends_a_secret_of_ours(values: dict[str, str]) -> None:
    response = superuser().post(reverse("admin:billing_upstream_add"), {**UPSTREAM, **values})
    assert "may not be sent to an upstream" in response.content.decode()
    assert not Upstream.objects.exists()


@pytest.mark.django_db
def test_who_may_change_logins_gains_no_power(people: People) -> None:
    operator = staff("change_user", "view_user")
    me = User.objects.get(email="operator@example.org")
    root = User.objects.create_superuser("root@example.org", PASSWORD)
    form = {"email": "mine@example.org", "name": "N", "is_active": "on", "is_staff": "on", "is_superuser": "on"}
    for person in (me, root):
        assert operator.post(reverse("admin:accounts_user_change", args=[person.pk]), form).status_code == 403
    page = reverse("admin:accounts_user_change", args=[people.bob.pk])
    assert operator.post(page, {**form, "user_permissions": ["1"]}).status_code == 302
    people.bob.refresh_from_db()
    assert (people.bob.name, people.bob.email) == ("N", "bob@example.org")
    assert (people.bob.is_staff, people.bob.is_superuser, people.bob.user_permissions.count()) == (False, False, 0)
    for person in (me, root, people.bob):
        password = reverse("admin:auth_user_password_change", args=[person.pk])
        assert (
            operator.post(password, {"password1": "another password", "password2": "another password"}).status_code
            == 403
        )
        person.refresh_from_db()
        assert person.check_password(PASSWORD)


@pytest.mark.django_db
def test_without_permissions_the_dashboard_shows_no_revenue() -> None:
    page = staff().get("/admin/").content.decode()
    for word in ("Revenue", "Last 24 hours", "quarantine", "Price drafts", "Upstreams"):
        assert word not in page
    assert "Settlement lag" in page
    assert "Revenue" in superuser().get("/admin/").content.decode()


@pytest.mark.django_db
@pytest.mark.parametrize("object_id", ["0", "x", "99999999999999999999999", "1_2F2", "_00", "%F0%9F%98%80"])
@pytest.mark.parametrize("method", ["get", "post"])
def test_a_button_of_nothing_is_a_404(object_id: str, method: str) -> None:
    client = superuser()
    client.raise_request_exception = False
    for address in (
        f"/admin/accounts/organization/{object_id}/grant-credit/",
        f"/admin/accounts/apikey/{object_id}/revoke/",
        f"/admin/billing/priceversion/{object_id}/approve/",
        f"/admin/billing/redemptioncode/{object_id}/revoke/",
        f"/admin/billing/usagerecord/{object_id}/refund/",
        f"/admin/billing/usagequarantine/{object_id}/settle/",
    ):
        assert getattr(client, method)(address).status_code == 404, address


COMMANDS = [
    ["grant_credit", "alice", "1", "--reason", "r"],
    ["adjust_balance", "alice", "1", "--reason", "r"],
    ["create_codes", "1", "--reason", "r"],
    ["approve_prices", "--all"],
    ["load_catalog"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
@pytest.mark.parametrize("actor", ["nobody@example.org", "alice@example.org", "the other pair of eyes"])
def test_an_actor_is_an_operator_with_an_account(people: People, command: list[str], actor: str) -> None:
    """Alice has an account and is no operator."""
    with pytest.raises(CommandError, match="no active operator"):
        call_command(*command, "--actor", actor)
    assert not LedgerTransaction.objects.exists()


def test_the_record_names_the_operator_and_the_shell(people: People) -> None:
    make_operator("olga", StaffRole.SUPPORT)
    call_command("grant_credit", "alice", "1", "--reason", "r", "--actor", "OLGA@example.org", "--yes")
    actor = LedgerTransaction.objects.get().actor
    assert actor.startswith("olga@example.org (shell:")


def test_a_member_by_hand_has_confirmed_the_address(people: People) -> None:
    stranger = User.objects.create_user("stranger@example.org", PASSWORD)
    page = reverse("admin:accounts_organization_change", args=[people.organization.pk])
    members = list(Member.objects.filter(organization=people.organization).order_by("joined_at"))
    form: dict[str, Any] = {"name": "Alice & Co", "slug": "alice", "status": "active", "credit_limit_nanos": "0"}
    form |= {"members-TOTAL_FORMS": "3", "members-INITIAL_FORMS": "2", "members-2-role": "viewer"}
    for index, member in enumerate(members):
        form |= {f"members-{index}-id": member.pk, f"members-{index}-user": member.user_id}
        form |= {f"members-{index}-role": member.role, f"members-{index}-organization": people.organization.pk}
    root = superuser()
    response = root.post(page, {**form, "members-2-user": stranger.pk})
    assert "This address is not confirmed" in response.content.decode()
    assert root.post(page, {**form, "members-2-user": people.charlie.pk}).status_code == 302
    assert people.organization.members.count() == 3
