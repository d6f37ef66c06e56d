"""What staff tries by direct requests beside its pages: actions of lists, forms of others, guesses, and replays."""

from collections.abc import Iterator
from typing import Any

import pytest
from allauth.account.models import EmailAddress
from django.contrib import admin
from django.contrib.contenttypes.models import ContentType
from django.test import Client

from accounts.models import AuditEntry, Member, Organization, User
from accounts.staff_roles import StaffRole, permissions_of
from billing.approvals.book import AlreadyDecidedError, approve
from billing.models import (
    Approval,
    CreditLot,
    LedgerTransaction,
    OrganizationPriceFactor,
    PriceVersion,
    RecurringCredit,
    RedemptionCode,
    TopUp,
)
from operations.admin.base import OperatorAdmin
from tests.billing.ledger_factory import USD
from tests.support.every_table import fill_every_table
from tests.support.operators import make_operator, operator_client
from tests.support.people import People, client_of

NO_MEMBERS = {"members-TOTAL_FORMS": "0", "members-INITIAL_FORMS": "0"}


@pytest.fixture
def world(people: People) -> People:
    fill_every_table(people)
    return people


def tables() -> Iterator[tuple[str, str, str]]:
    for model in admin.site._registry:
        app, name = model._meta.app_label, model._meta.model_name or ""
        yield app, name, f"/admin/{app}/{name}/"


def fingerprint() -> dict[str, int]:
    """Return how many rows there are of what staff could want more of, and of the audit that sees every change."""
    counted = (User, Member, Organization, Approval, CreditLot, LedgerTransaction, TopUp, EmailAddress, AuditEntry)
    added = (OrganizationPriceFactor, PriceVersion, RecurringCredit, RedemptionCode)
    return {model.__name__: model._default_manager.count() for model in (*counted, *added)}


def test_every_page_of_the_admin_is_one_of_ours() -> None:
    """Pages of others bring actions that ask for no permission, and no bounds."""
    foreign = [model for model, page in admin.site._registry.items() if not isinstance(page, OperatorAdmin)]
    assert foreign == []
    for page in admin.site._registry.values():
        assert not page.actions, page


@pytest.mark.long
@pytest.mark.parametrize("role", StaffRole)
def test_no_action_of_a_list_does_anything(world: People, role: StaffRole) -> None:
    stranger = EmailAddress.objects.create(user=world.charlie, email="boss@example.org", verified=False)
    client = operator_client("walker", role)
    before = fingerprint()
    for app, name, path in tables():
        row = admin.site._registry[ContentType.objects.get(app_label=app, model=name).model_class()].model  # type: ignore[index]
        pk = row._default_manager.values_list("pk", flat=True).first()
        for action in ("make_verified", "delete_selected", "export", "grant_credit", "suspend"):
            answer = client.post(path, {"action": action, "_selected_action": str(pk), "post": "yes", "index": "0"})
            assert answer.status_code in (200, 302, 403), (path, action)
    stranger.refresh_from_db()
    assert not stranger.verified
    assert fingerprint() == before


@pytest.mark.parametrize("role", StaffRole)
def test_what_a_role_may_not_add_change_or_delete_is_refused_by_post(world: People, role: StaffRole) -> None:
    client = operator_client("walker", role)
    allowed = permissions_of(role)
    before = fingerprint()
    for app, name, path in tables():
        model = ContentType.objects.get(app_label=app, model=name).model_class()
        assert model is not None
        pk = model._default_manager.values_list("pk", flat=True).first()
        if f"{app}.add_{name}" not in allowed:
            assert client.post(f"{path}add/", {"_popup": "1"}).status_code == 403, path
        if f"{app}.change_{name}" not in allowed:
            assert client.post(f"{path}{pk}/change/", {"_saveasnew": "1", **NO_MEMBERS}).status_code == 403, path
        assert client.post(f"{path}{pk}/delete/", {"post": "yes"}).status_code == 403, path
    assert fingerprint() == before


