"""Refunds go back the way the charge came, and promotional credit never becomes cash."""

import re
from uuid import UUID

import pytest
from django.db import connection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from accounts.models import Organization
from billing.corrections.refunded import REFUNDED, refunded_by_request
from billing.corrections.refunds import InvalidAdjustmentError, InvalidRefundError, adjust_balance, refund_usage
from billing.ledger.book import IdempotencyConflictError, PostedTransaction
from billing.models import CreditLot
from billing.request_id import make_request_id
from billing.usage_event import UsageEvent
from tests.billing.ledger_factory import (
    account_balances,
    assert_ledger_holds,
    entries_of,
    give,
    make_event,
    make_organization,
    posted,
    refresh_statistics,
    remaining,
    settle,
)

pytestmark = pytest.mark.django_db


def charge(organization: Organization, nanos: int) -> UsageEvent:
    event = make_event(organization, nanos)
    settle(event)
    return event


def refund(
    organization: Organization, event: UsageEvent, nanos: int | None = None, *, key: str = "r"
) -> PostedTransaction:
    return refund_usage(
        organization,
        request_id=UUID(event.request_id),
        amount_nanos=nanos,
        reason="test",
        actor="alice",
        idempotency_key=key,
    )


def adjust(
    organization: Organization, nanos: int, *, key: str, lot_kind: CreditLot.Kind = CreditLot.Kind.PROMOTIONAL
) -> PostedTransaction:
    return adjust_balance(
        organization, amount_nanos=nanos, reason="test", actor="alice", idempotency_key=key, lot_kind=lot_kind
    )


def test_a_refund_goes_back_to_the_lots_it_came_from_last_drawn_first() -> None:
    organization = make_organization()
    first, second = give(organization, 30, kind="promotional"), give(organization, 100)
    event = charge(organization, 70)
    assert remaining(first, second) == [0, 60]
    result = refund(organization, event, 50)
    assert remaining(first, second) == [10, 100]
    assert entries_of(result.transaction.pk) == {"prepaid": 40, "promotional": 10, "revenue": -50}
    assert_ledger_holds()


def test_parts_add_up_to_the_cost_and_not_more() -> None:
    organization = make_organization()
    first, second = give(organization, 30, kind="promotional"), give(organization, 100)
    event = charge(organization, 70)
    refund(organization, event, 25, key="1")
    refund(organization, event, 25, key="2")
    with pytest.raises(InvalidRefundError, match="were refunded before"):
        refund(organization, event, 21, key="3")
    refund(organization, event, 20, key="4")
    assert remaining(first, second) == [30, 100]
    assert_ledger_holds()


def test_refunds_of_one_batch_share_its_draws() -> None:
    organization = make_organization()
    first, second = give(organization, 10, kind="promotional"), give(organization, 10)
    events = [make_event(organization, 6) for _ in range(3)]
    settle(*events)
    for event in events:
        refund(organization, event)
    assert remaining(first, second) == [10, 10]
    assert account_balances(organization) == {"prepaid": 10, "promotional": 10}
    assert_ledger_holds()


def test_refunds_of_requests_are_found_by_their_keys_however_many_transactions_there_are() -> None:
    organization = make_organization()
    event = charge(organization, 70)
    refund(organization, event, 50)
    request_id = UUID(event.request_id)
    assert refunded_by_request([request_id]) == {request_id: 50}
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")  # Of so few rows all are read.
        cursor.execute(f"EXPLAIN {REFUNDED}", [[request_id]])
        plan = "\n".join(line for (line,) in cursor.fetchall())
    assert re.search(r"Index Cond: .*idempotency_key\)::text ~>=~", plan), plan


def test_the_same_key_refunds_once() -> None:
    organization = make_organization()
    give(organization, 100)
    event = charge(organization, 70)
    assert refund(organization, event, 10).is_new
    assert not refund(organization, event, 10).is_new
    with pytest.raises(IdempotencyConflictError):
        refund(organization, event, 11)
    assert posted(organization) == 40


def test_what_was_owed_is_owed_no_longer() -> None:
    organization = make_organization()
    lot = give(organization, 10)
    event = charge(organization, 50)
    refund(organization, event, 45)
    assert account_balances(organization) == {"prepaid": 5}
    assert remaining(lot) == [5]
    assert_ledger_holds()


