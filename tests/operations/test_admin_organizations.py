"""The admin's page of an organization: at a glance, suspended with a reason, looked at for support, never ownerless."""

import html
from datetime import timedelta

import pytest
import redis
from allauth.mfa.models import Authenticator
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import Settings

from accounts.keys import create_key
from accounts.models import AuditEntry, FormerSlug, Member, Organization, Role
from accounts.organizations import (
    MAX_FORMER_SLUGS,
    SlugRefusedError,
    SlugTakenError,
    change_organization,
    create_organization,
    find_organization,
)
from accounts.staff_roles import StaffRole
from billing.admission.redis_keys import shard_keys_of
from billing.budgets.amounts import Amounts
from billing.budgets.choices import set_member_budget
from billing.models import BudgetOverride
from pages.audit_lines import HOUSE, lines_of_organization
from pages.support_look import SESSION_KEY
from tests.billing.ledger_factory import USD, give
from tests.support.operators import make_operator, operator_client
from tests.support.people import People, client_of
from tests.support.together import run_together


@pytest.fixture
def root(db: None) -> Client:
    return operator_client("root", is_superuser=True)


def page(people: People, button: str = "change") -> str:
    return f"/admin/accounts/organization/{people.organization.pk}/{button}/"


def form_of(people: People, **values: str) -> dict[str, object]:
    organization = people.organization
    members = list(Member.objects.filter(organization=organization).order_by("joined_at"))
    form: dict[str, object] = {"name": organization.name, "slug": organization.slug}
    form |= {"members-TOTAL_FORMS": str(len(members)), "members-INITIAL_FORMS": str(len(members))}
    for index, member in enumerate(members):
        form |= {f"members-{index}-id": member.pk, f"members-{index}-user": member.user_id}
        form |= {f"members-{index}-role": member.role, f"members-{index}-organization": organization.pk}
    return {**form, **values}


def test_everything_at_a_glance(people: People, root: Client) -> None:
    give(people.organization, 7 * USD)
    shown = root.get(page(people)).content.decode()
    for text in ("Posted: $7.00", "Available: $7.00", "$7.00 of $7.00", "This month: $0.00", str(people.key)):
        assert text in shown


def test_a_suspension_says_what_it_cuts_off_and_reaches_redis(
    people: People, root: Client, redis_client: redis.Redis
) -> None:
    asked = root.get(page(people, "suspend")).content.decode()
    assert "This cuts off 1 live API key within a second" in asked
    assert root.post(page(people, "suspend"), {"reason": " "}).status_code == 422
    assert root.post(page(people, "suspend"), {"reason": "Chargebacks"}).status_code == 302
    org = shard_keys_of(people.organization.pk).org(people.organization.pk)
    assert redis_client.hget(org, "status") == b"suspended"
    people.organization.refresh_from_db()
    assert people.organization.status_reason == "Chargebacks"
    entry = AuditEntry.objects.filter(subject_table="accounts_organization").latest("pk")
    assert (entry.after or {})["status_reason"] == "Chargebacks"
    assert root.post(page(people, "reopen"), {"reason": "Paid"}).status_code == 302
    assert redis_client.hget(org, "status") == b"active"
    assert operator_client("sue", StaffRole.SUPPORT).get(page(people, "close")).status_code == 403


def test_support_looks_as_a_viewer_for_a_while_and_on_the_record(people: People) -> None:
    sue = make_operator("sue", StaffRole.SUPPORT)
    client = client_of(sue)
    assert client.get("/console/alice/").status_code == 404
    assert client.post(page(people, "look"), {"reason": ""}).status_code == 422
    response = client.post(page(people, "look"), {"reason": "Ticket 7"}, follow=True)
    assert "You look at Alice &amp; Co for support" in response.content.decode()
    assert client.get("/console/alice/usage/").status_code == 200
    for closed in ("keys/", "billing/", "members/", "settings/", "keys/new/"):
        assert client.get(f"/console/alice/{closed}").status_code == 403
        assert client.post(f"/console/alice/{closed}").status_code in {403, 405}
    assert client.post("/console/alice/usage/").status_code in {403, 405}
    assert client.get("/console/charlie/").status_code == 404
    line = lines_of_organization(people.organization.pk)[0]
    assert (line.who, line.what, line.changes[0].after) == (HOUSE, "organization looked at by support", "Ticket 7")
    assert AuditEntry.objects.latest("pk").actor_id == sue.pk
    # It ends by the clock, with the role, and by a button.
    session = client.session
    session[SESSION_KEY] = {**session[SESSION_KEY], "until": (timezone.now() - timedelta(seconds=1)).isoformat()}
    session.save()
    assert client.get("/console/alice/").status_code == 404
    client.post(page(people, "look"), {"reason": "Ticket 7"})
    assert client.post("/admin/look/end/").headers["Location"] == page(people)
    assert client.get("/console/alice/").status_code == 404
    client.post(page(people, "look"), {"reason": "Ticket 7"})
    sue.groups.clear()
    assert client.get("/console/alice/").status_code == 404


