"""What providers say, in every order and number, changes the books once. Each numbered fault of issue 10 is a test."""

import itertools

import pytest
from django.db import IntegrityError, connection, transaction

from billing.models import (
    LedgerTransaction,
    PaymentBreak,
    PaymentDispute,
    PaymentMovement,
    PaymentReversal,
    TopUp,
)
from billing.money import cents_to_nanos, read_currency
from billing.payments.events import apply_event
from billing.payments.orders import InvalidOrderError, OrderConflictError, TooManyOrdersError
from billing.payments.provider import ChargeSeen, CheckoutProcessing, DisputeNoted, PaymentEvent
from tests.billing.ledger_factory import (
    USD,
    account_balances,
    assert_ledger_holds,
    entries_of,
    give,
    make_event,
    make_organization,
    posted,
    settle,
)
from tests.billing.payments.payment_factory import (
    NOON,
    PROVIDER,
    at,
    buy,
    failed,
    order,
    paid,
    refund_failed,
    refunded,
    reinstated,
    withdrawn,
)
from tests.support.together import run_together

ORDERS = list(itertools.permutations(range(5)))

pytestmark = pytest.mark.django_db


def state_of(top_up: TopUp) -> str:
    top_up.refresh_from_db()
    return top_up.state


# --- Orders ---------------------------------------------------------------------------------------------------------


def test_an_order_credits_nothing_until_it_is_paid() -> None:
    organization = make_organization()
    top_up = order(organization)
    assert (top_up.state, top_up.currency, top_up.ledger_transaction) == ("pending", "USD", None)
    assert not LedgerTransaction.objects.exists()


def test_the_same_key_is_one_order_and_another_amount_is_refused() -> None:
    organization, other = make_organization(), make_organization("Other")
    first = order(organization, idempotency_key="k")
    assert order(organization, idempotency_key="k").pk == first.pk
    assert order(other, idempotency_key="k").pk != first.pk
    with pytest.raises(OrderConflictError, match=r"for 10\.00 USD"):
        order(organization, 20, idempotency_key="k")


@pytest.mark.parametrize("nanos", [-USD, 0, 5 * USD - 1, 5 * USD + 1, 10_000 * USD + 1, 10**30])
def test_an_amount_out_of_bounds_or_finer_than_a_cent_is_no_order(nanos: int) -> None:
    with pytest.raises(InvalidOrderError):
        order(make_organization(), amount_nanos=nanos)
    assert not TopUp.objects.exists()


def test_orders_are_limited_by_the_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("billing.payments.orders.MAX_ORDERS_PER_HOUR", 2)
    organization = make_organization()
    first = order(organization, idempotency_key="k")
    order(organization, origin=TopUp.Origin.API)
    with pytest.raises(TooManyOrdersError):
        order(organization)
    with pytest.raises(TooManyOrdersError):
        order(organization, origin=TopUp.Origin.API)
    assert order(organization, idempotency_key="k").pk == first.pk


@pytest.mark.django_db(transaction=True)
def test_a_double_click_is_one_order() -> None:
    organization = make_organization()
    assert run_together(*[lambda: order(organization, idempotency_key="k")] * 4) == []
    assert TopUp.objects.count() == 1


@pytest.mark.parametrize(
    "change", ["amount_nanos = 1", "provider = 'x'", "currency = 'EUR'", "reference = gen_random_uuid()"]
)
def test_the_terms_of_an_order_never_change(change: str) -> None:
    order(make_organization())
    with pytest.raises(IntegrityError), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"UPDATE billing_topup SET {change}")  # noqa: S608  Constants of this test.


@pytest.mark.parametrize("code", ["eur", "EUR", "jpy", "", "usdt"])
def test_a_second_currency_is_a_type_error(code: str) -> None:
    with pytest.raises(TypeError, match="Amounts are in USD"):
        read_currency(code)
    with pytest.raises(TypeError):
        cents_to_nanos(100, code)  # type: ignore[arg-type]  # mypy says so, too.
    assert cents_to_nanos(100, read_currency("usd")) == USD


