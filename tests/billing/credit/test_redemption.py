"""Redemption codes: stored as a hash, once per organization, never more uses than allowed, whoever races."""

import hashlib
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import IntegrityError, transaction
from django.utils import timezone

from accounts.models import AdmissionChange, Organization
from accounts.staff_roles import StaffRole
from billing.bulk_rows import fetch_all
from billing.credit import redemption
from billing.credit.redemption import (
    MAX_ATTEMPTS_PER_HOUR,
    CodeExpiredError,
    CodeRevokedError,
    CodeUsedUpError,
    InvalidCodeError,
    NewCode,
    TooManyAttemptsError,
    UnknownCodeError,
    create_codes,
    redeem,
    revoke_code,
)
from billing.models import CreditLot, LedgerTransaction, Redemption, RedemptionCode
from tests.billing.ledger_factory import (
    USD,
    account_balances,
    assert_ledger_holds,
    make_event,
    make_organization,
    posted,
    settle,
)
from tests.support.operators import as_root, make_operator
from tests.support.together import run_together

pytestmark = pytest.mark.django_db


@pytest.fixture
def alice() -> Organization:
    return make_organization("Alice")


@pytest.fixture
def bob() -> Organization:
    return make_organization("Bob")


def make_code(**values: Any) -> NewCode:
    (new,) = create_codes(**{"amount_nanos": 5 * USD, "reason": "PyCon", "created_by": "alice", **values})
    return new


def test_a_code_gives_a_promotional_lot(alice: Organization) -> None:
    later = timezone.now() + timedelta(days=30)
    new = make_code(lot_expires_at=later, lot_priority=7)
    redeemed = redeem(alice, code=new.text, actor="alice@example.org")
    assert redeemed.posted.is_new
    assert account_balances(alice) == {"promotional": 5 * USD}
    lot = CreditLot.objects.get(organization=alice)
    assert (lot.kind, lot.amount_nanos, lot.priority, lot.expires_at) == ("promotional", 5 * USD, 7, later)
    assert lot.origin == f"Code {new.code.prefix}: PyCon"
    ledger = redeemed.posted.transaction
    assert (ledger.kind, ledger.actor) == ("promotion", "alice@example.org")
    assert Redemption.objects.get().ledger_transaction == ledger
    assert AdmissionChange.objects.filter(organization=alice, key=None).exists()
    assert_ledger_holds()


def test_a_code_clears_what_is_owed_first(alice: Organization) -> None:
    settle(make_event(alice, 2 * USD))
    redeem(alice, code=make_code().text, actor="alice")
    assert account_balances(alice) == {"promotional": 3 * USD}
    assert_ledger_holds()


def test_only_the_hash_of_a_code_is_stored() -> None:
    new = make_code()
    stored = RedemptionCode.objects.values().get()
    assert bytes(stored["code_sha256"]) == hashlib.sha256(new.text.replace("-", "").encode()).digest()
    assert new.text.startswith(stored["prefix"])
    assert new.text.replace("-", "") not in str(stored)
    assert new.text not in str(stored)
    assert len(new.text.replace("-", "")) == 20


def test_a_code_may_be_typed_as_people_type(alice: Organization, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redemption, "_make_text", lambda: "01ABC-DEF01-GHJKM-NPQRS")
    make_code()
    assert redeem(alice, code=" oiabc def0l-ghjkm-npqrs ", actor="alice").posted.is_new


def test_an_organization_redeems_a_code_once(alice: Organization) -> None:
    new = make_code(max_redemptions=5)
    first = redeem(alice, code=new.text, actor="alice")
    again = redeem(alice, code=new.text, actor="somebody else")
    assert (again.posted.is_new, again.posted.transaction) == (False, first.posted.transaction)
    assert posted(alice) == 5 * USD
    new.code.refresh_from_db()
    assert new.code.redemption_count == 1


