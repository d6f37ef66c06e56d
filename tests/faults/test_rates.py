"""The bound of I14 itself, on made-up admissions: it passes what admission promises, and nothing beyond."""

from tests.faults.rates import OUTPUT, Admission, Holder, broken_concurrency, broken_rates

LIMIT = 600
KEY = Holder("key 7", 1, 7, {OUTPUT: LIMIT}, None)
ORGANIZATION = Holder("organization 1", 1, None, {OUTPUT: LIMIT}, 2)


def admission(at: float, used: int, *, reserved: int = 400, seconds: float = 0.5, key: int = 7) -> Admission:
    return Admission(1, key, at, at + seconds, {OUTPUT: used}, {OUTPUT: reserved})


def broken(*admissions: Admission, holder: Holder = KEY, states_lost: int = 0) -> list[str]:
    return list(broken_rates([holder], sorted(admissions, key=lambda item: item.began_at), states_lost=states_lost))


def test_a_burst_and_what_comes_in_with_time_are_allowed() -> None:
    assert broken(*(admission(second, 100) for second in range(6))) == []
    assert broken(*(admission(second * 10.0, 100) for second in range(30))) == []


def test_more_than_a_burst_at_once_is_broken() -> None:
    [line] = broken(*(admission(0.0, 100, seconds=0.1) for _ in range(8)))
    assert line == "I14 key 7 had 800 output tokens admitted within 0.1 s, 199 more than 600 a minute allow"


def test_a_burst_late_in_the_run_is_not_paid_for_by_the_quiet_before() -> None:
    quiet = [admission(0.0, 1, reserved=1), admission(600.0, 1, reserved=1)]
    burst = [admission(601.0, 100, seconds=0.1) for _ in range(8)]
    assert len(broken(*quiet, *burst)) == 1


def test_another_burst_for_each_time_that_the_rates_were_lost() -> None:
    admissions = [admission(0.0, 100) for _ in range(11)]
    assert len(broken(*admissions)) == 1
    assert broken(*admissions, states_lost=1) == []


def test_what_an_earlier_request_gave_back_may_be_used_again() -> None:
    earlier = admission(0.0, 10, reserved=500, seconds=70.0)
    later = [admission(60.0, 250, seconds=0.1) for _ in range(4)]
    assert len(broken(*later)) == 1
    assert broken(earlier, *later) == []


def test_use_beyond_the_reservation_is_no_admission() -> None:
    assert broken(*(admission(0.0, 10_000, reserved=100) for _ in range(6))) == []


def test_the_keys_of_an_organization_add_up() -> None:
    admissions = [admission(0.0, 100, key=key, seconds=0.1) for key in (7, 8) for _ in range(4)]
    assert broken(*admissions) == []
    assert len(broken(*admissions, holder=ORGANIZATION)) == 1


def test_as_many_at_once_as_may_and_no_more() -> None:
    assert list(broken_concurrency([ORGANIZATION], [(1, 7, 0.0, 1.0), (1, 8, 0.5, 1.5), (1, 7, 1.0, 2.0)])) == []
    [line] = broken_concurrency([ORGANIZATION], [(1, 7, 0.0, 1.0), (1, 8, 0.5, 1.5), (1, 7, 0.9, 2.0)])
    assert line == "I14 organization 1 had 3 requests running at once, 2 may"