# --- Credited once --------------------------------------------------------------------------------------------------


def test_a_paid_order_is_credited_once_with_what_was_ordered() -> None:
    organization = make_organization()
    top_up = order(organization)
    event = paid(top_up)
    assert [apply_event(event).changed for _ in range(3)] == [True, False, False]
    assert state_of(top_up) == "paid"
    assert top_up.ledger_transaction is not None
    assert entries_of(top_up.ledger_transaction.pk) == {"prepaid": 10 * USD, "cash": -10 * USD}
    assert (top_up.payment_id, top_up.charge_id, top_up.paid_at) == (event.payment_id, event.charge_id, NOON)
    assert posted(organization) == 10 * USD
    assert_ledger_holds()


@pytest.mark.django_db(transaction=True)
def test_the_same_event_many_times_at_once_is_one_credit() -> None:
    organization = make_organization()
    top_up = order(organization)
    assert run_together(*[lambda: apply_event(paid(top_up))] * 6) == []
    assert posted(organization) == 10 * USD
    assert_ledger_holds()


@pytest.mark.parametrize("paid_usd", [0, 7])
def test_a_discounted_or_free_order_is_credited_whole_and_the_discount_is_ours(paid_usd: int) -> None:
    organization = make_organization()
    top_up = order(organization)
    apply_event(paid(top_up, paid_nanos=paid_usd * USD, payment_id="", charge_id=""))
    assert state_of(top_up) == "paid"
    assert top_up.ledger_transaction is not None
    expected = {"prepaid": 10 * USD, "cash": -paid_usd * USD, "promotion_expense": -(10 - paid_usd) * USD}
    assert entries_of(top_up.ledger_transaction.pk) == {kind: nanos for kind, nanos in expected.items() if nanos}
    assert_ledger_holds()


def test_an_unpaid_session_waits_for_its_success() -> None:
    organization = make_organization()
    top_up = order(organization)
    apply_event(CheckoutProcessing(PROVIDER, top_up.reference, NOON, f"cs_{top_up.pk}", f"pi_{top_up.pk}"))
    assert state_of(top_up) == "pending"
    assert top_up.processing_since == NOON
    assert not LedgerTransaction.objects.exists()
    apply_event(paid(top_up, occurred_at=at(3600)))
    assert (state_of(top_up), posted(organization)) == ("paid", 10 * USD)


def test_an_unpaid_session_waits_for_its_failure() -> None:
    top_up = order(make_organization())
    apply_event(CheckoutProcessing(PROVIDER, top_up.reference, NOON, f"cs_{top_up.pk}"))
    apply_event(failed(top_up))
    assert (state_of(top_up), top_up.failure) == ("failed", "The bank declined the debit.")
    assert not LedgerTransaction.objects.exists()
    assert_ledger_holds()


def test_money_that_is_there_after_all_is_credited() -> None:
    organization = make_organization()
    top_up = order(organization)
    apply_event(failed(top_up))
    apply_event(paid(top_up))
    assert (state_of(top_up), top_up.failure, posted(organization)) == ("paid", "", 10 * USD)
    assert_ledger_holds()


@pytest.mark.parametrize(
    "orders", [pytest.param(ORDERS[::10], id="a tenth"), pytest.param(ORDERS, id="all", marks=pytest.mark.long)]
)
def test_every_order_of_the_same_events_ends_in_the_same_books(orders: list[tuple[int, ...]]) -> None:
    ends = set()
    for number, places in enumerate(orders):
        organization = make_organization(f"o{number}")
        top_up = order(organization)
        events: list[PaymentEvent] = [
            CheckoutProcessing(PROVIDER, top_up.reference, NOON, f"cs_{top_up.pk}", f"pi_{top_up.pk}"),
            paid(top_up),
            refunded(top_up, 3, seconds=10),
            refunded(top_up, 5, seconds=11),
            withdrawn(top_up, 2, dispute=f"dp_{number}"),
        ]
        for place in places:
            apply_event(events[place])
            apply_event(events[place])
        ends.add((state_of(top_up), top_up.reversed_nanos, posted(organization)))
    assert ends == {("paid", 7 * USD, 3 * USD)}
    assert not PaymentBreak.objects.filter(resolved_at=None).exists()
    assert_ledger_holds()