@pytest.mark.parametrize("role", [StaffRole.FINANCE, None])
def test_no_row_is_saved_as_a_new_one_past_the_form_that_asks_a_second_person(
    world: People, role: StaffRole | None
) -> None:
    """`_saveasnew` leads Django from the page of a row to its own form for a new one."""
    client = operator_client("walker", *([role] if role else []), is_superuser=role is None)
    credit = RecurringCredit.objects.get()
    values: dict[str, Any] = {"organization": world.charlies.pk, "amount_nanos": 10**15, "first_month": "2026-11-01"}
    values |= {"reason": "r", "created_by": "nobody", "_saveasnew": "1"}
    before = fingerprint()
    status = client.post(f"/admin/billing/recurringcredit/{credit.pk}/change/", values).status_code
    assert fingerprint() == before
    assert status == 403
    for model in (OrganizationPriceFactor, PriceVersion, RedemptionCode):
        row = model._default_manager.get_queryset()[0]
        path = f"/admin/billing/{model._meta.model_name}/{row.pk}/change/"
        assert client.post(path, {**values, "factor_ppm": "0"}).status_code == 403, model


def test_support_brings_nobody_into_an_organization(world: People) -> None:
    sam = make_operator("sam", StaffRole.SUPPORT)
    form: dict[str, Any] = {"members-TOTAL_FORMS": "1", "members-INITIAL_FORMS": "0"}
    form |= {"members-0-user": sam.pk, "members-0-role": "owner"}
    path = f"/admin/accounts/organization/{world.organization.pk}/change/"
    assert client_of(sam).post(path, {"name": "A", "slug": "alice", **form}).status_code == 403
    assert not Member.objects.filter(user=sam).exists()


def test_operations_changes_no_money_and_no_other_organization_by_its_form(world: People) -> None:
    client = operator_client("oda", StaffRole.OPERATIONS)
    charlies = Member.objects.get(organization=world.charlies)
    values = {"name": "Alice & Co", "slug": "alice", "credit_limit_nanos": "9000000000000", "status": "closed"}
    form = {"members-TOTAL_FORMS": "1", "members-INITIAL_FORMS": "1", "members-0-id": charlies.pk}
    form |= {"members-0-user": charlies.user_id, "members-0-role": "viewer", "members-0-DELETE": "on"}
    path = f"/admin/accounts/organization/{world.organization.pk}/change/"
    client.post(path, {**values, **form})
    client.post(path, {**values, **NO_MEMBERS})
    world.organization.refresh_from_db()
    assert (world.organization.credit_limit_nanos, world.organization.status) == (0, "active")
    assert Member.objects.get(pk=charlies.pk).role == "owner"


@pytest.mark.parametrize(
    "question",
    [
        "user/?password__startswith=pbkdf2",
        "user/?email__startswith=a",
        "apikey/?secret_sha256__gt=a",
        "apikey/?created_by__password__startswith=p",
        "organization/?members__user__password__startswith=p",
        "organization/?name__startswith=A",
    ],
)
def test_nothing_is_guessed_by_filters_that_no_list_offers(world: People, question: str) -> None:
    client = operator_client("root", is_superuser=True)
    assert client.get(f"/admin/accounts/{question}").status_code == 400
    for table in ("webhookendpoint/?sealed_secret__startswith=a", "redemptioncode/?code_sha256__gt=a"):
        assert client.get(f"/admin/billing/{table}").status_code == 400
    assert client.get("/admin/accounts/user/?is_staff__exact=1").status_code == 200
    assert client.get("/admin/billing/priceversion/?state=draft").status_code == 200


