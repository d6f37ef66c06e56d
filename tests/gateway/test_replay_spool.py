"""manage.py replay_spool: it is run while Redis has just come back, and so must outlast a Redis that answers late."""

from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from billing.admission.client import AdmissionClient
from billing.admission.errors import AdmissionUnavailableError
from gateway.management.commands import replay_spool
from gateway.spool import Spool
from tests.gateway.test_spool import event

LATE = AdmissionUnavailableError("Redis did not answer in time.", may_have_run=True)


@pytest.fixture
def folder(tmp_path: Path, db: None) -> Path:
    folder = tmp_path / "spool"
    spool = Spool(folder, max_bytes=10**9, retention_seconds=3600.0)
    for number in range(3):
        assert spool.append(event(number))
    return folder


def test_an_event_that_redis_was_late_for_is_sent_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    async def close_hold(_: AdmissionClient, hold: object, **__: object) -> None:
        asked.append(hold.request_id)  # type: ignore[attr-defined]
        if asked.count(asked[-1]) == 1:
            raise LATE

    monkeypatch.setattr(AdmissionClient, "close_hold", close_hold)
    monkeypatch.setattr(replay_spool, "PAUSE_SECONDS", 0.0)
    call_command("replay_spool", "--folder", str(folder))
    assert asked == [event(number).request_id for number in (0, 0, 1, 1, 2, 2)]


def test_it_says_how_far_it_came_when_redis_stays_away(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []

    async def close_hold(_: AdmissionClient, hold: object, **__: object) -> None:
        if len(sent) == 2:
            raise LATE
        sent.append(hold.request_id)  # type: ignore[attr-defined]

    monkeypatch.setattr(AdmissionClient, "close_hold", close_hold)
    monkeypatch.setattr(replay_spool, "PATIENCE_SECONDS", -1.0)
    with pytest.raises(CommandError, match=r"2 of 3 events were sent, then: Redis did not answer in time\."):
        call_command("replay_spool", "--folder", str(folder))
