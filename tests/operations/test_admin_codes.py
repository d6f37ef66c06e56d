"""Redemption codes in the operators' admin: made and shown once, revoked after a question."""

import uuid

import pytest
from django.test import Client

from accounts.staff_roles import StaffRole
from billing.credit.redemption import CodeRevokedError, redeem
from billing.models import RedemptionCode
from tests.support.operators import operator_client
from tests.support.people import People, client_of, make_person

ADD = "/admin/billing/redemptioncode/add/"
FORM = {
    "amount_nanos": "2.5",
    "count": "2",
    "max_redemptions": "3",
    "lot_priority": "100",
    "reason": "PyCon",
    "form_id": str(uuid.uuid4()),
}


@pytest.fixture
def operator(people: People) -> Client:
    return operator_client("operator", StaffRole.FINANCE)


def test_codes_are_shown_once(operator: Client, people: People) -> None:
    assert operator.get(ADD).status_code == 200
    response = operator.post(ADD, {**FORM, "lot_expires_on": "2099-01-01"})
    assert response.status_code == 200
    assert "no-store" in response["Cache-Control"]
    made = response.context["made"]
    assert len(made) == 2
    assert all(new.text in response.content.decode() for new in made)
    code = RedemptionCode.objects.latest("id")
    assert (code.amount_nanos, code.max_redemptions, code.created_by) == (2_500_000_000, 3, "operator@example.org")
    assert redeem(people.organization, code=made[0].text, actor="alice").posted.is_new
    for path in ("/admin/billing/redemptioncode/", f"/admin/billing/redemptioncode/{made[0].code.pk}/change/"):
        page = operator.get(path).content.decode()
        assert made[0].code.prefix in page
        assert made[0].text not in page


@pytest.mark.parametrize(
    "values",
    [
        {"amount_nanos": "0"},
        {"amount_nanos": "x"},
        {"count": "1001"},
        {"max_redemptions": "0"},
        {"reason": ""},
        {"expires_on": "2001-01-01"},
        {"lot_priority": "99999"},
    ],
)
def test_codes_that_make_no_sense_are_told(operator: Client, values: dict[str, str]) -> None:
    assert operator.post(ADD, {**FORM, **values}).status_code == 422
    assert not RedemptionCode.objects.exists()


def test_a_code_is_revoked_after_a_question(operator: Client, people: People) -> None:
    (new, _) = operator.post(ADD, FORM).context["made"]
    path = f"/admin/billing/redemptioncode/{new.code.pk}/revoke/"
    page = operator.get(path)
    assert "Revoke" in page.content.decode()
    assert RedemptionCode.objects.get(pk=new.code.pk).revoked_at is None
    assert operator.post(path).status_code == 302
    assert RedemptionCode.objects.get(pk=new.code.pk).revoked_by == "operator@example.org"
    with pytest.raises(CodeRevokedError):
        redeem(people.organization, code=new.text, actor="alice")


def test_who_may_not_make_codes_makes_none(people: People) -> None:
    client = client_of(make_person("looker", is_staff=True))
    assert client.get(ADD).status_code == 403
    assert client.post(ADD, FORM).status_code == 403
    assert not RedemptionCode.objects.exists()
