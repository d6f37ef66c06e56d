"""Money by two people: what one may do alone, what waits, and that it is applied once, by somebody else."""

import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone
from pytest_django import Settings

from accounts.models import Organization, User
from accounts.staff_roles import StaffRole
from billing.approvals.book import (
    AlreadyDecidedError,
    Asked,
    NotPermittedError,
    SamePersonError,
    approve,
    ask,
    expire_old,
    preview,
    refuse,
    waiting,
)
from billing.approvals.codes import ask_for_codes
from billing.approvals.kinds import ChangeError
from billing.credit.redemption import UnknownCodeError, redeem
from billing.credit.top_ups import InvalidTopUpError
from billing.ledger.book import IdempotencyConflictError
from billing.ledger.statements import posted_nanos as posted
from billing.models import Approval, CreditLot, LedgerTransaction, OrganizationPriceFactor
from tests.billing.ledger_factory import USD, assert_ledger_holds, make_organization
from tests.support.operators import make_operator
from tests.support.together import run_together

Kind = Approval.Kind


@pytest.fixture
def fay(db: None) -> User:
    return make_operator("fay", StaffRole.FINANCE)


@pytest.fixture
def finn(db: None) -> User:
    return make_operator("finn", StaffRole.FINANCE)


@pytest.fixture
def alice(db: None) -> Organization:
    return make_organization("Alice")


def grant(alice: Organization, by: User, usd: int, key: str = "") -> Asked:
    terms = {"amount_nanos": usd * USD, "lot_kind": "promotional", "expires_at": None, "priority": 100}
    return ask(
        Kind.GRANT,
        organization=alice,
        terms=terms,
        amount_nanos=usd * USD,
        reason="sorry",
        asked_by=by,
        idempotency_key=key or f"grant:{uuid.uuid4()}",
    )


def ask_for(kind: Approval.Kind, alice: Organization, by: User, amount: int = 0, **terms: Any) -> Asked:
    key = str(uuid.uuid4())
    return ask(kind, organization=alice, terms=terms, amount_nanos=amount, reason="r", asked_by=by, idempotency_key=key)


def test_up_to_their_bound_one_person_acts_alone_and_many_small_ones_are_one(alice: Organization, fay: User) -> None:
    assert grant(alice, fay, 300).waits_because == ""
    assert grant(alice, fay, 200).waits_because == ""
    third = grant(alice, fay, 1)
    assert "more than your role moves alone" in third.waits_because
    assert (posted(alice), [row.pk for row in waiting()]) == (500 * USD, [third.approval.pk])
    assert LedgerTransaction.objects.filter(actor="fay@example.org").count() == 2
    assert_ledger_holds()


@pytest.mark.parametrize("becomes", [{"is_active": False}, {"groups": []}])
def test_what_somebody_asked_for_who_may_not_any_more_is_not_approved(
    fay: User, finn: User, alice: Organization, becomes: dict[str, Any]
) -> None:
    """Else one person alone would answer for it, and for whatever a dismissed one had left behind."""
    asked = grant(alice, fay, 1_000_000).approval
    assert asked.state == Approval.State.WAITING
    if "groups" in becomes:
        fay.groups.clear()
    else:
        User.objects.filter(pk=fay.pk).update(**becomes)
    with pytest.raises(NotPermittedError, match="not do so any more"):
        approve(asked, by=finn)
    assert posted(alice) == 0
    refuse(asked, by=finn, reason="They have left")


