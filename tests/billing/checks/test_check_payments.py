"""I11, broken by force: payments and the ledger say the same, and where they do not, it is found."""

import pytest
from django.db import connection

from billing.checks import CHECKS, run_checks
from billing.checks.payments import PAYMENT_CHECKS
from billing.credit.top_ups import record_payment
from billing.models import TopUp
from billing.payments.events import apply_event
from tests.billing.checks.test_check_ledger import force
from tests.billing.ledger_factory import USD, make_organization
from tests.billing.payments.payment_factory import buy, failed, refunded

pytestmark = pytest.mark.django_db


def broken() -> list[str]:
    return run_checks(PAYMENT_CHECKS).breaks


@pytest.fixture
def top_up() -> TopUp:
    top_up = buy(make_organization())
    apply_event(refunded(top_up, 4))
    top_up.refresh_from_db()
    assert run_checks(CHECKS).breaks == []
    return top_up


@pytest.mark.parametrize(
    "change",
    ["state = 'pending', ledger_transaction_id = NULL, paid_nanos = NULL", "amount_nanos = amount_nanos * 2"],
)
def test_i11_an_order_that_is_not_what_was_credited(top_up: TopUp, change: str) -> None:
    force(f"UPDATE billing_topup SET {change} WHERE id = %s", top_up.pk)  # noqa: S608  Constants of this test.
    assert any(f"top-up {top_up.pk} " in line or "no order has it" in line for line in broken())


def test_i11_an_order_that_is_credited_to_another_organization(top_up: TopUp) -> None:
    other = make_organization("Other")
    force("UPDATE billing_topup SET organization_id = %s WHERE id = %s", other.pk, top_up.pk)
    assert any(f"{USD * 10} were ordered by {other.pk}" in line for line in broken())


def test_i11_a_credit_without_an_order(top_up: TopUp) -> None:
    """What a second webhook would do if the ledger took another key for it: the order has one credit only."""
    record_payment(top_up.organization, payment_provider="stripe", payment_id="0" * 32, amount_nanos=10 * USD)
    assert any("no order has it" in line for line in broken())


def test_i11_a_refund_that_was_not_taken_back(top_up: TopUp) -> None:
    force("UPDATE billing_topup SET reversed_nanos = 0 WHERE id = %s", top_up.pk)
    assert any("0 taken back, its reversals sum to 4000000000" in line for line in broken())


def test_i11_a_reversal_that_no_order_has(top_up: TopUp) -> None:
    force("DELETE FROM billing_paymentreversal WHERE top_up_id = %s", top_up.pk)
    assert any("is a reversal, and no order has it" in line for line in broken())


def test_i11_a_payment_that_was_booked_as_more_cash_than_came(top_up: TopUp) -> None:
    force("UPDATE billing_topup SET paid_nanos = 0 WHERE id = %s", top_up.pk)
    assert any("was paid 0 nanos of" in line for line in broken())


def test_i11_a_failure_after_the_credit_stands_until_somebody_resolves_it(top_up: TopUp) -> None:
    apply_event(failed(top_up))
    assert [line.split(" at ")[0] for line in broken()] == ["I11 late_failure"]
    with connection.cursor() as cursor:
        cursor.execute("UPDATE billing_paymentbreak SET resolved_at = now(), resolution = 'An old message.'")
    assert broken() == []