def test_an_event_of_one_provider_never_completes_anothers_order() -> None:
    top_up = order(make_organization(), provider="sandbox")
    applied = apply_event(paid(top_up))
    assert (applied.top_up, state_of(top_up)) == (None, "pending")
    assert not LedgerTransaction.objects.exists()
    assert PaymentBreak.objects.get().kind == "mismatched"


def test_an_event_of_another_checkout_never_completes_an_order() -> None:
    top_up = order(make_organization())
    TopUp.objects.filter(pk=top_up.pk).update(checkout_id="cs_real")
    apply_event(paid(top_up, checkout_id="cs_other"))
    assert state_of(top_up) == "pending"
    assert PaymentBreak.objects.get().kind == "mismatched"


def test_a_payment_of_no_order_is_a_break() -> None:
    top_up = order(make_organization())
    stranger = paid(top_up, reference="00000000-0000-0000-0000-000000000001")
    assert [apply_event(stranger).changed for _ in range(2)] == [False, False]
    assert [row.kind for row in PaymentBreak.objects.all()] == ["unattributed"]


def test_a_failure_after_the_credit_is_a_break_and_takes_nothing() -> None:
    organization = make_organization()
    top_up = buy(organization)
    assert [apply_event(failed(top_up)).changed for _ in range(2)] == [True, False]
    assert (state_of(top_up), posted(organization)) == ("paid", 10 * USD)
    row = PaymentBreak.objects.get()
    assert (row.kind, row.amount_nanos, row.top_up) == ("late_failure", 10 * USD, top_up)


def test_what_was_paid_beyond_the_order_is_a_break_and_not_credited() -> None:
    organization = make_organization()
    top_up = order(organization)
    apply_event(paid(top_up, paid_nanos=12 * USD))
    assert posted(organization) == 10 * USD
    assert PaymentBreak.objects.get().kind == "overpaid"
    apply_event(refunded(top_up, 2))
    assert posted(organization) == 10 * USD


def test_a_credit_clears_what_is_owed() -> None:
    organization = make_organization()
    settle(make_event(organization, 4 * USD))
    buy(organization)
    assert account_balances(organization) == {"prepaid": 6 * USD}
    assert_ledger_holds()


# --- Refunds and disputes -------------------------------------------------------------------------------------------


def test_a_cumulative_refund_takes_back_the_difference_only() -> None:
    organization = make_organization()
    top_up = buy(organization)
    apply_event(refunded(top_up, 3, seconds=10))
    apply_event(refunded(top_up, 5, seconds=11))
    apply_event(refunded(top_up, 5, seconds=11))
    assert [row.amount_nanos for row in top_up.reversals.all()] == [3 * USD, 2 * USD]
    assert (state_of(top_up), posted(organization)) == ("paid", 5 * USD)
    apply_event(refunded(top_up, 10, seconds=12))
    assert (state_of(top_up), posted(organization)) == ("refunded", 0)
    reversal = PaymentReversal.objects.filter(top_up=top_up).latest("id")
    assert entries_of(reversal.ledger_transaction_id) == {"prepaid": -5 * USD, "cash": 5 * USD}
    assert_ledger_holds()


def test_a_dispute_of_spent_credit_leaves_a_debt_that_is_never_floored() -> None:
    organization = make_organization()
    top_up = buy(organization)
    settle(make_event(organization, 9 * USD))
    apply_event(withdrawn(top_up))
    assert account_balances(organization) == {"receivable": -9 * USD}
    assert state_of(top_up) == "refunded"
    apply_event(reinstated(top_up))
    assert (account_balances(organization), state_of(top_up)) == ({"prepaid": USD}, "paid")
    assert_ledger_holds()


