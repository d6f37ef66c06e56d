"""What providers may charge us: recorded with each attempt, also with those that nobody was billed for."""

from tests.support.live_stack import LiveStack, Tenant


def test_an_attempt_that_was_given_up_may_have_cost_us_its_prompt(stack: LiveStack, alice: Tenant) -> None:
    stack.sandbox.control("bad_json", times=1)
    failed = stack.post(alice)
    assert failed.status_code == 502
    failure = stack.failure(failed)
    [attempt] = failure.attempts
    assert attempt["outcome"] == "upstream_broken"
    assert attempt["upstream_cost_nanos"] == failure.upstream_cost_nanos > 0


def test_an_attempt_that_was_refused_cost_nothing(stack: LiveStack, alice: Tenant) -> None:
    stack.sandbox.control("status=529", times=1)
    failure = stack.failure(stack.post(alice))
    assert [attempt["upstream_cost_nanos"] for attempt in failure.attempts] == [0]
