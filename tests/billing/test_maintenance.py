"""Housekeeping: lots expire by what is free of the balance; partitions are there before their month."""

from datetime import UTC, datetime, timedelta

import pytest
from allauth.usersessions.models import UserSession
from django.conf import settings
from django.contrib.sessions.models import Session
from django.db import connection
from django.utils import timezone

from accounts.organizations import create_organization
from billing.admission.outbox import publish_organizations
from billing.admission.redis.blocking_client import redis_client
from billing.admission.redis_keys import SHARDS
from billing.credit.top_ups import grant_credit
from billing.maintenance import expire_due_lots, run_maintenance
from billing.models import CreditLot, OrganizationBalance
from billing.money import NANOS_PER_USD
from billing.partitions import MONTHS_AHEAD, create_partitions, month_start
from billing.shards import shard_of
from tests.support.aged_lots import age_lots, age_shard
from tests.support.people import People


@pytest.mark.django_db
def test_a_lot_expires_but_not_what_is_held() -> None:
    organization = create_organization(name="Expiring")
    grant_credit(
        organization,
        amount_nanos=5 * NANOS_PER_USD,
        kind=CreditLot.Kind.PROMOTIONAL,
        reason="test",
        actor="test",
        idempotency_key="expiring",
        expires_at=timezone.now() + timedelta(hours=1),
    )
    assert expire_due_lots() == 0
    age_shard(shard_of(organization.pk))
    age_lots(timedelta(seconds=1))
    publish_organizations([organization.pk])
    org = SHARDS[shard_of(organization.pk)].org(organization.pk)
    redis_client().hset(org, "held", 2 * NANOS_PER_USD)
    assert expire_due_lots() == 3 * NANOS_PER_USD
    assert OrganizationBalance.objects.get(pk=organization.pk).posted_nanos == 2 * NANOS_PER_USD
    redis_client().hset(org, "held", 0)
    assert expire_due_lots() == 2 * NANOS_PER_USD
    assert expire_due_lots() == 0


@pytest.mark.django_db
def test_partitions_are_made_ahead_and_once() -> None:
    run_maintenance()
    with connection.cursor() as cursor:
        now = datetime.now(UTC)
        for offset in range(MONTHS_AHEAD + 1):
            start = month_start(now.year, now.month + offset)
            cursor.execute("SELECT to_regclass(%s)", [f"billing_usagerecord_{start:%Y_%m}"])
            assert cursor.fetchone()[0] is not None
    assert create_partitions(now=datetime.now(UTC)) == []
    assert len(create_partitions(now=datetime(2031, 11, 5, tzinfo=UTC))) == MONTHS_AHEAD + 1


@pytest.mark.django_db
def test_sign_ins_that_have_ended_are_forgotten(people: People) -> None:
    now = timezone.now()
    for key, ends_at in (("ended", now - timedelta(seconds=1)), ("lives", now + timedelta(hours=1))):
        Session.objects.create(session_key=key, session_data="", expire_date=ends_at)
    long_ago = now - timedelta(seconds=settings.SESSION_COOKIE_AGE + 1)
    for key, seen_at in (("ended", long_ago), ("lives", long_ago), ("signed out", long_ago), ("signed out now", now)):
        line = {"user": people.alice, "ip": "127.0.0.1", "user_agent": "test", "last_seen_at": seen_at}
        UserSession.objects.create(session_key=key, **line)
    assert "forgetting sign-ins that have ended" not in run_maintenance()
    assert Session.objects.get().session_key == "lives"
    assert set(UserSession.objects.values_list("session_key", flat=True)) == {"lives", "signed out now"}