def test_funds_move_money_and_what_is_opened_or_closed_does_not() -> None:
    organization = make_organization()
    top_up = buy(organization)
    for status in ("needs_response", "under_review", "lost"):
        apply_event(DisputeNoted(PROVIDER, "dp_1", f"ch_{top_up.pk}", "", status, NOON))
    assert posted(organization) == 10 * USD
    assert [(row.status, row.top_up) for row in PaymentDispute.objects.all()] == [("lost", top_up)]
    for _ in range(2):
        apply_event(withdrawn(top_up))
    assert posted(organization) == 0
    apply_event(DisputeNoted(PROVIDER, "dp_1", f"ch_{top_up.pk}", "", "won", at(99)))
    assert posted(organization) == 0


def test_a_charge_that_is_disputed_and_refunded_is_taken_back_once() -> None:
    organization = make_organization()
    top_up = buy(organization)
    apply_event(withdrawn(top_up))
    apply_event(refunded(top_up, 10))
    assert (posted(organization), top_up.reversals.count()) == (0, 1)
    apply_event(reinstated(top_up))
    assert posted(organization) == 0, "the refund still stands"
    assert_ledger_holds()


def test_a_dispute_names_no_customer_and_is_found_by_its_charge() -> None:
    organization, other = make_organization(), make_organization("Other")
    first, second = buy(organization), buy(other)
    apply_event(withdrawn(second))
    assert (posted(organization), posted(other)) == (10 * USD, 0)
    assert state_of(first) == "paid"


def test_a_dispute_of_an_unknown_charge_is_a_break_until_its_charge_is_known() -> None:
    organization = make_organization()
    top_up = order(organization)
    apply_event(paid(top_up, charge_id=""))
    apply_event(withdrawn(top_up))
    assert posted(organization) == 10 * USD
    assert PaymentMovement.objects.get().top_up is None
    assert PaymentBreak.objects.get(resolved_at=None).kind == "unattributed"
    apply_event(ChargeSeen(PROVIDER, f"pi_{top_up.pk}", f"ch_{top_up.pk}", NOON))
    assert posted(organization) == 0
    assert not PaymentBreak.objects.filter(resolved_at=None).exists()
    assert_ledger_holds()


def test_a_refund_that_fails_gives_back_what_it_took() -> None:
    organization = make_organization()
    top_up = buy(organization)
    apply_event(refunded(top_up, 4, seconds=10))
    apply_event(refund_failed(top_up, 4, seconds=50))
    assert posted(organization) == 10 * USD
    apply_event(refunded(top_up, 4, seconds=60))
    assert (posted(organization), state_of(top_up)) == (6 * USD, "paid")
    assert_ledger_holds()


def test_a_refund_of_a_discounted_order_takes_back_in_proportion() -> None:
    organization = make_organization()
    top_up = order(organization)
    apply_event(paid(top_up, paid_nanos=8 * USD))
    apply_event(refunded(top_up, 4, seconds=10))
    assert posted(organization) == 5 * USD
    apply_event(refunded(top_up, 8, seconds=11))
    assert (posted(organization), state_of(top_up)) == (0, "refunded")
    assert_ledger_holds()


def test_its_own_lot_is_taken_first_then_others_then_it_is_owed() -> None:
    organization = make_organization()
    welcome = give(organization, 2 * USD, kind="promotional")
    top_up = buy(organization)
    later = buy(organization, 5)
    settle(make_event(organization, 8 * USD))  # 2 promotional, then 6 of the first payment.
    apply_event(withdrawn(top_up))
    welcome.refresh_from_db()
    assert (welcome.remaining_nanos, account_balances(organization)) == (0, {"receivable": -USD})
    apply_event(reinstated(top_up))
    assert account_balances(organization) == {"prepaid": 9 * USD}
    assert state_of(later) == "paid"
    assert_ledger_holds()


@pytest.mark.django_db(transaction=True)
def test_payment_refund_and_dispute_at_once_are_taken_back_once() -> None:
    organization = make_organization()
    top_up = order(organization)
    events = [paid(top_up), refunded(top_up, 10), withdrawn(top_up)]
    assert run_together(*[lambda event=event: apply_event(event) for event in events for _ in range(2)]) == []
    apply_event(paid(top_up))
    assert posted(organization) == 0
    assert_ledger_holds()
