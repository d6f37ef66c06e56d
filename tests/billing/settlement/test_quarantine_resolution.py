"""A quarantined event is settled after its fault was repaired, or given up with a reason; each once."""

from io import StringIO

import pytest
import redis
from django.core.management import CommandError, call_command

from accounts.models import ApiKey, Organization
from accounts.staff_roles import StaffRole
from billing.admission.outbox import publish_pending_changes
from billing.admission.redis_keys import shard_keys_of
from billing.checks import CHECKS, run_checks
from billing.models import FailedRequest, LedgerTransaction, UsageQuarantine, UsageRecord
from billing.settlement.quarantine_resolution import (
    AlreadyResolvedError,
    ResolutionError,
    discard_quarantined,
    settle_quarantined,
)
from billing.shards import shard_of
from billing.usage_event import UsageEvent
from tests.billing.ledger_factory import (
    USD,
    assert_ledger_holds,
    entry_of,
    give,
    make_event,
    make_failed_event,
    make_organization,
    posted,
    settle,
    settle_entries,
)
from tests.support.operators import as_root, make_operator
from tests.support.together import run_together

pytestmark = pytest.mark.django_db


@pytest.fixture
def alice() -> Organization:
    organization = make_organization("Alice")
    give(organization, USD)
    return organization


def quarantine(event: UsageEvent, *, raw_event: bytes | None = None) -> UsageQuarantine:
    """Put an event into quarantine as settlement did while it had a fault that is repaired now."""
    return UsageQuarantine.objects.create(
        organization_id=event.organization_id,
        shard=shard_of(event.organization_id),
        stream_id=entry_of(event).stream_id,
        raw_event=event.encode() if raw_event is None else raw_event,
        reason="a fault of ours",
    )


def test_an_event_is_settled_after_a_fix(alice: Organization) -> None:
    event = make_event(alice, 700)
    row = quarantine(event)
    assert any("quarantine" in line for line in run_checks(CHECKS).breaks)
    resolved = settle_quarantined(row, actor="op@example.org", reason="fixed in 1.2")
    assert UsageRecord.objects.get().request_id.hex == event.request_id
    assert posted(alice) == USD - 700
    assert (resolved.resolution, resolved.resolved_by, resolved.resolution_reason) == (
        "settled",
        "op@example.org",
        "fixed in 1.2",
    )
    assert_ledger_holds()
    with pytest.raises(AlreadyResolvedError, match=r"op@example\.org"):
        settle_quarantined(row, actor="somebody", reason="again")
    assert posted(alice) == USD - 700


def test_what_was_settled_meanwhile_is_not_charged_again(alice: Organization) -> None:
    event = make_event(alice, 700)
    row = quarantine(event)
    settle(event)
    settle_quarantined(row, actor="op", reason="it came again")
    assert LedgerTransaction.objects.filter(kind="usage").count() == 1
    assert posted(alice) == USD - 700
    assert_ledger_holds()


def test_a_failed_request_is_settled_too(alice: Organization) -> None:
    row = quarantine(make_failed_event(alice))
    settle_quarantined(row, actor="op", reason="fixed")
    assert FailedRequest.objects.count() == 1
    assert_ledger_holds()


def test_an_orphans_event_counts_for_the_day_of_its_admission(alice: Organization) -> None:
    """It was written before Redis had stamped the day."""
    event = make_event(alice, 700, usage_source="orphan")
    day, event.admitted_day = event.admitted_day, 0
    settle_quarantined(quarantine(event), actor="op", reason="fixed")
    assert UsageRecord.objects.get().admitted_day == day
    assert_ledger_holds()


def test_redis_hears_of_the_new_balance(redis_client: redis.Redis) -> None:
    alice = make_organization("Alice")
    give(alice, USD)
    key = ApiKey.objects.create(organization=alice, name="k", prefix="p", last_four="abcd", secret_sha256=b"1")
    publish_pending_changes()
    names = shard_keys_of(alice.pk)
    assert redis_client.hget(names.org(alice.pk), "credit") == str(USD).encode()
    row = quarantine(make_event(alice, 700, key_id=key.pk))
    call_command("resolve_quarantine", str(row.pk), "--settle", "--reason", "fixed", *as_root(), stdout=StringIO())
    assert redis_client.hget(names.org(alice.pk), "credit") == str(USD - 700).encode()
    assert b"700" in redis_client.hgetall(names.key(key.pk)).values()


