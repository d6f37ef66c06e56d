"""Proven months: what was checked is digested; only what is open, and the months whose turn it is, are read again."""

from datetime import UTC, date, datetime, timedelta
from io import StringIO
from itertools import pairwise

import pytest
from django.core.management import call_command
from django.db import IntegrityError, connection, transaction

from accounts.models import Organization
from billing.checks import (
    CHECKS,
    Span,
    open_months,
    prove_due_months,
    proven_check,
    proven_months,
    run_checks,
    span_of,
)
from billing.checks.books import Books
from billing.checks.months import NIGHTS
from billing.checks.seals import read_sealed
from billing.corrections.refunds import refund_usage
from billing.documents.periods import month_of
from billing.ledger.seals import make_seal, sealing_key
from billing.models import LedgerTransaction, ProvenMonth, ReconciliationBreak, UsageRecord
from billing.reconciliation.runs import check_books
from tests.billing.checks.test_check_ledger import force
from tests.billing.ledger_factory import give, make_event, make_organization, settle

pytestmark = pytest.mark.django_db
NOW = datetime.now(UTC)
THIS_MONTH = month_of(NOW)
LAST_MONTH = THIS_MONTH.previous
BEFORE_LAST = LAST_MONTH.previous
OVER = LAST_MONTH.ends + timedelta(days=11)  # Last month is over for long enough, this one is not.


@pytest.fixture
def alice() -> Organization:
    """An organization with something of each of the last two months and of this one, and a free record in each."""
    organization = make_organization("Alice")
    give(organization, 50_000)
    move_last_transactions(BEFORE_LAST.begins + timedelta(hours=1))
    for month in (BEFORE_LAST, LAST_MONTH, THIS_MONTH):
        at = month.begins + timedelta(hours=2)
        at_ms = int(at.timestamp() * 1000)
        settle(
            make_event(organization, 700, admitted_at_ms=at_ms),
            make_event(organization, 0, admitted_at_ms=at_ms, usage_source="orphan"),
        )
        move_last_transactions(at)
    assert check() == []
    return organization


def move_last_transactions(at: datetime) -> None:
    """Let what was just posted, and the records that it settled, be of an earlier moment."""
    before = LedgerTransaction.objects.filter(created_at__lt=at).order_by("-id").first()
    after = before.pk if before else 0
    today = NOW.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(minutes=5)
    force("UPDATE billing_ledgertransaction SET created_at = %s WHERE id > %s AND created_at >= %s", at, after, today)
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL session_replication_role = replica")
        cursor.execute("UPDATE billing_usagerecord SET settled_at = %s WHERE settled_at >= %s", [at, today])
        for sealed, _ in list(read_sealed(Books())):
            seal = make_seal(sealing_key(), sealed)
            cursor.execute(
                "UPDATE billing_ledgertransaction SET seal = %s WHERE id = %s", [seal, sealed.transaction_id]
            )
        cursor.execute("SET LOCAL session_replication_role = origin")


def check(*, now: datetime = NOW, night: date | None = None) -> list[str]:
    months = proven_months(night=night)
    spans = [*map(span_of, months), *(span for _, span in open_months(now=now))]
    return run_checks([*CHECKS, proven_check(months)], spans).breaks


def prove(now: datetime = OVER) -> list[str]:
    return [str(month) for month, breaks in prove_due_months(CHECKS, now=now) if not breaks]


def test_months_follow_each_other_and_leave_nothing_out(alice: Organization) -> None:
    months = open_months(now=NOW)
    assert [str(month) for month, _ in months] == [str(BEFORE_LAST), str(LAST_MONTH), str(THIS_MONTH)]
    spans = [span for _, span in months]
    assert (spans[0].after_transaction_id, spans[0].begins) == (None, None)
    assert (spans[-1].last_transaction_id, spans[-1].ends) == (None, None)
    for before, after in pairwise(spans):
        assert (before.last_transaction_id, before.ends) == (after.after_transaction_id, after.begins)


def test_a_month_is_proven_once_it_is_over_for_a_while(alice: Organization) -> None:
    assert prove(LAST_MONTH.ends + timedelta(days=9)) == [str(BEFORE_LAST)]
    assert prove() == [str(LAST_MONTH)]
    assert prove() == []
    first, second = ProvenMonth.objects.all()
    assert {table: digest["rows"] for table, digest in first.digests.items()} == {
        "billing_ledgertransaction": 2,
        "billing_ledgerentry": 4,
        "billing_creditlotentry": 2,
        "billing_usagerecord": 2,
        "billing_usagecorrection": 0,
        "billing_ledgeraccount": 3,
        "billing_creditlot": 1,
        "billing_priceversion": 1,
        "billing_pricecomponent": 2,
    }
    assert second.digests["billing_usagerecord"]["rows"] == 2
    assert first.digests["billing_usagerecord"] != second.digests["billing_usagerecord"]
    assert [str(month) for month, _ in open_months(now=NOW)] == [str(THIS_MONTH)]
    assert check() == []


def test_a_month_with_a_break_is_not_proven_and_none_after_it(alice: Organization) -> None:
    force("UPDATE billing_usagehour SET cost_nanos = cost_nanos + 1 WHERE hour < %s", BEFORE_LAST.ends)
    ((month, breaks),) = prove_due_months(CHECKS, now=OVER)
    assert month == BEFORE_LAST
    assert any(line.startswith("I4 hour ") for line in breaks)
    assert not ProvenMonth.objects.exists()