@pytest.mark.parametrize("role", [StaffRole.FINANCE, StaffRole.OPERATIONS, None])
def test_only_support_looks(people: People, role: StaffRole | None) -> None:
    client = operator_client("other", *([role] if role else []))
    assert client.post(page(people, "look"), {"reason": "curious"}).status_code == 403
    assert client.get("/console/alice/").status_code == 404


def test_links_with_a_former_slug_lead_on_and_it_stays_taken(people: People, root: Client) -> None:
    assert root.post(page(people), form_of(people, slug="acme")).status_code == 302
    alice = client_of(people.alice)
    assert alice.get("/console/alice/usage/?day=7").headers["Location"] == "/console/acme/usage/?day=7"
    sent = alice.post("/console/alice/keys/new/")  # From a page that was open when it changed: nothing typed is lost.
    assert (sent.status_code, sent.headers["Location"]) == (307, "/console/acme/keys/new/")
    for method in ("get", "post"):
        assert getattr(client_of(people.charlie), method)("/console/alice/keys/new/").status_code == 404
    assert find_organization("alice") == people.organization
    with pytest.raises(SlugTakenError):
        create_organization(name="x", slug="alice")
    assert create_organization(name="Alice").slug == "alice-2"
    with pytest.raises(SlugTakenError):
        change_organization(people.charlies, fields={"slug": "alice"})
    other = f"/admin/accounts/organization/{people.charlies.pk}/change/"
    form = {"name": "C", "slug": "alice", "members-TOTAL_FORMS": "0", "members-INITIAL_FORMS": "0"}
    assert "Another organization has this, or had it" in root.post(other, form).content.decode()
    change_organization(people.organization, fields={"slug": "alice"})  # Its own may come back.
    assert [*FormerSlug.objects.values_list("slug", flat=True)] == ["acme"]


def test_former_slugs_are_bounded_and_some_slugs_are_nobodys(people: People) -> None:
    for number in range(MAX_FORMER_SLUGS):
        change_organization(people.organization, fields={"slug": f"acme-{number}"})
    with pytest.raises(SlugRefusedError, match="10 others"):
        change_organization(people.organization, fields={"slug": "one-more"})
    change_organization(people.organization, fields={"slug": "alice"})
    assert FormerSlug.objects.count() == MAX_FORMER_SLUGS
    for slug in ("42", f"erased-{people.organization.pk}"):
        with pytest.raises(SlugRefusedError, match="Letters"):
            change_organization(people.charlies, fields={"slug": slug})
        with pytest.raises(SlugRefusedError, match="Letters"):
            create_organization(name="x", slug=slug)
        assert create_organization(name=slug).slug == f"organization-{slug}"


@pytest.mark.django_db(transaction=True)
def test_a_slug_that_is_left_at_this_moment_is_not_taken() -> None:
    organization = create_organization(name="Acme", slug="acme")
    errors = run_together(
        lambda: change_organization(organization, fields={"slug": "acme-new"}),
        *[lambda: create_organization(name="Thief", slug="acme")] * 3,
    )
    assert [type(error) for error in errors] == [SlugTakenError] * 3
    assert find_organization("acme") == organization


def test_the_last_owner_stays(people: People, root: Client) -> None:
    for change in ({"members-0-DELETE": "on"}, {"members-0-role": "viewer"}):
        assert "no owner any more" in root.post(page(people), form_of(people, **change)).content.decode()
    assert root.post(page(people), form_of(people, **{"members-1-role": "owner"})).status_code == 302
    change = {"members-0-DELETE": "on", "members-1-role": "owner"}
    assert root.post(page(people), form_of(people, **change)).status_code == 302
    assert [member.user for member in Member.objects.filter(organization=people.organization)] == [people.bob]
    assert Organization.objects.get(slug="alice").members.get().role == Role.OWNER


