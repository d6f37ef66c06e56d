"""Faults from outside: clients that leave or crawl, upstreams that fail in every way, events that nobody wrote."""

import time
from typing import Any, cast

from billing.admission.redis.blocking_client import redis_client
from billing.admission.redis_keys import shard_keys_of
from tests.faults.scenario import Scenario

TROUBLED_ANSWERS = 60
TRIMMED_ENTRIES = 12
REFUSALS = ("status=429", "status=529", "status=500", "status=503", "html", "status=429; retry_after=1")
HANGS = ("hang=before_headers", "hang=after_headers", "hang=mid")
RESETS = ("reset=before_headers", "reset=after_headers", "reset=mid")
BREAKS = ("error=mid", "close=mid", "no_message_stop", "malformed_sse", "truncated_json", "no_usage")
REPETITIONS = ("duplicate_delta",)
EXCESSES = ("input_tokens=20000", "cache_read=30000", "cache_write_5m=9000")


def clients_leave_or_crawl(scenario: Scenario) -> None:
    scenario.leaving_share, scenario.slow_share = 0.5, 0.3
    scenario.pause(2.0, 4.0)
    scenario.leaving_share = scenario.slow_share = 0.0


def upstream_refuses(scenario: Scenario) -> None:
    _trouble(scenario, REFUSALS)


def upstream_hangs(scenario: Scenario) -> None:
    _trouble(scenario, HANGS, share=0.15)


def upstream_resets(scenario: Scenario) -> None:
    _trouble(scenario, RESETS)


def upstream_breaks_off(scenario: Scenario) -> None:
    _trouble(scenario, BREAKS)


def upstream_repeats_itself(scenario: Scenario) -> None:
    _trouble(scenario, REPETITIONS, share=0.8)


def costs_exceed_holds(scenario: Scenario) -> None:
    """The upstream counts more than was held for: the balance may fall below zero by the difference, all is billed."""
    scenario.crowd_on(scenario.poor)
    _trouble(scenario, EXCESSES, share=0.5)
    scenario.crowd_on(None)


def crowd_on_a_small_balance(scenario: Scenario) -> None:
    """Everybody spends the same few cents at once."""
    scenario.crowd_on(scenario.poor, wishes="tokens=300; pace=30")
    scenario.pause(3.0, 5.0)
    scenario.crowd_on(None)


def crowd_while_redis_is_emptied(scenario: Scenario) -> None:
    """What is held is forgotten while everybody spends the same few cents."""
    scenario.crowd_on(scenario.poor, wishes="tokens=300; pace=60")
    scenario.rate_states_lost += 6
    for _ in range(6):
        scenario.pause(0.5, 0.9)
        scenario.stack.flush_redis()
    scenario.pause(1.0, 2.0)
    scenario.crowd_on(None)


def poison_in_a_stream(scenario: Scenario) -> None:
    """Entries that no gateway wrote: without fields, with broken ones, with an event that is none."""
    poisons: tuple[dict[str, str | int], ...] = (
        {"who": "knows"},
        {"organization": "x", "key": "1", "cost": "1", "day": "1", "event": "{}"},
        {"organization": scenario.rich.organization.pk, "key": 1, "cost": 0, "day": 1, "event": "not JSON"},
        {"organization": scenario.rich.organization.pk, "key": 1, "cost": 0, "day": 1, "event": '{"v": 1}'},
        {"organization": 999_999_999, "key": 1, "cost": 0, "day": 1, "event": '{"v": 99}'},
    )
    for tenant in scenario.tenants:
        for poison in scenario.chance.sample(poisons, 3):
            scenario.pause(0.0, 0.2)
            marked: dict[Any, Any] = {**poison, "mark": f"{scenario.load.seed}/{scenario.poison_events}"}
            if "event" in marked:
                marked["event"] = f"{marked['event']} {marked['mark']}"  # Doubled events are kept once.
            redis_client().xadd(shard_keys_of(tenant.organization.pk).usage, marked)
            scenario.poison_events += 1


def entries_trimmed(scenario: Scenario) -> None:
    """Somebody at redis-cli trims streams and deletes entries that are not settled: gateways send them again."""
    vanished = 0
    ends_at = time.monotonic() + 10
    while vanished < TRIMMED_ENTRIES and time.monotonic() < ends_at:
        scenario.pause(0.0, 0.3)
        for stream in {shard_keys_of(tenant.organization.pk).usage for tenant in scenario.tenants}:
            if scenario.chance.random() < 0.5:
                vanished += int(redis_client().xtrim(stream, maxlen=scenario.chance.randint(0, 1), approximate=False))
                continue
            entries = cast(list[tuple[bytes, Any]], redis_client().xrange(stream, count=5))
            if entries:
                vanished += int(redis_client().xdel(stream, scenario.chance.choice(entries)[0]))
    if not vanished:
        scenario.notes.append("P4 nothing waited that could be trimmed")


def _trouble(scenario: Scenario, troubles: tuple[str, ...], *, share: float = 0.3) -> None:
    scenario.troubles, scenario.trouble_share = troubles, share
    began = len(scenario.load.answers)
    ends_at = time.monotonic() + 10
    while len(scenario.load.answers) < began + TROUBLED_ANSWERS and time.monotonic() < ends_at:
        time.sleep(0.05)
    scenario.troubles = ()
