"""Celery's triggers: one that comes late or in a crowd changes nothing but the lag, and costs little."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import redis
from django.db import OperationalError

from billing.admission.errors import AdmissionUnavailableError
from billing.admission.redis_keys import SHARDS
from billing.usage_stream import SettledBatch, StreamEntry
from operations import tasks

REAPER = SHARDS[3].reaper


@pytest.mark.django_db
def test_triggers_that_piled_up_are_one_run(redis_client: redis.Redis, settings: Any) -> None:
    settings.PULSE_SECONDS = 0
    tasks.run_due_work()
    assert redis_client.hget(REAPER, "ran_at")
    redis_client.hset(REAPER, "ran_at", 1)
    settings.PULSE_SECONDS = 3600
    tasks.run_due_work()
    assert redis_client.hget(REAPER, "ran_at") == b"1"
    settings.PULSE_SECONDS = 0
    tasks.run_due_work()
    assert redis_client.hget(REAPER, "ran_at") != b"1"


def test_a_shard_that_cannot_be_settled_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shard 1 cannot be read, and shard 2 not settled: all are tried together, and then each of the rest by itself."""
    tried: list[list[int]] = []

    def read(shard: int, *, count: int) -> list[StreamEntry]:
        if shard == 1:
            raise AdmissionUnavailableError("gone")
        return [StreamEntry("1-1", b"{}", shard, 1, 0, 0)]

    def settle(waiting: Mapping[int, Sequence[StreamEntry]]) -> dict[int, SettledBatch]:
        tried.append(list(waiting))
        if 2 in waiting:
            raise OperationalError("a deadlock")
        return {shard: SettledBatch(shard, ["1-1"], [], []) for shard in waiting}

    monkeypatch.setattr(tasks, "standing_epoch", lambda shard: "epoch:1")
    monkeypatch.setattr(tasks, "read_waiting", read)
    monkeypatch.setattr(tasks, "settle_batches", settle)
    monkeypatch.setattr(tasks, "confirm_batch", lambda batch, *, epoch: len(batch.stream_ids))
    assert tasks.settle_waiting([0, 1, 2, 3], seconds=5) == 2
    assert tried == [[0, 2, 3], [0], [2], [3]]
    with pytest.raises(OperationalError):
        tasks.settle_waiting([1, 2], seconds=5)
