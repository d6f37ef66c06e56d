"""The default partition: what lies there moves when its month is made, whoever settles meanwhile."""

import threading
from datetime import UTC, datetime, timedelta

import pytest
from django.db import IntegrityError, connection, connections, transaction
from django.utils import timezone

from billing.credit.top_ups import grant_credit
from billing.maintenance import run_maintenance
from billing.models import CreditLot, UsageRecord
from billing.partitions import create_partitions, missing_partitions, month_start, months_due
from billing.shards import shard_of
from tests.billing.ledger_factory import make_event, make_organization, settle
from tests.billing.usage_factory import add_record, request_id_at
from tests.support.aged_lots import age_lots, age_shard

FUTURE = datetime(2033, 5, 17, 12, tzinfo=UTC)
LONG_AGO = datetime(2001, 2, 3, tzinfo=UTC)
DEADLINE_SECONDS = 30.0


def partition_of(record: UsageRecord) -> str:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT tableoid::regclass::text FROM billing_usagerecord WHERE request_id = %s", [record.request_id]
        )
        return str(cursor.fetchone()[0])


@pytest.mark.django_db
def test_a_record_of_a_skewed_clock_moves_into_its_month_unchanged() -> None:
    organization = make_organization()
    ahead = add_record(organization, admitted_at=FUTURE, cost_nanos=17, attempts=[])
    old = add_record(organization, admitted_at=LONG_AGO)
    assert [partition_of(ahead), partition_of(old)] == ["billing_usagerecord_default"] * 2
    before = UsageRecord.objects.filter(pk=ahead.pk).values().get()
    assert missing_partitions(now=FUTURE)
    assert "billing_usagerecord_2033_05" in create_partitions(now=FUTURE)
    assert missing_partitions(now=FUTURE) == []
    assert partition_of(ahead) == "billing_usagerecord_2033_05"
    assert UsageRecord.objects.filter(pk=ahead.pk).values().get() == before
    assert partition_of(old) == "billing_usagerecord_default"
    for record in (ahead, old):  # As immutable as before, wherever it lies.
        for change in ("UPDATE {} SET cost_nanos = 0", "DELETE FROM {}"):
            with pytest.raises(IntegrityError), transaction.atomic(), connection.cursor() as cursor:
                cursor.execute(change.format(partition_of(record)))
        with pytest.raises(IntegrityError), transaction.atomic():
            add_record(organization, admitted_at=FUTURE, request_id=record.request_id)


@pytest.mark.django_db
def test_records_at_the_edges_of_a_month_lie_in_their_own() -> None:
    organization = make_organization()
    edges = [datetime(2033, 5, 1, tzinfo=UTC), datetime(2033, 5, 31, 23, 59, 59, 999000, tzinfo=UTC)]
    inside = [add_record(organization, admitted_at=edge) for edge in edges]
    after = add_record(organization, admitted_at=datetime(2033, 9, 1, tzinfo=UTC))
    create_partitions(now=FUTURE)
    assert [partition_of(record) for record in inside] == ["billing_usagerecord_2033_05"] * 2
    assert partition_of(after) == "billing_usagerecord_default"


@pytest.mark.django_db(transaction=True)
def test_it_moves_while_workers_settle_into_both() -> None:
    organization = make_organization()
    settle(make_event(organization, 1))
    stop, failures, settled = threading.Event(), list[BaseException](), list[str]()

    def go_on_settling() -> None:
        try:
            while not stop.is_set():
                future = request_id_at(month_start(2035, len(settled) % 4 + 1)).hex
                event, ahead = make_event(organization, 1), make_event(organization, 1, request_id=future)
                settle(event, ahead)
                settled.extend([event.request_id, ahead.request_id])
        except BaseException as error:
            failures.append(error)
        finally:
            connections.close_all()

    worker = threading.Thread(target=go_on_settling)
    worker.start()
    try:
        created = []
        for month in range(1, 5):
            enough = len(settled) + 8
            while len(settled) < enough and not failures:
                stop.wait(0.01)
            created += create_partitions(now=month_start(2034, 9 + month))
    finally:
        stop.set()
        worker.join(DEADLINE_SECONDS)
    assert failures == []
    assert len(created) == 7
    found = UsageRecord.objects.filter(request_id__in=settled)
    assert (found.count(), len(settled)) == (len(set(settled)), len(set(settled)))
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM billing_usagerecord_default WHERE model_id = 'acme/large'")
        assert cursor.fetchone()[0] == 0
        for name in created:  # For the tests that come: their months are not there.
            cursor.execute(f"DROP TABLE {name}")


@pytest.mark.django_db
def test_each_part_of_housekeeping_fails_alone_and_heals(caplog: pytest.LogCaptureFixture) -> None:
    organization = make_organization()
    grant_credit(
        organization, amount_nanos=500, kind=CreditLot.Kind.PROMOTIONAL, reason="test", actor="test",
        idempotency_key="first", expires_at=timezone.now() + timedelta(hours=1),
    )  # fmt: skip
    age_shard(shard_of(organization.pk))
    age_lots(timedelta(seconds=1))
    with connection.cursor() as cursor:
        cursor.execute(f"DROP TABLE {months_due(datetime.now(UTC))[0][0]}")
        cursor.execute("ALTER TABLE billing_usagerecord_default RENAME TO mislaid")
    assert run_maintenance() == ["the partitions of the months to come"]
    assert "the partitions of the months to come failed" in caplog.text
    assert CreditLot.objects.get(organization=organization).remaining_nanos == 0  # It has expired all the same.
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE mislaid RENAME TO billing_usagerecord_default")
    assert run_maintenance() == []
    assert missing_partitions(now=datetime.now(UTC)) == []
