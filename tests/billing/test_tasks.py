"""Celery's triggers: one that comes late or in a crowd changes nothing but the lag, and costs little."""

from typing import Any

import pytest
import redis

from billing import tasks
from billing.admission.names import SHARDS

REAPER = SHARDS[3].reaper


@pytest.mark.django_db
def test_triggers_that_piled_up_are_one_pulse(redis_client: redis.Redis, settings: Any) -> None:
    settings.PULSE_SECONDS = 0
    tasks.pulse()
    assert redis_client.hget(REAPER, "beat")
    redis_client.hset(REAPER, "beat", 1)
    settings.PULSE_SECONDS = 3600
    tasks.pulse()
    assert redis_client.hget(REAPER, "beat") == b"1"
    settings.PULSE_SECONDS = 0
    tasks.pulse()
    assert redis_client.hget(REAPER, "beat") != b"1"
