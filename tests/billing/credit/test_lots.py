"""Expiry of lots: what admission learns, what is posted, and that holds in flight stay covered."""

import time
from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest
from django.db import connection
from django.utils import timezone

from accounts.models import AdmissionChange, Organization
from billing.credit.lots import (
    OWED_SINCE,
    Expiry,
    expire_lots,
    organizations_with_expired_lots,
    spendable_credit,
)
from billing.ledger import rows
from billing.ledger.accounts import Balance
from billing.ledger.book import Posting, post_transaction, system_account
from billing.ledger.burn_order import Lot
from billing.models import LedgerAccount, LedgerTransaction
from billing.shards import shard_of
from tests.billing.ledger_factory import (
    account_balances,
    assert_ledger_holds,
    entries_of,
    give,
    make_event,
    make_organization,
    posted,
    remaining,
    settle,
)

pytestmark = pytest.mark.django_db


@pytest.fixture
def soon() -> datetime:
    return timezone.now() + timedelta(hours=1)


def after(moment: datetime) -> datetime:
    return moment + timedelta(minutes=1)


def test_spendable_credit_is_the_balance_without_lots_past_their_expiry(soon: datetime) -> None:
    organization, other = make_organization(), make_organization("Other")
    give(organization, 100, expires_at=soon)
    give(organization, 30)
    assert spendable_credit([organization.pk, other.pk]) == {organization.pk: (130, 2)}
    assert spendable_credit([organization.pk], now=soon) == {organization.pk: (30, 2)}


def test_paid_credit_expires_to_breakage(soon: datetime) -> None:
    organization = make_organization()
    lot = give(organization, 100, expires_at=soon)
    assert expire_lots(organization, available_nanos=100, now=after(soon)) == Expiry(100, 0)
    ledger = LedgerTransaction.objects.get(kind="expiry")
    assert entries_of(ledger.pk) == {"prepaid": -100, "breakage": 100}
    lot.refresh_from_db()
    assert (lot.remaining_nanos, lot.expired_at is not None) == (0, True)
    assert_ledger_holds()


def test_promotional_credit_goes_back_to_its_expense(soon: datetime) -> None:
    organization = make_organization()
    give(organization, 100, kind="promotional", expires_at=soon)
    expire_lots(organization, available_nanos=100, now=after(soon))
    assert entries_of(LedgerTransaction.objects.get(kind="expiry").pk) == {
        "promotional": -100,
        "promotion_expense": 100,
    }
    assert_ledger_holds()


def test_a_lot_that_still_runs_is_left_alone(soon: datetime) -> None:
    organization = make_organization()
    give(organization, 100, expires_at=soon)
    give(organization, 5)
    AdmissionChange.objects.all().delete()
    assert expire_lots(organization, available_nanos=105) == Expiry(0, 0)
    assert posted(organization) == 105
    assert not AdmissionChange.objects.exists()


def test_holds_in_flight_stay_covered_and_the_rest_follows(soon: datetime) -> None:
    organization = make_organization()
    lot = give(organization, 100, expires_at=soon)
    admitted_at_ms = int(soon.timestamp() * 1000) - 1
    # 40 are held for a request that was admitted before the expiry.
    assert expire_lots(organization, available_nanos=60, now=after(soon)) == Expiry(60, 40)
    settle(make_event(organization, 25, admitted_at_ms=admitted_at_ms))
    assert account_balances(organization) == {"prepaid": 15}
    assert expire_lots(organization, available_nanos=15, now=after(soon)) == Expiry(15, 0)
    assert remaining(lot) == [0]
    assert posted(organization) == 0
    assert_ledger_holds()


def test_admission_hears_of_an_expiry_that_could_not_be_posted_yet(soon: datetime) -> None:
    organization = make_organization()
    give(organization, 100, expires_at=soon)
    AdmissionChange.objects.all().delete()
    assert expire_lots(organization, available_nanos=-5, now=after(soon)) == Expiry(0, 100)
    assert spendable_credit([organization.pk], now=after(soon)) == {organization.pk: (0, 2)}
    assert AdmissionChange.objects.count() == 1
    # Told once is enough.
    assert expire_lots(organization, available_nanos=0, now=after(soon)) == Expiry(0, 100)
    assert AdmissionChange.objects.count() == 1
    assert_ledger_holds()


def test_expiry_runs_in_burn_order_as_far_as_the_balance_is_free(soon: datetime) -> None:
    organization = make_organization()
    late = give(organization, 50, expires_at=soon)
    early = give(organization, 50, expires_at=soon - timedelta(minutes=10))
    lasting = give(organization, 50)
    assert expire_lots(organization, available_nanos=70, now=after(soon)) == Expiry(70, 30)
    assert remaining(early, late, lasting) == [0, 30, 50]
    assert LedgerTransaction.objects.filter(kind="expiry").count() == 2
    assert_ledger_holds()


