"""Money by two people in the admin: the asker is told, the second person sees the postings, wrong roles get nothing."""

import uuid

import pytest
from django.core.management import CommandError, call_command
from django.test import Client

from accounts.models import AuditEntry, Organization, User
from accounts.staff_roles import StaffRole
from billing.approvals.book import approve
from billing.ledger.statements import posted_nanos
from billing.models import Approval, OrganizationPriceFactor, OutgoingMail, UsageQuarantine
from pages.mail import NotWorthTellingError, render_mail
from tests.billing.ledger_factory import USD
from tests.support.operators import as_root, make_operator, operator_client
from tests.support.people import People, client_of

GRANT = {"amount_nanos": "900", "kind": "promotional", "reason": "Outage", "expires_on": "", "priority": ""}


@pytest.fixture
def fay(db: None) -> Client:
    return operator_client("fay", StaffRole.FINANCE)


@pytest.fixture
def finn(db: None) -> Client:
    return operator_client("finn", StaffRole.FINANCE)


def button(people: People, name: str) -> str:
    return f"/admin/accounts/organization/{people.organization.pk}/{name}/"


def test_a_grant_waits_and_is_approved_by_somebody_else(fay: Client, finn: Client, people: People) -> None:
    form = {**GRANT, "form_id": str(uuid.uuid4())}
    for _ in range(2):  # Sent twice, it asks once.
        page = fay.post(button(people, "grant-credit"), form, follow=True).content.decode()
        assert "It waits for a second person" in page
    approval = Approval.objects.get()
    shown = finn.get(f"/admin/billing/approval/{approval.pk}/change/").content.decode()
    assert "Promotional: 900.00 USD" in shown
    assert "fay@example.org" in shown
    path = f"/admin/billing/approval/{approval.pk}/approve/"
    assert "Somebody else approves" in fay.post(path, follow=True).content.decode()
    assert posted_nanos(people.organization) == 0
    assert finn.get(path).status_code == 200
    assert "Approved." in finn.post(path, follow=True).content.decode()
    assert "It is applied by now." in finn.post(path, follow=True).content.decode()
    assert posted_nanos(people.organization) == 900 * USD
    assert AuditEntry.objects.filter(subject_table="billing_approval", action="changed").count() == 1
    assert "fay@example.org" in finn.get("/admin/billing/approval/").content.decode()


def test_who_may_decide_is_told_once_and_sees_it_first(fay: Client, finn: Client, people: People) -> None:
    make_operator("sue", StaffRole.SUPPORT)
    make_operator("root", is_superuser=True)
    UsageQuarantine.objects.create(shard=0, stream_id="1-1", raw_event=b"{}", reason="unreadable")
    form = {**GRANT, "form_id": str(uuid.uuid4())}
    for _ in range(2):
        fay.post(button(people, "grant-credit"), form)
    mails = list(OutgoingMail.objects.order_by("user__email"))
    assert [mail.user.email for mail in mails] == ["finn@example.org", "root@example.org"]
    message = render_mail(mails[0])
    assert message.subject.startswith("CrossModel: Grant of credit waits for a second person")
    for words in ("fay@example.org asks", "Outage", "promotional credit of 900.00 USD", "/admin/billing/approval/"):
        assert words in str(message.body)
    urgent = finn.get("/admin/").context["urgent"]
    assert urgent[0].name == "waiting approvals"
    assert "in quarantine" in [line.name for line in urgent]
    support = client_of(User.objects.get(email="sue@example.org")).get("/admin/").context["urgent"]
    assert support[0].name != "waiting approvals", "What nobody but others decides does not stand before trouble."
    approve(Approval.objects.get(), by=mails[1].user)
    with pytest.raises(NotWorthTellingError, match="decided before"):
        render_mail(mails[0])


@pytest.mark.parametrize("role", [StaffRole.SUPPORT, StaffRole.OPERATIONS, None])
def test_wrong_roles_get_neither_buttons_nor_addresses(role: StaffRole | None, people: People, fay: Client) -> None:
    fay.post(button(people, "grant-credit"), {**GRANT, "form_id": str(uuid.uuid4())})
    approval = Approval.objects.get()
    client = operator_client("other", *([role] if role else []))
    assert client.post(f"/admin/billing/approval/{approval.pk}/approve/").status_code == 403
    for name in ("adjust-balance", "credit-limit"):
        assert client.get(button(people, name)).status_code == 403
        assert client.post(button(people, name), {}).status_code == 403
    for path in ("organizationpricefactor", "recurringcredit", "redemptioncode"):
        assert client.post(f"/admin/billing/{path}/add/", {}).status_code == 403
    page = client.get(f"/admin/accounts/organization/{people.organization.pk}/change/")
    assert page.status_code == (200 if role else 403)
    assert "Adjust balance" not in page.content.decode()
    assert ("Grant credit" in page.content.decode()) == (role == StaffRole.SUPPORT)


def test_a_credit_limit_and_a_factor(fay: Client, people: People) -> None:
    form = {"from_nanos": "0", "to_nanos": "100", "reason": "Invoice", "form_id": str(uuid.uuid4())}
    assert fay.get(button(people, "credit-limit")).status_code == 200
    for wrong in ("-1", "x", "0.0000000001", ""):
        assert fay.post(button(people, "credit-limit"), {**form, "to_nanos": wrong}).status_code == 422
    assert fay.post(button(people, "credit-limit"), form).status_code == 302
    assert Organization.objects.get(pk=people.organization.pk).credit_limit_nanos == 100 * USD
    add = "/admin/billing/organizationpricefactor/add/"
    factor = {"organization": "alice", "factor": "0.9", "reason": "Partner", "form_id": str(uuid.uuid4())}
    assert fay.get(f"{add}?organization=alice").status_code == 200
    for wrong_factor in ("-0.1", "x", "1e9", ""):
        assert fay.post(add, {**factor, "factor": wrong_factor}).status_code == 422
    assert fay.post(add, {**factor, "organization": "nobody"}).status_code == 422
    assert fay.post(add, factor).status_code == 302
    row = OrganizationPriceFactor.objects.get()
    assert (row.created_by, row.factor_ppm) == ("fay@example.org", 900_000)
    assert fay.post(f"/admin/billing/organizationpricefactor/{row.pk}/change/", factor).status_code == 403
    free = {**factor, "factor": "0", "form_id": str(uuid.uuid4())}
    assert "makes everything free" in fay.post(add, free, follow=True).content.decode()
    assert OrganizationPriceFactor.objects.count() == 1


def test_a_command_says_what_it_would_post_and_asks(people: People, capsys: pytest.CaptureFixture[str]) -> None:
    root = as_root()
    command = ("grant_credit", "alice", "5", "--reason", "r")
    for arguments, problem in ((root[:2], "--yes is missing"), (("--yes",), "--actor EMAIL is missing")):
        with pytest.raises(CommandError, match=problem):
            call_command(*command, *arguments)
    call_command(*command, *root, "--dry-run")
    said = capsys.readouterr().out
    assert "Promotional: 5.00 USD" in said
    assert "The balance would be 5.00 USD." in said
    assert "Dry run: nothing was changed." in said
    assert not Approval.objects.exists()
    call_command("grant_credit", "alice", "501", "--reason", "r", *root)
    assert f"It waits for a second person, as approval {Approval.objects.get().pk}." in capsys.readouterr().out
    assert posted_nanos(people.organization) == 0
