"""The event at fault goes to quarantine, alone and once; a fault of the database is no event's fault."""

from unittest import mock

import pytest
from django.db import OperationalError, connection

from accounts.models import Organization
from billing.models import (
    UsageQuarantine,
    UsageRecord,
)
from billing.settlement import rows
from billing.settlement.batch import settle_batch
from billing.shards import SHARD_COUNT, shard_of
from tests.billing.ledger_factory import (
    USD,
    assert_ledger_holds,
    entry_of,
    give,
    make_event,
    make_organization,
    posted,
    settle_entries,
)

pytestmark = pytest.mark.django_db


def poison_events(organization: Organization) -> dict[str, tuple[bytes, dict[str, object]]]:
    event = make_event(organization)
    neighbour = make_organization("Neighbour")
    assert shard_of(neighbour.pk) != shard_of(organization.pk)

    def changed(**values: object) -> bytes:
        for name, value in values.items():
            setattr(event, name, value)
        return event.encode()

    return {
        "not JSON": (b"{", {}),
        "an unknown version": (make_event(organization, v=99).encode(), {}),
        "NUL in a text": (make_event(organization, upstream="a\x00b").encode(), {}),
        "NUL that only jsonb refuses": (make_event(organization, attempts=[{"error": "a\x00b"}]).encode(), {}),
        "an id beyond bigint": (make_event(organization, price_version_id=2**63).encode(), {}),
        "a negative cost": (make_event(organization, cost_nanos=-5).encode(), {}),
        "no request id": (make_event(organization, request_id="nonsense").encode(), {}),
        "attempts of a wrong type": (make_event(organization, attempts="none").encode(), {}),
        "the key that stands for all keys": (make_event(organization, key_id=0).encode(), {}),
        "another organization than its entry": (changed(organization_id=organization.pk + SHARD_COUNT), {}),
        "a time before 1970": (make_event(organization, admitted_at_ms=-1).encode(), {}),
        "an unknown organization": (
            changed(organization_id=organization.pk + 1000 * SHARD_COUNT),
            {"organization_id": organization.pk + 1000 * SHARD_COUNT},
        ),
        "an organization of another shard": (
            changed(organization_id=neighbour.pk),
            {"organization_id": neighbour.pk},
        ),
    }


POISONS = [
    "not JSON",
    "an unknown version",
    "NUL in a text",
    "NUL that only jsonb refuses",
    "an id beyond bigint",
    "a negative cost",
    "no request id",
    "attempts of a wrong type",
    "the key that stands for all keys",
    "another organization than its entry",
    "a time before 1970",
    "an unknown organization",
    "an organization of another shard",
]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("poison", POISONS)
def test_an_event_at_fault_is_quarantined_alone_and_once(poison: str) -> None:
    organization = make_organization()
    give(organization, USD)
    raw, values = poison_events(organization)[poison]
    good = [entry_of(make_event(organization)) for _ in range(6)]
    bad = entry_of(make_event(organization), raw_event=raw, **values)
    entries = [*good[:3], bad, *good[3:]]
    shard = shard_of(organization.pk)
    for inserted, quarantined in [(6, 1), (0, 0)]:
        batch = settle_batch(shard, entries)
        assert batch is not None
        assert (batch.inserted, batch.quarantined) == (inserted, quarantined)
        assert sorted(batch.stream_ids) == sorted(entry.stream_id for entry in entries)
    row = UsageQuarantine.objects.get()
    assert row.organization_id == (None if poison == "an unknown organization" else bad.organization_id)
    assert (row.shard, row.stream_id, bytes(row.raw_event)) == (shard, bad.stream_id, raw)
    assert row.reason
    assert posted(organization) == USD - 6_000


def test_the_poisons_are_all_tried() -> None:
    assert list(poison_events(make_organization())) == POISONS


def test_an_event_that_is_sent_again_adds_no_second_row_but_another_event_does() -> None:
    organization = make_organization()
    event = make_event(organization)
    entry = entry_of(event, raw_event=b"{")
    settle_entries([entry])
    settle_entries([entry_of(event, raw_event=b"{")])
    assert UsageQuarantine.objects.count() == 1
    # A Redis that came back empty may give the same stream id to another event.
    settle_entries([entry_of(event, raw_event=b"[", stream_id=entry.stream_id)])
    assert {bytes(row.raw_event) for row in UsageQuarantine.objects.all()} == {b"{", b"["}


@pytest.mark.django_db(transaction=True)
def test_a_fault_of_the_database_is_no_events_fault() -> None:
    organization = make_organization()
    give(organization, USD)
    entries = [entry_of(make_event(organization)) for _ in range(4)]
    settled_before = settle_entries(entries[:1])
    assert settled_before.inserted == 1

    def lose_the_connection(*_: object, **__: object) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    # The connection is really lost; only the moment is chosen by the patch.
    with mock.patch.object(rows, "add_to_hours", lose_the_connection), pytest.raises(OperationalError):
        settle_batch(shard_of(organization.pk), entries)
    connection.close()
    assert not UsageQuarantine.objects.exists()
    assert UsageRecord.objects.count() == 1
    assert settle_entries(entries).inserted == 3
    assert_ledger_holds()