def test_who_redeemed_a_code_is_told_so_also_when_it_is_over(alice: Organization) -> None:
    new = make_code()
    redeem(alice, code=new.text, actor="alice")
    revoke_code(new.code, revoked_by="bob")
    assert not redeem(alice, code=new.text, actor="alice").posted.is_new


def test_codes_that_give_nothing(alice: Organization, bob: Organization) -> None:
    used, revoked = make_code(), make_code()
    redeem(bob, code=used.text, actor="bob")
    assert revoke_code(revoked.code, revoked_by="bob")
    assert not revoke_code(revoked.code, revoked_by="charlie")
    soon = timezone.now() + timedelta(hours=1)
    past = timezone.now() - timedelta(seconds=1)
    expired, stale = make_code(expires_at=soon), make_code(lot_expires_at=soon)
    _age(expired, expires_at=past)
    _age(stale, lot_expires_at=past)
    for text, error in (
        (used.text, CodeUsedUpError),
        (revoked.text, CodeRevokedError),
        (expired.text, CodeExpiredError),
        (stale.text, CodeExpiredError),
        ("nonsense", UnknownCodeError),
        ("", UnknownCodeError),
        ("\x00" * 1_000_000, UnknownCodeError),
    ):
        with pytest.raises(error):
            redeem(alice, code=text, actor="alice")
    assert not LedgerTransaction.objects.filter(organization=alice).exists()
    revoked.code.refresh_from_db()
    assert (revoked.code.revoked_by, revoked.code.redemption_count) == ("bob", 0)


def test_guesses_are_limited_for_each_organization_and_hour(alice: Organization, bob: Organization) -> None:
    new = make_code(max_redemptions=2)
    for _ in range(MAX_ATTEMPTS_PER_HOUR):
        with pytest.raises(UnknownCodeError):
            redeem(alice, code="guess", actor="alice")
    with pytest.raises(TooManyAttemptsError):
        redeem(alice, code=new.text, actor="alice")
    assert redeem(bob, code=new.text, actor="bob").posted.is_new
    fetch_all("UPDATE billing_redemptionattempts SET hour = hour - interval '1 hour'")
    assert redeem(alice, code=new.text, actor="alice").posted.is_new


@pytest.mark.django_db(transaction=True)
def test_a_code_raced_by_many_organizations_is_used_as_often_as_allowed() -> None:
    organizations = [make_organization("Racer") for _ in range(8)]
    new = make_code(max_redemptions=3)
    errors = run_together(*(lambda one=one: redeem(one, code=new.text, actor="racer") for one in organizations))
    assert [type(error) for error in errors] == [CodeUsedUpError] * 5
    assert sorted(map(len, (account_balances(one) for one in organizations))) == [0] * 5 + [1] * 3
    new.code.refresh_from_db()
    assert (new.code.redemption_count, Redemption.objects.count(), CreditLot.objects.count()) == (3, 3, 3)
    assert_ledger_holds()


@pytest.mark.django_db(transaction=True)
def test_a_code_raced_within_one_organization_gives_once(alice: Organization) -> None:
    new = make_code(max_redemptions=8)
    seen: list[bool] = []
    work = [lambda: seen.append(redeem(alice, code=new.text, actor="alice").posted.is_new) for _ in range(8)]
    assert run_together(*work) == []
    assert sorted(seen) == [False] * 7 + [True]
    assert posted(alice) == 5 * USD
    new.code.refresh_from_db()
    assert new.code.redemption_count == 1


@pytest.mark.django_db(transaction=True)
def test_guesses_raced_stay_within_the_limit(alice: Organization) -> None:
    def guess() -> None:
        unknown = 0
        for _ in range(5):
            try:
                redeem(alice, code="guess", actor="alice")
            except UnknownCodeError:
                unknown += 1
            except TooManyAttemptsError:
                pass
        counts.append(unknown)

    counts: list[int] = []
    assert run_together(*[guess] * 8) == []
    assert sum(counts) == MAX_ATTEMPTS_PER_HOUR