def test_who_asks_does_not_approve_and_a_second_person_does_once(alice: Organization, fay: User, finn: User) -> None:
    asked = grant(alice, fay, 900)
    assert preview(asked.approval) == [
        "Promotional: 900.00 USD",
        "Promotion expense: -900.00 USD",
        "The balance would be 900.00 USD.",
    ]
    with pytest.raises(SamePersonError):
        approve(asked.approval, by=fay)
    assert posted(alice) == 0
    done = approve(asked.approval, by=finn)
    assert (posted(alice), done.state, done.decided_by) == (900 * USD, "applied", finn)
    assert done.ledger_transaction is not None
    assert done.ledger_transaction.actor == "fay@example.org, approved by finn@example.org"
    with pytest.raises(AlreadyDecidedError, match="applied by now"):
        approve(asked.approval, by=finn)
    with pytest.raises(AlreadyDecidedError):
        refuse(asked.approval, by=finn, reason="too late")
    assert posted(alice) == 900 * USD


def test_postgres_itself_refuses_ones_own_approval_and_other_terms(alice: Organization, fay: User) -> None:
    approval = grant(alice, fay, 900).approval
    row = Approval.objects.filter(pk=approval.pk)
    with pytest.raises(IntegrityError, match="second_person"), transaction.atomic():
        row.update(state="applied", decided_by=fay, decided_at=timezone.now())
    with pytest.raises(IntegrityError, match="terms of a row"), transaction.atomic():
        row.update(amount_nanos=1)
    with pytest.raises(IntegrityError, match="immutable"), transaction.atomic():
        row.delete()


@pytest.mark.django_db(transaction=True)
def test_two_who_approve_at_once_apply_it_once() -> None:
    fay, alice = make_operator("fay", StaffRole.FINANCE), make_organization("Alice")
    others = [make_operator(name, StaffRole.FINANCE) for name in ("finn", "fred", "fritz")]
    approval = grant(alice, fay, 900).approval
    errors = run_together(*[lambda by=by: approve(approval, by=by) for by in others])
    assert [type(error) for error in errors] == [AlreadyDecidedError] * 2
    assert posted(alice) == 900 * USD
    # And one person's forms at once do not fit twice under one bound.
    run_together(*[lambda: grant(alice, fay, 300)] * 4)
    assert posted(alice) == 1_200 * USD
    assert_ledger_holds()


def test_roles_decide_who_asks_who_approves_and_how_much(alice: Organization, fay: User) -> None:
    sue, otto = make_operator("sue", StaffRole.SUPPORT), make_operator("otto", StaffRole.OPERATIONS)
    nobody, gone = make_operator("nobody"), make_operator("gone", StaffRole.FINANCE)
    User.objects.filter(pk=gone.pk).update(is_staff=False)
    assert grant(alice, sue, 20).waits_because == ""
    asked = grant(alice, sue, 21)
    assert asked.waits_because
    for person in (otto, nobody, User.objects.get(pk=gone.pk)):
        with pytest.raises(NotPermittedError):
            grant(alice, person, 1)
        with pytest.raises(NotPermittedError):
            approve(asked.approval, by=person)
    with pytest.raises(NotPermittedError):
        ask_for(Kind.ADJUSTMENT, alice, sue, USD, amount_nanos=USD, lot_kind="paid")
    approve(asked.approval, by=fay)
    assert posted(alice) == 41 * USD


def test_a_superuser_has_a_bound_too(alice: Organization, settings: Settings) -> None:
    root = make_operator("root", is_superuser=True)
    assert grant(alice, root, 500).waits_because == ""
    assert grant(alice, root, 1).waits_because
    settings.ALONE_USD = {**settings.ALONE_USD, "superuser": "0"}
    assert grant(alice, make_operator("root2", is_superuser=True), 1).waits_because == (
        "Your role moves no money alone."
    )


@pytest.mark.parametrize(("ppm", "waits"), [(0, "free"), (899_999, "far"), (900_000, ""), (1_200_000, "far")])
def test_a_factor_of_nothing_is_never_one_click(
    alice: Organization, fay: User, finn: User, ppm: int, waits: str
) -> None:
    past = (timezone.now() - timedelta(days=30)).isoformat()
    asked = ask_for(Kind.PRICE_FACTOR, alice, fay, factor_ppm=ppm, effective_from=past, effective_to=None)
    assert (waits in asked.waits_because) if waits else asked.waits_because == ""
    if waits:
        approve(asked.approval, by=finn)
    row = OrganizationPriceFactor.objects.get()
    assert (row.factor_ppm, row.effective_from > timezone.now() - timedelta(minutes=1)) == (ppm, True)


