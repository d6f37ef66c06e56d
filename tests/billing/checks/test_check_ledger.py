"""check_ledger: silent on a sound ledger, and each invariant, broken by force, is reported with its ids."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from uuid import UUID

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone

from accounts.models import Organization
from billing.admission.outbox import publish_pending_changes
from billing.checks import CHECKS, run_checks
from billing.corrections.refunds import refund_usage
from billing.models import CreditLot, LedgerAccount, LedgerTransaction, UsageRecord
from tests.billing.ledger_factory import (
    give,
    make_event,
    make_failed_event,
    make_organization,
    settle,
)

pytestmark = pytest.mark.django_db


@contextmanager
def guards_taken_out() -> Iterator[None]:
    """Let the statements inside pass the triggers that would refuse them."""
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("SET LOCAL session_replication_role = replica")
        try:
            yield
        finally:
            cursor.execute("SET LOCAL session_replication_role = origin")


def force(sql: str, *parameters: int | str | UUID | datetime) -> None:
    """Run a statement that must change something, with the guards taken out."""
    with guards_taken_out(), connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        assert cursor.rowcount != 0


def broken() -> list[str]:
    return run_checks(CHECKS).breaks


@pytest.fixture
def alice() -> Organization:
    """An organization with two lots, a lot that ended, three billed requests and a failed one."""
    organization = make_organization("Alice")
    give(organization, 1_000, kind="promotional")
    give(organization, 50_000)
    settle(make_event(organization, 700), make_event(organization, 800), make_failed_event(organization))
    settle(make_event(organization, 5, usage_source="orphan", upstream_cost_nanos=3))
    settle(make_event(organization, 0, usage_source="orphan", upstream_cost_nanos=3))
    return organization


@pytest.fixture
def bob() -> Organization:
    organization = make_organization("Bob")
    give(organization, 9_000)
    settle(make_event(organization, 70))
    return organization


def usage_transaction(organization: Organization) -> LedgerTransaction:
    return LedgerTransaction.objects.filter(organization=organization, kind="usage").earliest("id")


def record_of(organization: Organization) -> UsageRecord:
    records = UsageRecord.objects.filter(organization_id=organization.pk, usage_source="provider")
    return records.earliest("cost_nanos")


def test_sound_books_have_no_breaks(alice: Organization, bob: Organization) -> None:
    report = run_checks(CHECKS)
    assert report.breaks == []
    looked_at_nothing = {check.invariant for check, outcome in report.outcomes if not outcome.rows}
    # Nothing in quarantine, no correction, refund, code or payment.
    # Nothing is in quarantine; there is no correction, refund, code, payment or document.
    assert looked_at_nothing == {"I3", "I4", "I9", "I10", "I11", "I12"}


def test_i1_an_unbalanced_transaction(alice: Organization) -> None:
    ledger = usage_transaction(alice)
    force(
        "UPDATE billing_ledgerentry SET amount_nanos = amount_nanos + 1 WHERE transaction_id = %s AND amount_nanos > 0",
        ledger.pk,
    )
    assert f"I1 transaction {ledger.pk} sums to 1 nanos" in broken()


def test_i1_a_transaction_without_entries(alice: Organization) -> None:
    ledger = usage_transaction(alice)
    force("DELETE FROM billing_ledgerentry WHERE transaction_id = %s", ledger.pk)
    assert f"I1 transaction {ledger.pk} has no entries" in broken()


def test_i2_an_account_that_does_not_follow_from_its_entries(alice: Organization) -> None:
    account = LedgerAccount.objects.get(organization=alice, kind="prepaid")
    force("UPDATE billing_ledgeraccount SET balance_nanos = balance_nanos + 5 WHERE id = %s", account.pk)
    breaks = broken()
    assert any(line.startswith(f"I2 account {account.pk}: balance {account.balance_nanos + 5}") for line in breaks)
    assert any(line.startswith(f"I2 organization {alice.pk}: posted balance") for line in breaks)
    assert any(line.startswith(f"I10 organization {alice.pk}: prepaid account") for line in breaks)


def test_i2_a_gap_in_the_entries(alice: Organization) -> None:
    account = LedgerAccount.objects.get(organization=alice, kind="prepaid")
    force("UPDATE billing_ledgerentry SET seq = 99 WHERE account_id = %s AND seq = %s", account.pk, account.last_seq)
    assert f"I2 account {account.pk}: entry seq 99 stands in place {account.last_seq}" in broken()


def test_i2_a_wrong_balance_after(alice: Organization) -> None:
    account = LedgerAccount.objects.get(organization=alice, kind="promotional")
    force("UPDATE billing_ledgerentry SET balance_after_nanos = 7 WHERE account_id = %s AND seq = 1", account.pk)
    breaks = broken()
    assert f"I2 account {account.pk} seq 1: balance after is 7, with the entry before it 1000" in breaks
    assert any(line.startswith(f"I15 account {account.pk} after transaction") for line in breaks)


def test_i2_a_balance_that_does_not_follow_from_its_accounts(alice: Organization) -> None:
    force("UPDATE billing_organizationbalance SET posted_nanos = 1 WHERE organization_id = %s", alice.pk)
    assert any(line.startswith(f"I2 organization {alice.pk}: posted balance 1,") for line in broken())


def test_i2_a_version_that_missed_a_posting(alice: Organization) -> None:
    force("UPDATE billing_organizationbalance SET version = 1 WHERE organization_id = %s", alice.pk)
    assert f"I2 organization {alice.pk}: version 1, but 4 postings" in broken()


def test_i3_a_request_that_is_billed_and_failed(alice: Organization) -> None:
    record = record_of(alice)
    force("UPDATE billing_failedrequest SET request_id = %s", record.pk)
    assert f"I3 request {record.pk} of organization {alice.pk} is recorded as billed and as failed" in broken()


def test_i3_an_event_in_quarantine(alice: Organization) -> None:
    force(
        """INSERT INTO billing_usagequarantine (organization_id, shard, stream_id, raw_event, reason, created_at,
            resolved_by) VALUES (%s, 3, '1-1', '', 'bad', now(), '')""",
        alice.pk,
    )
    assert any(f"event 3/1-1 of organization {alice.pk} waits" in line for line in broken())
    force("UPDATE billing_usagequarantine SET resolved_at = now()")
    assert broken() == []


def test_i4_a_record_without_a_debit(alice: Organization) -> None:
    record = record_of(alice)
    force("UPDATE billing_usagerecord SET ledger_transaction_id = NULL WHERE request_id = %s", record.pk)
    breaks = broken()
    assert f"I4 usage {record.pk} of organization {alice.pk} cost 700 nanos and has no debit" in breaks
    assert f"I4 transaction {record.ledger_transaction_id} debits 1500 nanos; its usage cost 800" in breaks


def test_i4_two_records_for_one_debit(alice: Organization) -> None:
    """What would follow if the unique request id did not de-duplicate."""
    record = record_of(alice)
    twin = UsageRecord.objects.get(pk=record.pk)
    twin.pk = make_event(alice).request_id
    twin.save(force_insert=True)
    breaks = broken()
    assert f"I4 transaction {record.ledger_transaction_id} debits 1500 nanos; its usage cost 2200" in breaks
    assert any(line.startswith("I4 hour ") for line in breaks)
    assert any(line.startswith("I4 day ") for line in breaks)


def test_i4_a_free_record_with_a_debit(alice: Organization) -> None:
    record = UsageRecord.objects.get(organization_id=alice.pk, cost_nanos=0)
    ledger = usage_transaction(alice)
    force("UPDATE billing_usagerecord SET ledger_transaction_id = %s WHERE request_id = %s", ledger.pk, record.pk)
    assert f"I4 usage {record.pk} cost nothing and names transaction {ledger.pk}" in broken()


def test_i4_a_record_that_rates_otherwise(alice: Organization) -> None:
    record = record_of(alice)
    force("UPDATE billing_usagerecord SET output_tokens = 1 WHERE request_id = %s", record.pk)
    expected = f"cost $0.0000007; rated by price version {record.price_version_id} it is $0.000000705"
    assert any(line.startswith(f"I4 usage {record.pk}") and line.endswith(expected) for line in broken())


def test_i4_a_record_of_no_price_version(alice: Organization) -> None:
    record = record_of(alice)
    force("UPDATE billing_usagerecord SET price_version_id = 987654 WHERE request_id = %s", record.pk)
    assert any("there is no such price version" in line for line in broken())


@pytest.mark.parametrize(
    "column",
    [
        "requests",
        "input_tokens",
        "output_tokens",
        "cache_write_tokens",
        "cache_read_tokens",
        "cost_nanos",
        "upstream_cost_nanos",
    ],
)
def test_i4_an_hour_that_is_not_the_sum_of_its_records(alice: Organization, bob: Organization, column: str) -> None:
    statement = f"UPDATE billing_usagehour SET {column} = {column} + 1 WHERE organization_id = %s"  # noqa: S608
    force(statement, alice.pk)
    breaks = broken()
    assert breaks
    # The day is the sum of its hours, and was not changed with this one.
    assert any(line.startswith("I4 hour ") for line in breaks)
    assert all(line.startswith(("I4 hour ", "I4 day ")) and f"organization {alice.pk}," in line for line in breaks)


@pytest.mark.parametrize("statement", ["UPDATE billing_budgetday SET cost_nanos = 1", "DELETE FROM billing_budgetday"])
@pytest.mark.parametrize("key_id", [0, 7])
def test_i4_a_budget_day_that_is_not_the_sum_of_its_records(alice: Organization, statement: str, key_id: int) -> None:
    force(f"{statement} WHERE key_id = %s", key_id)
    (line,) = broken()
    assert line.startswith("I4 day ")
    assert f"of organization {alice.pk}, key {key_id}:" in line


def test_i9_a_refund_of_another_request(alice: Organization) -> None:
    record = record_of(alice)
    refund = refund_usage(alice, request_id=record.pk, reason="r", actor="a", idempotency_key="k").transaction
    assert broken() == []
    other = UsageRecord.objects.filter(organization_id=alice.pk, cost_nanos=800).get()
    force(
        "UPDATE billing_ledgertransaction SET idempotency_key = replace(idempotency_key, %s, %s) WHERE id = %s",
        record.pk.hex,
        other.pk.hex,
        refund.pk,
    )
    assert any(line.startswith(f"I9 refund {refund.pk} of organization {alice.pk} was posted for") for line in broken())


def test_i10_a_lot_out_of_bounds(alice: Organization) -> None:
    lot = CreditLot.objects.get(organization=alice, kind="paid")
    with guards_taken_out(), connection.cursor() as cursor:
        cursor.execute("ALTER TABLE billing_creditlot DROP CONSTRAINT credit_lot_remaining_in_bounds")
    force("UPDATE billing_creditlot SET remaining_nanos = 50001 WHERE id = %s", lot.pk)
    assert f"I10 lot {lot.pk}: 50001 left of 50000 nanos" in broken()


def test_i10_a_lot_that_does_not_follow_from_its_entries(alice: Organization) -> None:
    lot = CreditLot.objects.get(organization=alice, kind="paid")
    force("UPDATE billing_creditlotentry SET remaining_after_nanos = 3 WHERE lot_id = %s AND amount_nanos < 0", lot.pk)
    assert any(line.startswith(f"I10 lot {lot.pk} after entry") and "recorded 3," in line for line in broken())
    force("DELETE FROM billing_creditlotentry WHERE lot_id = %s AND amount_nanos < 0", lot.pk)
    breaks = broken()
    assert f"I10 lot {lot.pk}: {lot.remaining_nanos} nanos left, its entries sum to 50000" in breaks
    assert any("prepaid lots and" in line and line.startswith("I10 transaction") for line in breaks)


def test_i10_lots_that_do_not_sum_to_their_account(alice: Organization) -> None:
    """Promotional credit that is passed off as paid."""
    give(alice, 100, kind="promotional")
    lot = CreditLot.objects.filter(organization=alice, kind="promotional").latest("id")
    force("UPDATE billing_creditlot SET kind = 'paid' WHERE id = %s", lot.pk)
    breaks = broken()
    assert f"I10 organization {alice.pk}: promotional account 100 nanos, lots 0" in breaks
    assert any(line.startswith(f"I10 organization {alice.pk}: prepaid account") for line in breaks)


def test_i10_a_lot_that_was_drawn_after_its_expiry(alice: Organization) -> None:
    lot = CreditLot.objects.get(organization=alice, kind="paid")
    force("UPDATE billing_creditlot SET expires_at = %s WHERE id = %s", timezone.now() - timedelta(days=1), lot.pk)
    ledger = usage_transaction(alice)
    assert any(
        line.startswith(f"I10 transaction {ledger.pk} drew 500 nanos from lot {lot.pk}, which expired")
        for line in broken()
    )


def test_i13_a_transaction_that_links_two_organizations(alice: Organization, bob: Organization) -> None:
    ledger = usage_transaction(alice)
    force("UPDATE billing_ledgertransaction SET organization_id = %s WHERE id = %s", bob.pk, ledger.pk)
    breaks = broken()
    assert any(line.startswith(f"I13 transaction {ledger.pk} of organization {bob.pk} has an entry") for line in breaks)
    assert any(line.startswith(f"I13 transaction {ledger.pk} of organization {bob.pk} moves lot") for line in breaks)
    assert any(line.startswith("I13 usage ") and f"of organization {alice.pk} is debited by" in line for line in breaks)


def test_i15_entries_out_of_the_order_of_transactions(alice: Organization) -> None:
    """Swap the transactions of two entries: each account still sums up, but not as of the moments between."""
    account = LedgerAccount.objects.get(organization=alice, kind="prepaid")
    first, last = account.entries.order_by("seq").values_list("pk", "transaction_id")[:2]
    force("UPDATE billing_ledgerentry SET transaction_id = %s WHERE id = %s", last[1], first[0])
    force("UPDATE billing_ledgerentry SET transaction_id = %s WHERE id = %s", first[1], last[0])
    assert any(line.startswith(f"I15 account {account.pk} after transaction {first[1]}:") for line in broken())


def test_every_invariant_was_seen_to_fail() -> None:
    """An invariant without a negative control above might be one that cannot be found broken."""
    text = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    for check in CHECKS:
        assert f"def test_{check.invariant.lower()}_" in text


def test_no_more_than_a_page_of_breaks_is_listed(alice: Organization) -> None:
    events = [make_event(alice, 1, input_tokens=number) for number in range(2, 72)]
    settle(*events)
    lines = [line for line in broken() if "rated by price version" in line]
    assert len(lines) == 50


def test_what_cost_nothing_is_no_last_use(alice: Organization) -> None:
    later_ms = int(datetime.now(UTC).timestamp() * 1000) + 60_000
    orphan = make_event(alice, 0, usage_source="orphan", admitted_at_ms=later_ms)
    settle(orphan)
    assert broken() == []
    settle(make_event(alice, 30, request_id=orphan.request_id, admitted_at_ms=later_ms))
    assert broken() == []


# --- The command --------------------------------------------------------------------------------------------------


def run(*arguments: str) -> list[str]:
    output = StringIO()
    call_command("check_ledger", *arguments, stdout=output)
    return output.getvalue().splitlines()


def test_the_command_lists_what_holds(alice: Organization) -> None:
    publish_pending_changes()
    lines = run()
    assert [line.split()[0] for line in lines[:-1]] == ["ok"] * (len(CHECKS) + 2)
    assert lines[-2].split()[:2] == ["ok", "I8"]
    assert lines[-1].startswith(f"{len(CHECKS) + 2} checks over ")
    assert lines[-1].endswith(" rows: 0 breaks")
    assert run("--quiet") == lines[-1:]


def test_the_command_fails_and_lists_what_is_broken(alice: Organization) -> None:
    force("UPDATE billing_organizationbalance SET posted_nanos = 1 WHERE organization_id = %s", alice.pk)
    output = StringIO()
    with pytest.raises(CommandError, match="rows: 1 breaks"):
        call_command("check_ledger", "--quiet", stdout=output)
    lines = output.getvalue().splitlines()
    assert lines[0].startswith("BROKEN  I2")
    assert f"organization {alice.pk}: posted balance 1" in lines[1]
