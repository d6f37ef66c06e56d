"""What `bench.latency` makes of its loads."""

from typing import Any

from bench.latency import half_load, most_within


def step(connections: int, per_second: float, p99_ms: float) -> dict[str, Any]:
    return {"connections": connections, "gateway": {"per_second": per_second, "p99_ms": p99_ms}}


STEPS = [step(1, 400, 3), step(2, 700, 5), step(4, 1_100, 9), step(8, 1_500, 22)]


def test_the_most_that_is_answered_in_time() -> None:
    assert [most_within(STEPS, bound) for bound in (1, 5, 10)] == [0, 700, 1_100]


def test_half_load_is_the_step_nearest_to_half_of_the_most() -> None:
    assert half_load(STEPS)["connections"] == 2