def test_a_high_credit_limit_is_never_one_click_and_is_not_applied_over_another(
    alice: Organization, fay: User, finn: User, settings: Settings
) -> None:
    settings.ALONE_USD = {**settings.ALONE_USD, "finance": "1000000"}
    alone = ask_for(Kind.CREDIT_LIMIT, alice, fay, 1000 * USD, from_nanos=0, to_nanos=1000 * USD)
    assert alone.waits_because == ""
    higher = ask_for(Kind.CREDIT_LIMIT, alice, fay, 1, from_nanos=1000 * USD, to_nanos=1000 * USD + 1)
    assert "decided by two" in higher.waits_because
    ask_for(Kind.CREDIT_LIMIT, alice, finn, 0, from_nanos=1000 * USD, to_nanos=5 * USD)
    with pytest.raises(ChangeError, match=r"changed meanwhile: it is 5\.00 USD"):
        approve(higher.approval, by=finn)
    assert Organization.objects.get(pk=alice.pk).credit_limit_nanos == 5 * USD
    assert Approval.objects.get(pk=higher.approval.pk).is_open


def test_what_is_old_is_not_approved(alice: Organization, fay: User, finn: User) -> None:
    approval = grant(alice, fay, 900).approval
    later = approval.expires_at + timedelta(seconds=1)
    assert waiting(now=later) == []
    assert expire_old(now=later) == 1
    with pytest.raises(AlreadyDecidedError, match="expired by now"):
        approve(approval, by=finn)
    assert posted(alice) == 0


def test_a_refusal_says_why_and_the_asker_withdraws(alice: Organization, fay: User, finn: User) -> None:
    first, second = grant(alice, fay, 900).approval, grant(alice, fay, 901).approval
    with pytest.raises(ValueError, match="says why"):
        refuse(first, by=finn, reason=" ")
    refused, withdrawn = refuse(first, by=finn, reason="no"), refuse(second, by=fay, reason="typing error")
    assert (refused.state, refused.decision, withdrawn.state) == ("refused", "no", "withdrawn")
    for row in (first, second):
        with pytest.raises(AlreadyDecidedError):
            approve(row, by=finn)
    assert posted(alice) == 0


def test_the_same_key_asks_once_and_nonsense_never_waits(alice: Organization, fay: User) -> None:
    first = grant(alice, fay, 900, "k")
    again = grant(alice, fay, 900, "k")
    assert (again.is_new, again.approval, bool(again.waits_because)) == (False, first.approval, True)
    with pytest.raises(IdempotencyConflictError):
        grant(alice, fay, 901, "k")
    with pytest.raises(InvalidTopUpError):
        grant(alice, fay, 10**9)
    with pytest.raises(InvalidTopUpError):
        grant(alice, fay, -1)
    assert Approval.objects.count() == 1
    assert not CreditLot.objects.exists()


def test_codes_wait_and_are_worth_nothing_until_then(alice: Organization, fay: User, finn: User) -> None:
    values = {"amount_nanos": 100 * USD, "reason": "fair", "count": 3, "max_redemptions": 2}
    asked, made = ask_for_codes(values, asked_by=fay, idempotency_key="c", created_by="fay")
    assert asked.waits_because
    with pytest.raises(UnknownCodeError, match="not released"):
        redeem(alice, code=made[0].text, actor="alice")
    approve(asked.approval, by=finn)
    redeem(alice, code=made[0].text, actor="alice")
    assert posted(alice) == 100 * USD
    assert ask_for_codes(values, asked_by=fay, idempotency_key="c", created_by="fay")[1] == []