def test_what_comes_late_for_a_proven_month_is_no_break(alice: Organization) -> None:
    prove()
    record = UsageRecord.objects.filter(organization_id=alice.pk, cost_nanos=700).earliest("admitted_at")
    refund_usage(alice, request_id=record.pk, reason="r", actor="a", idempotency_key="k", amount_nanos=10)
    at_ms = int((BEFORE_LAST.begins + timedelta(hours=3)).timestamp() * 1000)
    late = make_event(alice, 40, admitted_at_ms=at_ms)
    orphan = make_event(alice, 20, usage_source="orphan", admitted_at_ms=at_ms)
    settle(late, orphan, make_event(alice, 0, usage_source="orphan", admitted_at_ms=at_ms))
    settle(make_event(alice, 30, request_id=orphan.request_id, admitted_at_ms=at_ms))
    assert check() == []


def test_an_erased_person_changes_no_digest(alice: Organization) -> None:
    prove()
    force("UPDATE billing_ledgertransaction SET actor = 'person 7'")
    force("UPDATE billing_priceversion SET created_by = 'person 7', approved_by = 'person 8'")
    assert check() == []


def test_each_proven_month_has_its_turn_once_in_so_many_nights(alice: Organization) -> None:
    prove()
    first, second = proven_months()
    force("UPDATE billing_usagerecord SET upstream = 'x' WHERE admitted_at < %s", BEFORE_LAST.ends)
    nights = [NOW.date() + timedelta(days=number) for number in range(NIGHTS)]
    turns = [[row.month for row in proven_months(night=night)] for night in nights]
    assert sorted(month for turn in turns for month in turn) == [first.month, second.month]
    noticed = [bool(check(night=night)) for night in nights]
    assert noticed == [first.month in turn for turn in turns]
    assert check(night=nights[noticed.index(True)]) == [
        f"I17 proven month {first.month}: one of 2 rows of billing_usagerecord is not what it was"
    ]


def test_i17_what_was_written_of_a_month_cannot_be_changed(alice: Organization) -> None:
    prove()
    with pytest.raises(IntegrityError), transaction.atomic():
        ProvenMonth.objects.update(sha256="0")
    force(
        "UPDATE billing_provenmonth SET digests = jsonb_set(digests, '{billing_usagerecord,rows}', '9')"
        " WHERE month = %s",
        str(BEFORE_LAST),
    )
    # Each says the one before, too, and that one is compared every night.
    assert check(night=night_without_turn())[0].startswith(f"I17 proven month {BEFORE_LAST}: what was written down")


def test_i17_a_proven_month_that_is_gone(alice: Organization) -> None:
    prove()
    force("DELETE FROM billing_provenmonth WHERE month = %s", str(BEFORE_LAST))
    assert any(line.startswith(f"I17 proven month {LAST_MONTH}: what") for line in check(night=night_without_turn()))


def night_without_turn() -> date:
    nights = (NOW.date() + timedelta(days=number) for number in range(NIGHTS))
    return next(night for night in nights if not proven_months(night=night))


def test_spans_read_only_their_own_rows(alice: Organization) -> None:
    """A break in one month shows in its own span, and in no other."""
    record = UsageRecord.objects.filter(organization_id=alice.pk, cost_nanos=700).earliest("admitted_at")
    force("UPDATE billing_usagerecord SET output_tokens = 1 WHERE request_id = %s", record.pk)
    scoped = [each for each in CHECKS if not each.is_whole]
    found = [bool(run_checks(scoped, [span]).breaks) for _, span in open_months(now=NOW)]
    assert found == [True, False, False]
    assert run_checks(scoped, [Span()]).breaks


def test_the_night_keeps_what_it_finds_until_the_month_has_its_turn_again(alice: Organization) -> None:
    turn = next(night for night in (OVER + timedelta(days=number) for number in range(NIGHTS)) if has_turn_first(night))
    check_books(now=OVER)
    assert ProvenMonth.objects.count() == 2
    force("UPDATE billing_usagerecord SET upstream = 'x' WHERE admitted_at < %s", BEFORE_LAST.ends)
    check_books(now=turn)
    check_books(now=turn + timedelta(days=1))
    (row,) = ReconciliationBreak.objects.filter(source="ledger")
    assert (row.state, row.day) == ("open", BEFORE_LAST.begins.date())
    force("UPDATE billing_usagerecord SET upstream = 'acme' WHERE admitted_at < %s", BEFORE_LAST.ends)
    check_books(now=turn + timedelta(days=NIGHTS))
    assert ReconciliationBreak.objects.get(source="ledger").state == "vanished"


def has_turn_first(night: datetime) -> bool:
    return night.date().toordinal() % NIGHTS == 0


def test_the_command_proves_and_says_until_when(alice: Organization) -> None:
    def run(*arguments: str) -> list[str]:
        output = StringIO()
        call_command("check_ledger", *arguments, stdout=output)
        return output.getvalue().splitlines()

    lines = run("--prove")
    proven = list(ProvenMonth.objects.values_list("month", flat=True))
    assert proven[0] == str(BEFORE_LAST)
    assert f"{BEFORE_LAST} is proven" in lines
    last = ProvenMonth.objects.latest("month")
    assert lines[-1] == f"proven until the end of {last.month}: {last.sha256}"
    assert any(line.startswith("ok      I17 ") for line in run("--whole"))