def test_the_job_finds_organizations_with_something_left_past_its_time(soon: datetime) -> None:
    organizations: list[Organization] = [make_organization() for _ in range(3)]
    give(organizations[0], 10, expires_at=soon)
    give(organizations[0], 10, expires_at=soon)
    give(organizations[1], 10)
    give(organizations[2], 10, expires_at=soon + timedelta(days=1))
    assert organizations_with_expired_lots(now=soon - timedelta(seconds=1)) == []
    assert organizations_with_expired_lots(now=soon) == [organizations[0]]
    expire_lots(organizations[0], available_nanos=20, now=soon)
    assert organizations_with_expired_lots(now=soon) == []


def test_a_clock_that_ran_ahead_keeps_no_valid_lot_from_paying(soon: datetime) -> None:
    organization = make_organization()
    lot = give(organization, 100, expires_at=soon)
    settle(make_event(organization, 30, admitted_at_ms=int(after(soon).timestamp() * 1000)))
    assert account_balances(organization) == {"prepaid": 70}
    assert remaining(lot) == [70]
    assert_ledger_holds()


def owe(organization: Organization, amount_nanos: int) -> None:
    """Post a charge that no lot paid, as of a moment after every expiry."""
    revenue = system_account(LedgerAccount.Kind.REVENUE, shard_of(organization.pk))

    def compose(posting: Posting) -> None:
        posting.charge(amount_nanos, as_of=timezone.now() + timedelta(days=365))
        posting.add(revenue, amount_nanos)

    post_transaction(
        organization, kind=LedgerTransaction.Kind.ADJUSTMENT, idempotency_key=f"owe:{organization.pk}:{amount_nanos}",
        inputs={}, actor="test", reason="test", system=[revenue], compose=compose,
    )  # fmt: skip


def test_a_debt_and_an_expired_lot_do_not_stay_stuck_together(soon: datetime) -> None:
    """What was owed while the lot was valid it pays; the rest of it expires."""
    organization = make_organization()
    lot = give(organization, 100, expires_at=soon)
    owe(organization, 30)
    assert account_balances(organization) == {"prepaid": 100, "receivable": -30}
    assert expire_lots(organization, available_nanos=70, now=after(soon)) == Expiry(70, 0)
    assert (remaining(lot), posted(organization)) == ([0], 0)
    assert entries_of(LedgerTransaction.objects.get(kind="expiry").pk) == {
        "prepaid": -100,
        "receivable": 30,
        "breakage": 70,
    }
    assert_ledger_holds()


def test_a_debt_is_read_from_its_newest_entry_back(soon: datetime) -> None:
    """However many entries the account has: the organization is locked meanwhile."""
    organization = make_organization()
    owe(organization, 30)
    account = LedgerAccount.objects.get(organization=organization, kind="receivable")
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off")  # Of so few rows all are read.
        cursor.execute(f"EXPLAIN {OWED_SINCE}", {"account_id": account.pk, "expires_at": soon})
        plan = "\n".join(line for (line,) in cursor.fetchall())
    assert "Index Scan Backward using ledger_entry_seq_once" in plan, plan


def test_a_lot_pays_no_debt_of_what_was_admitted_after_its_expiry() -> None:
    organization = make_organization()
    lot = give(organization, 100, expires_at=timezone.now() + timedelta(milliseconds=300))
    time.sleep(0.4)
    owe(organization, 30)
    assert expire_lots(organization, available_nanos=70 - 80) == Expiry(20, 80)  # 80 are held still.
    assert expire_lots(organization, available_nanos=-30 + 80) == Expiry(80, 0)
    assert (remaining(lot), account_balances(organization)) == ([0], {"receivable": -30})
    assert_ledger_holds()


@pytest.mark.parametrize("reads_under_the_lock", [True, False])
def test_a_charge_between_reading_and_locking_is_not_expired_again(
    soon: datetime, monkeypatch: pytest.MonkeyPatch, reads_under_the_lock: bool
) -> None:
    """With the negative control: lots that are read before the lock expire what a charge has just taken from them."""
    organization = make_organization()
    lot = give(organization, 100, expires_at=soon)
    lock_balances, read_lots = rows.lock_balances, rows.read_lots
    stale: list[Lot] = []

    def charge_before_the_lock(organization_ids: Sequence[int]) -> dict[int, Balance]:
        if not stale:
            stale.extend(read_lots(organization_ids))
            settle(make_event(organization, 80, admitted_at_ms=int(soon.timestamp() * 1000) - 1))
            if not reads_under_the_lock:
                monkeypatch.setattr(rows, "read_lots", lambda *_, **__: stale)
        return lock_balances(organization_ids)

    monkeypatch.setattr(rows, "lock_balances", charge_before_the_lock)
    if reads_under_the_lock:
        assert expire_lots(organization, available_nanos=100, now=after(soon)) == Expiry(20, 0)
        assert remaining(lot) == [0]
        assert_ledger_holds()
    else:
        expire_lots(organization, available_nanos=100, now=after(soon))
        with pytest.raises(AssertionError):
            assert_ledger_holds()
