"""Beat, when the clock it lives by is put back: triggers come as before."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from crossmodel_site.beat import Scheduler
from crossmodel_site.celery import app


def test_an_entry_that_last_ran_in_the_future_is_due(tmp_path: Path) -> None:
    scheduler = Scheduler(app, schedule_filename=str(tmp_path / "beat"), lazy=True)
    entry = scheduler.Entry(name="pulse", task="billing.pulse", schedule=timedelta(seconds=30), app=app)
    entry.last_run_at = datetime.now(UTC) + timedelta(hours=1)
    is_due, next_seconds = scheduler.is_due(entry)
    assert is_due
    assert 30 <= next_seconds < 31
    entry.last_run_at = datetime.now(UTC) - timedelta(seconds=10)
    is_due, next_seconds = scheduler.is_due(entry)
    assert not is_due
    assert 15 < next_seconds < 25
