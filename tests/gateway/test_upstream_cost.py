"""What providers may charge us: recorded with each attempt, also with those that nobody was billed for."""

from tests.support.world import Caller, World


def test_an_attempt_that_was_given_up_may_have_cost_us_its_prompt(world: World, alice: Caller) -> None:
    world.sandbox.control("bad_json", times=1)
    failed = world.post(alice)
    assert failed.status_code == 502
    failure = world.failure(failed)
    [attempt] = failure.attempts
    assert attempt["outcome"] == "upstream_broken"
    assert attempt["upstream_cost_nanos"] == failure.upstream_cost_nanos > 0


def test_an_attempt_that_was_refused_cost_nothing(world: World, alice: Caller) -> None:
    world.sandbox.control("status=529", times=1)
    failure = world.failure(world.post(alice))
    assert [attempt["upstream_cost_nanos"] for attempt in failure.attempts] == [0]