def test_names_of_columns_and_tables_that_one_may_not_see_are_no_way_in(world: People) -> None:
    client = operator_client("sam", StaffRole.SUPPORT)
    for path in (
        "/admin/accounts/user/?_to_field=password",
        "/admin/accounts/user/?_popup=1&_to_field=is_superuser",
        "/admin/autocomplete/?app_label=accounts&model_name=auditentry&field_name=organization&term=a",
        "/admin/autocomplete/?app_label=accounts&model_name=user&field_name=groups&term=f",
        f"/admin/accounts/auditentry/{AuditEntry.objects.first().pk}/history/",  # type: ignore[union-attr]
        "/admin/accounts/auditentry/",
    ):
        assert client.get(path).status_code in (400, 403), path


@pytest.mark.parametrize("path", ["accounts/organization/{}/suspend/", "accounts/organization/{}/grant-credit/"])
def test_a_look_changes_nothing_and_a_form_of_elsewhere_neither(world: People, path: str) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(make_operator("root", is_superuser=True), backend="django.contrib.auth.backends.ModelBackend")
    address = "/admin/" + path.format(world.organization.pk)
    values = {"reason": "r", "amount_nanos": "5", "kind": "paid", "form_id": "0" * 32}
    before = fingerprint()
    assert client.get(address, values).status_code == 200
    assert client.head(address, values).status_code == 200
    assert client.post(address, values).status_code == 403
    assert fingerprint() == before


def test_the_session_of_a_suspended_operator_ends_with_the_account(world: People) -> None:
    fay = make_operator("fay2", StaffRole.FINANCE)
    client = client_of(fay)
    assert client.get("/admin/").status_code == 200
    approval = Approval.objects.get(state="waiting")
    for change in ({"is_staff": False}, {"is_staff": True, "is_active": False}):
        User.objects.filter(pk=fay.pk).update(**change)
        assert client.get("/admin/").status_code == 302
        assert client.post(f"/admin/billing/approval/{approval.pk}/approve/").status_code == 302
    approval.refresh_from_db()
    assert approval.state == "waiting"


def test_an_approval_is_applied_once_however_many_say_yes_at_once(world: People) -> None:
    approval = Approval.objects.get(state="waiting")
    people = [make_operator(f"f{number}", StaffRole.FINANCE) for number in range(2)]
    approve(approval, by=people[0])
    count = LedgerTransaction.objects.count()
    with pytest.raises(AlreadyDecidedError):
        approve(approval, by=people[1])
    answer = client_of(people[1]).post(f"/admin/billing/approval/{approval.pk}/approve/", follow=True)
    assert "applied by now" in answer.content.decode()
    assert LedgerTransaction.objects.count() == count


def test_a_limit_that_was_read_before_counts_from_what_it_was(world: People) -> None:
    """The form says which limit was seen. Another limit by then applies nothing, so its size counts from the form's."""
    client = operator_client("root", is_superuser=True)
    path = f"/admin/accounts/organization/{world.organization.pk}/credit-limit/"
    Organization.objects.filter(pk=world.organization.pk).update(credit_limit_nanos=900 * USD)
    form = {"reason": "r", "form_id": "2" * 32, "from_nanos": "0", "to_nanos": "900"}
    answer = client.post(path, form)
    assert "has changed meanwhile" in answer.content.decode()
    assert not Approval.objects.filter(kind="credit_limit").exists()


@pytest.mark.parametrize("odd", ["xxx", "9" * 40, "1 OR 1=1"])
def test_what_is_no_choice_is_refused_at_its_field(world: People, odd: str) -> None:
    root = operator_client("walker", is_superuser=True)
    path = f"/admin/accounts/organization/{world.organization.pk}/change/"
    fields = {
        "members-TOTAL_FORMS": "1",
        "members-INITIAL_FORMS": "0",
        "members-0-user": odd,
        "members-0-role": "owner",
    }
    for address, sent in (
        (path, fields),
        ("/admin/account/emailaddress/add/", {"user": odd, "email": "x@example.org"}),
    ):
        answer = root.post(address, sent)
        assert answer.status_code == 200
        assert "Select a valid choice" in answer.content.decode()
