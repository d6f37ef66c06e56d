"""Whoever looks at a stack from outside keeps its times: one longer lease would hold all its reapers up."""

from pathlib import Path

from pytest_django import Settings

from billing.admission.settings import AdmissionSettings
from tests.support.live_stack import QUICK, LiveStack, looking_at


def test_who_looks_at_a_stack_keeps_its_times(tmp_path: Path, settings: Settings) -> None:
    before = (settings.REDIS_URL, settings.ADMISSION)
    overrides = {"CROSSMODEL_REAPER_GAP_SECONDS": "7"}
    stack = LiveStack(
        tmp_path, postgres_url="postgresql://x@127.0.0.1:1/x", redis_url="redis://127.0.0.1:1/0", **overrides
    )
    with looking_at(stack):
        seen = settings.ADMISSION
        assert settings.REDIS_URL == "redis://127.0.0.1:1/0"
    assert seen == AdmissionSettings(
        redis_timeout_seconds=0.25,
        lease_seconds=float(QUICK["CROSSMODEL_LEASE_SECONDS"]),
        heartbeat_seconds=float(QUICK["CROSSMODEL_HEARTBEAT_SECONDS"]),
        reopen_seconds=float(QUICK["CROSSMODEL_REOPEN_SECONDS"]),
        reaper_gap_seconds=7.0,
    )
    after = (settings.REDIS_URL, settings.ADMISSION)
    assert after == before
