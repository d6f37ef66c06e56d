"""Whatever happened in a month: lines are the net, net and tax are the gross, documents are the ledger."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pytest_django import Settings

from billing.checks.documents import DOCUMENT_CHECKS
from billing.checks.invariant import run_checks
from billing.corrections.refunds import InvalidRefundError, adjust_balance
from billing.documents.tax import format_rate, round_to_cents, tax_cents_of
from billing.models import Document
from tests.billing.documents.months import OCTOBER, SEPTEMBER, Customer, at, sell
from tests.billing.ledger_factory import make_event, settle
from tests.support.past import posted_at

STEP = st.tuples(
    st.sampled_from(["use", "use", "use late", "paid", "promotional", "refund", "part", "charge", "credit", "orphan"]),
    st.integers(1, 300_000),
    st.integers(0, 60),  # The day, from the first of September on.
)


@pytest.mark.django_db
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEP, max_size=14), rate=st.sampled_from([0, 70_000, 77_000, 190_000, 250_000]))
@example(steps=[("use", 100_000, 1), ("promotional", 1, 40), ("refund", 1, 41)], rate=190_000)
def test_documents_add_up_and_are_the_ledger(steps: list[tuple[str, int, int]], rate: int, settings: Settings) -> None:
    settings.TAX_RATES_PPM = {"*": rate}
    customer, versions = Customer(), [sell(), sell("acme/small", minimum_charge_nanos=7_777, input=333_333)]
    ordered = sorted(enumerate(steps), key=lambda step: step[1][2])
    september = False
    for number, (what, amount, day) in ordered:
        if day >= 30 and not september:
            customer.close(SEPTEMBER)
            september = True
        _happen(customer, versions[amount % 2], what, amount, day, number)
    customer.close(OCTOBER)
    for document in Document.objects.filter(organization=customer.organization):
        assert sum(document.lines.values_list("amount_nanos", flat=True)) == document.net_nanos
        assert document.gross_cents == document.net_cents + document.tax_cents
        assert abs(document.net_cents * 10_000_000 - document.net_nanos) <= 5_000_000
    assert run_checks(DOCUMENT_CHECKS).breaks == []


def _happen(customer: Customer, version: Any, what: str, amount: int, day: int, number: int) -> None:
    moment = SEPTEMBER.begins + timedelta(days=day, hours=1)
    names: dict[str, Any] = {"reason": "r", "actor": "a", "idempotency_key": f"{customer.organization.pk}:{number}"}
    if what in ("use", "use late"):
        admitted = moment - timedelta(days=3) if what == "use late" else moment
        customer.use(version, admitted, settled=moment, input_tokens=amount, output_tokens=amount % 5)
    elif what in ("paid", "promotional"):
        customer.give(amount * 5_000, moment, what)
    elif what in ("refund", "part") and customer.events:
        event = customer.events[amount % len(customer.events)]
        try:
            customer.refund(moment, event=event, nanos=None if what == "refund" else event.cost_nanos // 3)
        except InvalidRefundError:
            return  # All of it was refunded before.
    elif what in ("charge", "credit"):
        with posted_at(moment):
            adjust_balance(customer.organization, amount_nanos=amount if what == "credit" else -amount, **names)
    elif what == "orphan":
        with posted_at(moment):
            values = {"price_version_id": version.pk, "language_model_id": version.language_model_id}
            values |= {"model_id": version.language_model.model_id, "key_id": customer.key.pk}
            values |= {"admitted_at_ms": int(moment.timestamp() * 1000)}
            orphan = make_event(customer.organization, 0, usage_source="orphan", **values)
            settle(orphan)
            values |= {"request_id": orphan.request_id, "input_tokens": 0, "hold_nanos": 1}
            settle(make_event(customer.organization, 0, usage_source="provider", **values))


@given(st.integers(0, 10**15), st.integers(0, 1_000_000))
def test_the_gross_is_the_net_and_its_tax(nanos: int, rate_ppm: int) -> None:
    net = round_to_cents(nanos)
    tax = tax_cents_of(net, rate_ppm)
    assert abs(net * 10_000_000 - nanos) <= 5_000_000
    assert abs(tax * 1_000_000 - net * rate_ppm) <= 500_000
    assert 0 <= tax <= net


@pytest.mark.parametrize(
    ("nanos", "cents"), [(0, 0), (4_999_999, 0), (5_000_000, 1), (14_999_999, 1), (15_000_000, 2), (10**16, 10**9)]
)
def test_half_a_cent_is_rounded_up(nanos: int, cents: int) -> None:
    assert round_to_cents(nanos) == cents


def test_nothing_is_rounded_below_zero() -> None:
    with pytest.raises(ValueError, match="not below zero"):
        round_to_cents(-1)


@pytest.mark.parametrize(("ppm", "text"), [(0, "0 %"), (190_000, "19 %"), (77_000, "7.7 %"), (81_250, "8.125 %")])
def test_rates_are_written_as_people_read_them(ppm: int, text: str) -> None:
    assert format_rate(ppm) == text


def test_days_used_here_lie_in_two_months() -> None:
    assert SEPTEMBER.contains(at(9, 30))
    assert SEPTEMBER.begins + timedelta(days=60) < OCTOBER.ends
