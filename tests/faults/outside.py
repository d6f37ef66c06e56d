"""Faults from outside: clients that leave or crawl, upstreams that fail in every way, events that nobody wrote."""

import time
from typing import Any

from billing.admission.names import names_of
from billing.admission.worker import redis_client
from tests.faults.stage import Stage

TROUBLED_ANSWERS = 60
REFUSALS = ("status=429", "status=529", "status=500", "status=503", "html", "status=429; retry_after=1")
HANGS = ("hang=before_headers", "hang=after_headers", "hang=mid")
RESETS = ("reset=before_headers", "reset=after_headers", "reset=mid")
BREAKS = ("error=mid", "close=mid", "no_message_stop", "malformed_sse", "truncated_json", "no_usage")
REPETITIONS = ("duplicate_delta",)
EXCESSES = ("input_tokens=20000", "cache_read=30000", "cache_write_5m=9000")


def clients_leave_or_crawl(stage: Stage) -> None:
    stage.leaving_share, stage.slow_share = 0.5, 0.3
    stage.pause(2.0, 4.0)
    stage.leaving_share = stage.slow_share = 0.0


def upstream_refuses(stage: Stage) -> None:
    _trouble(stage, REFUSALS)


def upstream_hangs(stage: Stage) -> None:
    _trouble(stage, HANGS, share=0.15)


def upstream_resets(stage: Stage) -> None:
    _trouble(stage, RESETS)


def upstream_breaks_off(stage: Stage) -> None:
    _trouble(stage, BREAKS)


def upstream_repeats_itself(stage: Stage) -> None:
    _trouble(stage, REPETITIONS, share=0.8)


def costs_exceed_holds(stage: Stage) -> None:
    """The upstream counts more than was held for: the balance may fall below zero by the difference, all is billed."""
    stage.crowd_on(stage.poor)
    _trouble(stage, EXCESSES, share=0.5)
    stage.crowd_on(None)


def crowd_on_a_small_balance(stage: Stage) -> None:
    """Everybody spends the same few cents at once."""
    stage.crowd_on(stage.poor, wishes="tokens=300; pace=30")
    stage.pause(3.0, 5.0)
    stage.crowd_on(None)


def crowd_while_redis_is_emptied(stage: Stage) -> None:
    """What is held is forgotten while everybody spends the same few cents."""
    stage.crowd_on(stage.poor, wishes="tokens=300; pace=60")
    stage.rate_states_lost += 6
    for _ in range(6):
        stage.pause(0.5, 0.9)
        stage.world.flush_redis()
    stage.pause(1.0, 2.0)
    stage.crowd_on(None)


def poison_in_a_stream(stage: Stage) -> None:
    """Entries that no gateway wrote: without fields, with broken ones, with an event that is none."""
    poisons: tuple[dict[str, str | int], ...] = (
        {"who": "knows"},
        {"organization": "x", "key": "1", "cost": "1", "day": "1", "event": "{}"},
        {"organization": stage.rich.organization.pk, "key": 1, "cost": 0, "day": 1, "event": "not JSON"},
        {"organization": stage.rich.organization.pk, "key": 1, "cost": 0, "day": 1, "event": '{"v": 1}'},
        {"organization": 999_999_999, "key": 1, "cost": 0, "day": 1, "event": '{"v": 99}'},
    )
    for caller in stage.callers:
        for poison in stage.chance.sample(poisons, 3):
            stage.pause(0.0, 0.2)
            marked: dict[Any, Any] = {**poison, "mark": f"{stage.load.seed}/{stage.poison_events}"}
            if "event" in marked:
                marked["event"] = f"{marked['event']} {marked['mark']}"  # Doubled events are kept once.
            redis_client().xadd(names_of(caller.organization.pk).usage, marked)
            stage.poison_events += 1


def _trouble(stage: Stage, troubles: tuple[str, ...], *, share: float = 0.3) -> None:
    stage.troubles, stage.trouble_share = troubles, share
    began = len(stage.load.answers)
    ends_at = time.monotonic() + 10
    while len(stage.load.answers) < began + TROUBLED_ANSWERS and time.monotonic() < ends_at:
        time.sleep(0.05)
    stage.troubles = ()
