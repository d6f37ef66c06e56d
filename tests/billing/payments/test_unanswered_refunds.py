"""Refunds to which a provider gave no answer: its list is asked, and what it does not have is left to a person."""

from datetime import timedelta

import pytest
from django.utils import timezone

from billing.models import PaymentBreak, PaymentRefund, TopUp
from billing.payments.provider import PaymentProviderError
from billing.payments.refunds import complete_refund, give_up_refund, resume_refunds
from tests.billing.ledger_factory import USD, assert_ledger_holds, make_organization, posted
from tests.billing.payments.test_pull import buy_at, pay_back
from tests.support.payment_sandbox import PaymentSandbox

pytestmark = pytest.mark.django_db


def left_without_an_answer(sandbox: PaymentSandbox, top_up: TopUp, *, is_made: bool) -> PaymentRefund:
    """Ask for a refund of 10 a day ago, and die before the answer; `is_made` says whether the provider made it."""
    sandbox.control(down=not is_made)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("billing.payments.refunds.apply_event", _die)
        with pytest.raises((SystemExit, PaymentProviderError)):
            pay_back(top_up, 10)
    sandbox.control(down=False)
    PaymentRefund.objects.update(created_at=timezone.now() - timedelta(hours=21))
    return PaymentRefund.objects.get()


def _die(_: object) -> None:
    raise SystemExit


def test_a_refund_that_the_list_has_is_done_however_old_it_is(sandbox: PaymentSandbox) -> None:
    top_up = buy_at(sandbox, make_organization())
    left_without_an_answer(sandbox, top_up, is_made=True)
    assert (resume_refunds(), resume_refunds()) == (1, 0)
    assert posted(top_up.organization) == 0
    assert not PaymentBreak.objects.exists()
    assert_ledger_holds()


def test_a_refund_that_the_list_has_not_is_left_to_a_person_after_a_day(sandbox: PaymentSandbox) -> None:
    top_up = buy_at(sandbox, make_organization())
    refund = left_without_an_answer(sandbox, top_up, is_made=False)
    assert (resume_refunds(), resume_refunds()) == (0, 0)
    with pytest.raises(PaymentProviderError, match="A person decides"):
        pay_back(top_up, 10)
    row = PaymentBreak.objects.get()
    assert (row.kind, row.top_up, row.amount_nanos) == ("unanswered", top_up, 10 * USD)
    assert posted(top_up.organization) == 10 * USD
    assert [complete_refund(refund).done_at is not None for _ in range(2)] == [True, True]
    row.refresh_from_db()
    assert row.resolved_at is not None
    assert posted(top_up.organization) == 0
    assert_ledger_holds()


def test_a_refund_that_is_given_up_lets_others_be_made(sandbox: PaymentSandbox) -> None:
    top_up = buy_at(sandbox, make_organization())
    refund = left_without_an_answer(sandbox, top_up, is_made=False)
    resume_refunds()
    sandbox.control(down=True)
    with pytest.raises(PaymentProviderError):
        give_up_refund(refund, reason="It says that it has none.", actor="bob")
    sandbox.control(down=False)
    assert give_up_refund(refund, reason="It says that it has none.", actor="bob").refused.startswith("Given up")
    assert PaymentBreak.objects.get().resolved_by == "bob"
    pay_back(top_up, 4, "another")
    assert posted(top_up.organization) == 6 * USD


def test_a_refund_that_was_made_is_not_given_up(sandbox: PaymentSandbox) -> None:
    top_up = buy_at(sandbox, make_organization())
    refund = left_without_an_answer(sandbox, top_up, is_made=True)
    given_up = give_up_refund(refund, reason="It says that it has none.", actor="bob")
    assert (given_up.done_at is not None, given_up.refused) == (True, "")
    assert posted(top_up.organization) == 0