def test_a_debt_that_promotional_credit_cleared_does_not_become_cash() -> None:
    organization = make_organization()
    event = charge(organization, 50)
    promotional = give(organization, 80, kind="promotional")
    assert remaining(promotional) == [30]
    refund(organization, event)
    assert account_balances(organization) == {"promotional": 80}
    assert remaining(promotional) == [80]
    assert_ledger_holds()


def test_a_lot_that_paid_for_something_else_since_cleared_no_debt() -> None:
    """The adjustment drew paid credit; the refund of a debt goes to the promotional credit that cleared it."""
    organization = make_organization()
    event = charge(organization, 50)
    promotional, paid = give(organization, 50, kind="promotional"), give(organization, 100)
    adjust(organization, -50, key="down")
    assert remaining(promotional, paid) == [0, 50]
    refund(organization, event, 20, key="1")
    refund(organization, event, 30, key="2")
    assert remaining(promotional, paid) == [50, 50]
    assert_ledger_holds()


def test_a_debt_that_a_payment_cleared_is_given_back_as_paid_credit() -> None:
    organization = make_organization()
    event = charge(organization, 50)
    paid = give(organization, 60)
    charge(organization, 10)
    refund(organization, event)
    assert remaining(paid) == [50]
    assert account_balances(organization) == {"prepaid": 50}
    assert_ledger_holds()


@pytest.mark.parametrize("nanos", [0, -1, 71])
def test_an_amount_beyond_the_cost_is_refused(nanos: int) -> None:
    organization = make_organization()
    event = charge(organization, 70)
    with pytest.raises(InvalidRefundError):
        refund(organization, event, nanos)
    assert posted(organization) == -70


def test_a_request_of_another_organization_is_refused_like_one_that_never_was() -> None:
    organization, other = make_organization(), make_organization("Other")
    event = charge(organization, 70)
    with pytest.raises(InvalidRefundError, match="Nothing was charged"):
        refund(other, event)
    with pytest.raises(InvalidRefundError, match="Nothing was charged"):
        refund(organization, make_event(organization, request_id=make_request_id().hex))


def test_adjustments_add_a_lot_or_charge() -> None:
    organization = make_organization()
    up = adjust(organization, 30, key="up")
    assert entries_of(up.transaction.pk) == {"promotional": 30, "revenue": -30}
    down = adjust(organization, -50, key="down")
    assert entries_of(down.transaction.pk) == {"promotional": -30, "receivable": -20, "revenue": 50}
    adjust(organization, 25, key="paid", lot_kind=CreditLot.Kind.PAID)
    assert account_balances(organization) == {"prepaid": 5}
    with pytest.raises(InvalidAdjustmentError):
        adjust(organization, 0, key="none")
    assert_ledger_holds()


steps = st.one_of(
    st.tuples(st.sampled_from(["paid", "promotional"]), st.integers(1, 60)),
    st.tuples(st.just("charge"), st.integers(1, 60)),
    st.tuples(st.just("refund"), st.integers(0, 60)),
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(steps, max_size=12))
def test_no_history_of_refunds_makes_cash_of_promotional_credit(history: list[tuple[str, int]]) -> None:
    organization = make_organization()
    charged: list[list[UsageEvent | int]] = []
    paid = expected = 0
    for number, (step, nanos) in enumerate(history):
        if step == "charge":
            charged.append([charge(organization, nanos), nanos])
            expected -= nanos
        elif step == "refund" and charged:
            event, left = charged[nanos % len(charged)]
            assert isinstance(event, UsageEvent)
            assert isinstance(left, int)
            part = min(left, nanos)
            if part:
                refund(organization, event, part, key=str(number))
                charged[nanos % len(charged)][1] = left - part
                expected += part
        elif step in ("paid", "promotional"):
            give(organization, nanos, kind=step)
            expected += nanos
            paid += nanos if step == "paid" else 0
    refresh_statistics()
    balances = account_balances(organization)
    assert sum(balances.values()) == expected
    assert balances.get("prepaid", 0) <= paid
    assert_ledger_holds()
