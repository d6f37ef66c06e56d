"""What `bench.latency` and `bench.stream_limits` make of their loads."""

from typing import Any

from bench.latency import half_load, most_within
from bench.stream_limits import most_paced


def step(connections: int, per_second: float, p99_ms: float) -> dict[str, Any]:
    return {"connections": connections, "gateway": {"per_second": per_second, "p99_ms": p99_ms}}


STEPS = [step(1, 400, 3), step(2, 700, 5), step(4, 1_100, 9), step(8, 1_500, 22)]


def test_the_most_that_is_answered_in_time() -> None:
    assert [most_within(STEPS, bound) for bound in (1, 5, 10)] == [0, 700, 1_100]


def test_half_load_is_the_step_nearest_to_half_of_the_most() -> None:
    assert half_load(STEPS)["connections"] == 2


def test_streams_keep_up_while_events_come_before_the_next_is_due() -> None:
    late = {"25": 2.0, "100": 12.0, "50": 7.0, "200": 31.0, "300": 19.0}
    paced = {streams: {"gateway": {"delay_ms": [1.0, p99, 90.0]}} for streams, p99 in late.items()}
    assert most_paced(paced) == 100
    assert most_paced({"25": {"gateway": {"delay_ms": [1.0, 21.0, 90.0]}}}) == 0