@pytest.mark.django_db(transaction=True)
def test_a_code_revoked_in_the_race_gives_nothing_afterwards(alice: Organization, bob: Organization) -> None:
    new = make_code(max_redemptions=2)
    errors = run_together(
        lambda: redeem(alice, code=new.text, actor="alice"), lambda: revoke_code(new.code, revoked_by="operator")
    )
    assert all(isinstance(error, CodeRevokedError) for error in errors)
    with pytest.raises(CodeRevokedError):
        redeem(bob, code=new.text, actor="bob")
    new.code.refresh_from_db()
    assert new.code.redemption_count == Redemption.objects.count() == 1 - len(errors)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE billing_redemptioncode SET amount_nanos = 1",
        "UPDATE billing_redemptioncode SET max_redemptions = 9",
        "UPDATE billing_redemptioncode SET lot_expires_at = now()",
        "DELETE FROM billing_redemption",
        "DELETE FROM billing_redemptioncode",
        "UPDATE billing_redemption SET redeemed_by = 'x'",
        "UPDATE billing_redemptioncode SET redemption_count = 2",
    ],
)
def test_postgres_refuses_to_change_what_was_promised(alice: Organization, statement: str) -> None:
    redeem(alice, code=make_code().text, actor="alice")
    with pytest.raises(IntegrityError), transaction.atomic():
        fetch_all(statement)


@pytest.mark.parametrize(
    "values",
    [
        {"amount_nanos": 0},
        {"amount_nanos": -1},
        {"amount_nanos": 10**17},
        {"count": 0},
        {"count": 1001},
        {"max_redemptions": 0},
        {"reason": " "},
        {"created_by": ""},
        {"expires_at": timezone.now()},
        {"lot_expires_at": timezone.now()},
    ],
)
def test_codes_that_make_no_sense(values: dict[str, Any]) -> None:
    with pytest.raises(InvalidCodeError):
        make_code(**values)
    assert not RedemptionCode.objects.exists()


def test_the_command_prints_each_code_once(alice: Organization, bob: Organization) -> None:
    make_operator("op", StaffRole.FINANCE)
    output, notes = StringIO(), StringIO()
    call_command(
        *("create_codes", "2.50", "--reason", "PyCon", "--count", "3", "--uses", "2", "--priority", "5"),
        *("--expires", "2099-01-01", "--credit-expires", "2099-06-01T12:00", "--actor", "op@example.org", "--yes"),
        stdout=output,
        stderr=notes,
    )
    texts = output.getvalue().split()
    assert len(set(texts)) == 3
    assert "3 codes of 2.50 USD" in notes.getvalue()
    code = RedemptionCode.objects.latest("id")
    assert (code.max_redemptions, code.lot_priority) == (2, 5)
    assert code.created_by.startswith("op@example.org (shell:")
    assert (f"{code.expires_at:%F}", f"{code.lot_expires_at:%F %H}") == ("2099-01-01", "2099-06-01 12")
    for text in texts:
        redeem(alice, code=text, actor="alice")
    assert posted(alice) == 7_500_000_000


@pytest.mark.parametrize(
    "arguments",
    [("0",), ("x",), ("1", "--count", "0"), ("1", "--expires", "2001-01-01"), ("1", "--priority", "-1")],
)
def test_the_command_tells_what_is_wrong(arguments: tuple[str, ...]) -> None:
    with pytest.raises(CommandError):
        call_command("create_codes", *arguments, "--reason", "PyCon", *as_root())
    assert not RedemptionCode.objects.exists()


def _age(new: NewCode, **values: Any) -> None:
    """Let time pass for a code: what Postgres refuses otherwise."""
    fetch_all("SET CONSTRAINTS ALL IMMEDIATE")
    fetch_all("ALTER TABLE billing_redemptioncode DISABLE TRIGGER worth_is_immutable")
    RedemptionCode.objects.filter(pk=new.code.pk).update(**values)
    fetch_all("ALTER TABLE billing_redemptioncode ENABLE TRIGGER worth_is_immutable")
