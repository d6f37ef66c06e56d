"""Whoever looks at a world from outside keeps its times: one longer lease would hold all its reapers up."""

from pathlib import Path

from pytest_django import Settings

from tests.support.world import QUICK, World, looking_at


def test_who_looks_at_a_world_keeps_its_times(tmp_path: Path, settings: Settings) -> None:
    before = (settings.REDIS_URL, settings.ADMISSION)
    overrides = {"CROSSMODEL_REAPER_GAP_SECONDS": "7"}
    world = World(tmp_path, postgres_url="postgresql://x@127.0.0.1:1/x", redis_url="redis://127.0.0.1:1/0", **overrides)
    with looking_at(world):
        seen = dict(settings.ADMISSION)
        assert settings.REDIS_URL == "redis://127.0.0.1:1/0"
    assert seen == {
        "redis_timeout_seconds": 0.25,
        "lease_seconds": float(QUICK["CROSSMODEL_LEASE_SECONDS"]),
        "heartbeat_seconds": float(QUICK["CROSSMODEL_HEARTBEAT_SECONDS"]),
        "reopen_seconds": float(QUICK["CROSSMODEL_REOPEN_SECONDS"]),
        "reaper_gap_seconds": 7.0,
    }
    after = (settings.REDIS_URL, settings.ADMISSION)
    assert after == before