@pytest.mark.parametrize("raw", [b"{", b'{"v": 99}'])
def test_an_event_that_is_still_at_fault_stays(alice: Organization, raw: bytes) -> None:
    row = quarantine(make_event(alice), raw_event=raw)
    with pytest.raises(ResolutionError, match="still refused"):
        settle_quarantined(row, actor="op", reason="hoping")
    row.refresh_from_db()
    assert (row.resolved_at, row.resolution) == (None, "")


def test_an_event_of_another_organization_than_its_entry_stays(alice: Organization) -> None:
    bob = make_organization("Bob")
    row = quarantine(make_event(alice))
    UsageQuarantine.objects.update(organization=bob)
    row.refresh_from_db()
    with pytest.raises(ResolutionError, match="in an entry of"):
        settle_quarantined(row, actor="op", reason="hoping")
    assert posted(alice) == USD


def test_an_event_whose_organization_was_missing_is_settled_once_it_is_there(alice: Organization) -> None:
    row = quarantine(make_event(alice, 5))
    UsageQuarantine.objects.update(organization=None)
    row.refresh_from_db()
    settle_quarantined(row, actor="op", reason="restored")
    assert posted(alice) == USD - 5


def test_an_event_that_postgres_refuses_stays(alice: Organization) -> None:
    row = quarantine(make_event(alice, attempts=[{"error": "a\x00b"}]))
    with pytest.raises(ResolutionError, match="still refused"):
        settle_quarantined(row, actor="op", reason="hoping")
    row.refresh_from_db()
    assert row.resolved_at is None
    assert not UsageRecord.objects.exists()


def test_an_event_is_given_up_for_a_reason(alice: Organization) -> None:
    row = quarantine(make_event(alice))
    for actor, reason in (("op", " "), ("", "nonsense")):
        with pytest.raises(ResolutionError, match="names a person and a reason"):
            discard_quarantined(row, actor=actor, reason=reason)
    resolved = discard_quarantined(row, actor="op", reason="a test of ours")
    assert (resolved.resolution, resolved.resolution_reason) == ("discarded", "a test of ours")
    assert not UsageRecord.objects.exists()
    assert_ledger_holds()
    with pytest.raises(AlreadyResolvedError):
        settle_quarantined(row, actor="op", reason="after all")
    assert posted(alice) == USD


@pytest.mark.django_db(transaction=True)
def test_operators_who_race_resolve_it_once() -> None:
    alice = make_organization("Alice")
    give(alice, USD)
    row = quarantine(make_event(alice, 700))
    errors = run_together(
        *[lambda: settle_quarantined(row, actor="op", reason="fixed")] * 4,
        *[lambda: discard_quarantined(row, actor="op", reason="gave up")] * 4,
    )
    assert [type(error) for error in errors] == [AlreadyResolvedError] * 7
    row.refresh_from_db()
    assert posted(alice) == USD - (700 if row.resolution == "settled" else 0)
    assert_ledger_holds()


def run(*arguments: str) -> str:
    output = StringIO()
    call_command("resolve_quarantine", *arguments, stdout=output)
    return output.getvalue()


def test_the_command(alice: Organization) -> None:
    make_operator("op", StaffRole.OPERATIONS)
    op = ("--actor", "op@example.org", "--yes")
    assert run() == "Nothing is in quarantine.\n"
    settle_entries([entry_of(make_event(alice), raw_event=b'{"v": 99}')])
    row = UsageQuarantine.objects.get()
    assert run().startswith(f"{row.pk}: Alice, ")
    assert '{"v": 99}' in run(str(row.pk))
    with pytest.raises(CommandError, match="still refused"):
        run(str(row.pk), "--settle", "--reason", "fixed", *op)
    with pytest.raises(CommandError, match="a person and a reason"):
        run(str(row.pk), "--discard", *op)
    assert run(str(row.pk), "--discard", "--reason", "of no version", *op) == (f"Event {row.pk} is discarded.\n")
    assert "discarded by op@example.org (shell:" in run(str(row.pk))
    assert run() == "Nothing is in quarantine.\n"
    with pytest.raises(CommandError, match=r"resolved before, by op@example\.org"):
        run(str(row.pk), "--discard", "--reason", "again", *op)
    with pytest.raises(CommandError, match="No quarantined event"):
        run("999999", "--settle")
