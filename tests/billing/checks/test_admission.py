"""I8: Redis against Postgres. Silent on what agrees, on what is still moving and on what is not used; else it tells."""

from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import pytest
import redis
from django.core.management import CommandError, call_command
from django.utils import timezone
from pytest_django import Settings

from accounts.keys import create_key, revoke_key
from accounts.models import AdmissionChange, ApiKey, Organization
from accounts.organizations import change_organization
from billing.admission.blocking import confirm_batch, rebuild_shard, standing_epoch
from billing.admission.outbox import epoch_day, publish_pending_changes
from billing.admission.redis_keys import ShardKeys, shard_keys_of
from billing.checks import Books, Outcome, admission_check
from billing.credit.lots import expire_lots
from billing.models import OrganizationBalance
from billing.shards import shard_of
from crossmodel_site.embedded.ports import find_free_port
from tests.billing.ledger_factory import USD, entry_of, give, make_event, make_organization, posted, settle_entries
from tests.support.aged_lots import age_lots

pytestmark = pytest.mark.django_db


@pytest.fixture
def alice() -> Organization:
    """An organization with a key, money, and one settled request that Redis was told of."""
    organization = make_organization("Alice")
    give(organization, USD)
    key, _ = create_key(organization, name="Backend", created_by=None)
    publish_pending_changes()
    settle_one(organization, key, 700)
    return organization


def settle_one(organization: Organization, key: ApiKey, cost_nanos: int) -> None:
    confirm_batch(
        settle_entries([entry_of(make_event(organization, cost_nanos, key_id=key.pk))]),
        epoch=standing_epoch(shard_of(organization.pk)),
    )


def check(looks: int = 2) -> Outcome:
    return admission_check(looks=looks, seconds_between=0.0).run(Books())


def names(organization: Organization) -> ShardKeys:
    return shard_keys_of(organization.pk)


def test_what_agrees_is_silent(alice: Organization) -> None:
    outcome = check()
    assert (outcome.rows, list(outcome.breaks), outcome.note) == (2, [], "")


@pytest.mark.parametrize(
    ("field", "says"),
    [
        ("held", "held is $0.000000005"),
        ("unsettled", "unsettled is $0.000000005"),
        ("open", "open is 5"),
        ("held:20000", "held of 2024-10-04 is $0.000000005"),
        ("unsettled:20000", "unsettled of 2024-10-04 is $0.000000005"),
    ],
)
@pytest.mark.parametrize("scope", ["org", "key"])
def test_a_counter_that_was_left(
    alice: Organization, redis_client: redis.Redis, scope: str, field: str, says: str
) -> None:
    holder = alice.pk if scope == "org" else alice.keys.get().pk
    redis_client.hset(f"{names(alice).prefix}{scope}:{holder}", field, "5")
    assert list(check().breaks) == [f"{scope} {holder}: {says}, and nothing is in flight"]


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("credit", "-1", "credit is \N{MINUS SIGN}$0.000000001 "),
        ("version", "99", "(version 99); Postgres says $"),
        ("status", "suspended", "suspended, $"),
        ("limit", "5", "$0.000000005, "),
    ],
)
def test_an_organization_that_redis_has_otherwise(
    alice: Organization, redis_client: redis.Redis, field: str, value: str, says: str
) -> None:
    redis_client.hset(names(alice).org(alice.pk), field, value)
    (line,) = check().breaks
    assert line.startswith(f"org {alice.pk}: ")
    assert says in line


@pytest.mark.parametrize(("field", "value"), [("status", "revoked"), ("config_version", "9")])
def test_a_key_that_redis_has_otherwise(alice: Organization, redis_client: redis.Redis, field: str, value: str) -> None:
    key = alice.keys.get()
    redis_client.hset(names(alice).key(key.pk), field, value)
    (line,) = check().breaks
    assert line.startswith(f"key {key.pk}: ")


@pytest.mark.parametrize("scope", ["org", "key"])
@pytest.mark.parametrize("change", ["other", "gone", "extra"])
def test_a_budget_day_that_redis_has_otherwise(
    alice: Organization, redis_client: redis.Redis, scope: str, change: str
) -> None:
    holder = alice.pk if scope == "org" else alice.keys.get().pk
    name, day = f"{names(alice).prefix}{scope}:{holder}", epoch_day(datetime.now(UTC))
    if change == "gone":
        redis_client.hdel(name, f"posted:{day}")
    else:
        redis_client.hset(name, f"posted:{day if change == 'other' else day - 1}", "5")
    (line,) = check().breaks
    assert line.startswith(f"{scope} {holder}: ")
    assert "; Postgres says $" in line