def test_keys_end_with_a_role_or_a_membership_that_staff_ends(people: People, root: Client) -> None:
    """The page wrote the rows itself: whoever was removed went on by management keys."""
    people.give_bob(Role.ADMIN)
    own, _ = create_key(people.organization, name="Own", created_by=people.bob)
    manages, secret = create_key(
        people.organization, name="All", created_by=people.bob, is_management=True, role=Role.ADMIN
    )
    assert root.post(page(people), form_of(people, **{"members-1-role": "developer"})).status_code == 302
    for key, status in ((own, "active"), (manages, "disabled")):
        key.refresh_from_db()
        assert key.status == status
    assert Client().get("/api/v1/members", headers={"authorization": f"Bearer {secret}"}).status_code == 401
    # Whose membership it is does not change: keys of the one before would be nobody's.
    changed = form_of(people, **{"members-1-user": str(people.charlie.pk)})
    assert root.post(page(people), changed).status_code == 302
    assert people.organization.members.filter(user=people.bob).exists()
    assert root.post(page(people), form_of(people, **{"members-1-DELETE": "on"})).status_code == 302
    own.refresh_from_db()
    assert own.status == "disabled"
    assert not people.organization.members.filter(user=people.bob).exists()


def test_a_login_that_staff_closes_manages_nothing_any_more(people: People, root: Client) -> None:
    people.give_bob(Role.ADMIN)
    own, _ = create_key(people.organization, name="Own", created_by=people.bob)
    _, secret = create_key(people.organization, name="All", created_by=people.bob, is_management=True, role=Role.ADMIN)
    form = {"email": people.bob.email, "name": "", "date_joined_0": "2026-01-01", "date_joined_1": "00:00:00"}
    answer = root.post(f"/admin/accounts/user/{people.bob.pk}/change/", form, follow=True)
    assert "Management keys that were disabled: 1. Other keys that work on: 1" in answer.content.decode()
    assert Client().get("/api/v1/members", headers={"authorization": f"Bearer {secret}"}).status_code == 401
    own.refresh_from_db()
    assert own.status == "active"


def test_staff_sets_up_a_second_factor_first(people: People, settings: Settings) -> None:
    settings.STAFF_SECOND_FACTOR = True
    sue = make_operator("sue", StaffRole.SUPPORT)
    client = client_of(sue)
    for path in ("/admin/", page(people), "/admin/find/?q=x"):
        assert client.get(path).headers["Location"] == "/accounts/2fa/"
    assert client.post(page(people, "look"), {"reason": "x"}).headers["Location"] == "/accounts/2fa/"
    assert client.get("/accounts/2fa/").status_code == 200
    Authenticator.objects.create(user=sue, type=Authenticator.Type.TOTP, data={"secret": "x"})
    assert client.get("/admin/").status_code == 200


def test_budgets_of_others_and_overrides_are_seen_beside_the_limits(people: People) -> None:
    bob = Member.objects.get(user=people.bob)
    set_member_budget(people.organization, member=bob, amounts=Amounts(5 * USD), only_notifies=True, actor="alice")
    BudgetOverride.objects.create(
        organization=people.organization,
        scope="key",
        holder=str(people.key.pk),
        monthly_budget_nanos=20 * USD,
        until=timezone.now() + timedelta(days=1),
        reason="a launch",
        made_by="alice@example.org",
    )
    root = operator_client("root", is_superuser=True)
    shown = html.unescape(root.get(f"/admin/accounts/organization/{people.organization.pk}/change/").content.decode())
    assert "Member bob@example.org: $5.00 a day, only notifies" in shown
    assert f"Override: key {people.key}: $20.00 a month, until" in shown
    assert "by alice@example.org: a launch" in shown


def test_what_is_seen_at_a_glance_is_worked_out_once(people: People, root: Client) -> None:
    with CaptureQueriesContext(connection) as queries:
        assert root.get(page(people)).status_code == 200
    asked = [query["sql"] for query in queries]
    assert sum('FROM "billing_usageday"' in sql for sql in asked) == 2, "This month, and today."
    assert len(asked) < 30
