from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from billing.ledger.burn_order import Lot, plan_draws

NOW = datetime(2026, 11, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def make_lot(
    lot_id: int, *, kind: str = "paid", priority: int = 100, expires: int | None = None, left: int = 10
) -> Lot:
    expires_at = None if expires is None else NOW + expires * HOUR
    return Lot(lot_id, 1, kind, priority, expires_at, amount_nanos=left, remaining_nanos=left)


def order(*lots: Lot) -> list[int]:
    return [lot.lot_id for lot, _ in plan_draws(lots, 10**9, as_of=NOW)]


def test_priority_comes_first() -> None:
    assert order(make_lot(1, priority=100, expires=1), make_lot(2, priority=5)) == [2, 1]


def test_then_the_earliest_expiry_with_never_last() -> None:
    assert order(make_lot(1), make_lot(2, expires=5), make_lot(3, expires=2)) == [3, 2, 1]


def test_then_promotional_before_paid() -> None:
    assert order(make_lot(1), make_lot(2, kind="promotional")) == [2, 1]


def test_then_the_older_lot() -> None:
    assert order(make_lot(2), make_lot(1)) == [1, 2]


def test_a_lot_pays_until_the_moment_of_its_expiry() -> None:
    lot = make_lot(1, expires=1)
    assert plan_draws([lot], 4, as_of=NOW + HOUR - timedelta(microseconds=1)) == [(lot, 4)]
    assert plan_draws([lot], 4, as_of=NOW + HOUR) == []


def test_lots_that_do_not_cover_the_amount_are_drawn_empty() -> None:
    first, second = make_lot(1, left=3), make_lot(2, left=4)
    assert plan_draws([first, second], 100, as_of=NOW) == [(first, 3), (second, 4)]


lots = st.lists(
    st.builds(
        make_lot,
        st.integers(1, 10**6),
        kind=st.sampled_from(["paid", "promotional"]),
        priority=st.integers(0, 3),
        expires=st.none() | st.integers(-2, 3),
        left=st.integers(0, 50),
    ),
    unique_by=lambda lot: lot.lot_id,
    max_size=8,
)


@given(lots, st.integers(0, 300))
def test_draws_cover_what_drawable_lots_can_cover(lots: list[Lot], amount: int) -> None:
    draws = plan_draws(lots, amount, as_of=NOW)
    drawable = sum(lot.remaining_nanos for lot in lots if lot.is_drawable(as_of=NOW))
    assert sum(drawn for _, drawn in draws) == min(amount, drawable)
    assert all(0 < drawn <= lot.remaining_nanos for lot, drawn in draws)
    # Only the last lot that is drawn may keep anything.
    assert all(drawn == lot.remaining_nanos for lot, drawn in draws[:-1])