def test_what_postgres_has_lost(alice: Organization, redis_client: redis.Redis) -> None:
    """Redis admits an organization that a restored Postgres does not know."""
    client: Any = redis_client
    missing = alice.pk + 64_000
    client.sadd(names(alice).index, f"org:{missing}", f"key:{missing}")
    client.hset(names(alice).org(missing), mapping={"status": "active", "config_version": "1"})
    client.hset(names(alice).key(missing), mapping={"status": "active", "config_version": "1"})
    assert list(check().breaks) == [
        f"org {missing}: Redis admits it, and Postgres does not know it",
        f"key {missing}: Redis admits it, and Postgres does not know it",
    ]


def test_a_shard_with_requests_in_flight_is_passed_over(alice: Organization, redis_client: redis.Redis) -> None:
    redis_client.hset(names(alice).org(alice.pk), "held", "5")
    redis_client.zadd(names(alice).deadlines, {"request": 1})
    redis_client.xadd(names(alice).usage, {"event": "{}"})
    outcome = check()
    assert (outcome.rows, list(outcome.breaks)) == (0, [])
    assert outcome.note == "1 shards skipped: 1 requests in flight, 1 events waiting"


def test_a_change_that_redis_has_not_heard_of_is_no_break(alice: Organization) -> None:
    change_organization(alice, fields={"credit_limit_nanos": USD})
    revoke_key(alice.keys.get(), revoked_by=None)
    outcome = check()
    assert (list(outcome.breaks), outcome.note) == ([], "2 changes wait to be published")
    AdmissionChange.objects.all().delete()
    assert len(check().breaks) == 2
    change_organization(alice, fields={"credit_limit_nanos": 0})
    revoke_key_again = alice.keys.get()
    ApiKey.objects.filter(pk=revoke_key_again.pk).update(config_version=9)
    AdmissionChange.objects.create(organization=alice, key=revoke_key_again)
    publish_pending_changes()
    assert list(check().breaks) == []


def test_a_difference_that_passes_is_no_break(alice: Organization, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two looks the worker publishes: only what is seen each time counts."""
    change_organization(alice, fields={"credit_limit_nanos": USD})
    changes = list(AdmissionChange.objects.all())
    AdmissionChange.objects.all().delete()

    def publish_meanwhile(seconds: float) -> None:
        AdmissionChange.objects.bulk_create(changes)
        publish_pending_changes()

    assert len(check(looks=1).breaks) == 1
    monkeypatch.setattr("billing.checks.admission.time.sleep", publish_meanwhile)
    assert list(check(looks=2).breaks) == []


def test_a_lot_past_its_time_that_nobody_has_noticed_yet_is_no_break(alice: Organization) -> None:
    give(alice, USD, expires_at=timezone.now() + timedelta(hours=1))
    publish_pending_changes()
    # Postgres' now() is when the transaction began, which is the whole test.
    age_lots(timedelta(minutes=5))
    assert list(check().breaks) == []
    expire_lots(alice, available_nanos=posted(alice))
    publish_pending_changes()
    assert list(check().breaks) == []
    assert posted(alice) == USD - 700


def test_state_of_another_redis_process_is_not_in_use(alice: Organization, redis_client: redis.Redis) -> None:
    redis_client.hset(names(alice).org(alice.pk), "credit", "1")
    redis_client.set(names(alice).epoch, "0123456789abcdef:1")
    outcome = check()
    assert (outcome.rows, list(outcome.breaks)) == (0, [])
    rebuild_shard(shard_of(alice.pk))
    assert check().rows == 0


def run(*arguments: str) -> list[str]:
    output = StringIO()
    call_command("check_ledger", *arguments, stdout=output)
    return output.getvalue().splitlines()


def test_the_command_compares_redis(alice: Organization, redis_client: redis.Redis) -> None:
    assert any(line.startswith("ok      I8 ") for line in run())
    redis_client.hset(names(alice).org(alice.pk), "credit", "1")
    with pytest.raises(CommandError, match="1 breaks"):
        run("--quiet")


def test_without_redis_the_command_says_so_and_checks_the_rest(alice: Organization, settings: Settings) -> None:
    settings.REDIS_URL = f"redis://127.0.0.1:{find_free_port()}/0"
    lines = run()
    assert any(line.startswith("-       I8 ") for line in lines)
    assert any("not compared: Redis cannot be used" in line for line in lines)
    assert sum(line.startswith("ok ") for line in lines) >= 15
    OrganizationBalance.objects.filter(pk=alice.pk).update(posted_nanos=1)
    with pytest.raises(CommandError, match="1 breaks"):
        run("--quiet")
