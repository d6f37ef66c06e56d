"""The breaker by itself, with a clock of the test's own."""

from gateway.upstreams.breaker import FIRST_OPEN_SECONDS, MAX_OPEN_SECONDS, PROBE_SECONDS, WINDOW_SECONDS, Breaker


def tripped(now: float = 100.0) -> Breaker:
    breaker = Breaker(failures_to_open=3)
    opened = [breaker.note_failure(now) for _ in range(3)]
    assert opened == [False, False, True]
    return breaker


def test_it_opens_after_enough_failures_and_lets_nothing_through() -> None:
    breaker = tripped()
    assert not breaker.lets_through(100.0)
    assert not breaker.lets_through(100.0 + FIRST_OPEN_SECONDS - 0.1)


def test_failures_among_many_successes_do_not_open_it() -> None:
    breaker = Breaker(failures_to_open=3)
    for _ in range(10):
        breaker.note_success(100.0)
    assert not any(breaker.note_failure(100.0) for _ in range(9))
    assert breaker.lets_through(100.0)


def test_old_failures_are_forgotten() -> None:
    breaker = Breaker(failures_to_open=3)
    breaker.note_failure(100.0)
    breaker.note_failure(100.0)
    assert not breaker.note_failure(101.0 + WINDOW_SECONDS)


def test_one_probe_at_a_time_goes_through_when_it_is_half_open() -> None:
    breaker = tripped()
    later = 100.0 + FIRST_OPEN_SECONDS
    assert breaker.lets_through(later)
    assert not breaker.lets_through(later)
    assert not breaker.lets_through(later + PROBE_SECONDS - 0.1)
    assert breaker.lets_through(later + PROBE_SECONDS)


def test_a_served_probe_closes_it() -> None:
    breaker = tripped()
    assert breaker.lets_through(100.0 + FIRST_OPEN_SECONDS)
    assert breaker.note_success(100.0 + FIRST_OPEN_SECONDS)
    assert breaker.lets_through(100.0 + FIRST_OPEN_SECONDS)
    assert not breaker.note_failure(100.0 + FIRST_OPEN_SECONDS)


def test_a_failed_probe_opens_it_for_twice_as_long_up_to_a_bound() -> None:
    breaker = tripped()
    now = 100.0
    for _ in range(10):
        now = breaker.open_until
        assert breaker.lets_through(now)
        assert breaker.note_failure(now)
    assert breaker.open_until - now == MAX_OPEN_SECONDS


def test_late_failures_of_calls_from_before_do_not_prolong_it() -> None:
    breaker = tripped()
    assert not breaker.note_failure(101.0)
    assert breaker.open_until == 100.0 + FIRST_OPEN_SECONDS


def test_another_process_can_open_it() -> None:
    breaker = Breaker(failures_to_open=3)
    breaker.open_for(4.0, 100.0)
    assert not breaker.lets_through(103.9)
    assert breaker.lets_through(104.0)
