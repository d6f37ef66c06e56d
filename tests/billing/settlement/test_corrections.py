"""Refunds and re-ratings of one request meet: nothing is given back twice; receipts, statements, margins agree."""

from datetime import UTC, date, datetime, timedelta
from io import StringIO
from uuid import UUID

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from accounts.models import Organization
from billing.catalog.price_versions import PriceDraft, approve_price_version, draft_price
from billing.corrections.refunds import InvalidRefundError, refund_usage
from billing.corrections.rerating import ReratingPlan, apply_rerating
from billing.credit.top_ups import grant_credit
from billing.ledger.statements import CorrectedRequest, corrected_requests, list_statement
from billing.models import CreditLot, LanguageModel, PriceVersion, UsageRecord
from billing.usage.margin import margins, request_margins
from billing.usage.receipts import Receipt, find_receipt
from tests.billing.ledger_factory import (
    USD,
    assert_ledger_holds,
    give,
    make_event,
    make_organization,
    make_price,
    posted,
    settle,
)
from tests.support.operators import as_root

pytestmark = pytest.mark.django_db

COST = 1_000_000


@pytest.fixture
def alice() -> Organization:
    organization = make_organization("Alice")
    give(organization, USD)
    return organization


@pytest.fixture
def record(alice: Organization) -> UsageRecord:
    event = make_event(alice, COST, price_version_id=make_price().pk, language_model_id=LanguageModel.objects.get().pk)
    settle(event)
    return UsageRecord.objects.get(pk=event.request_id)


def price_of(nanos_per_token: float) -> PriceVersion:
    draft = PriceDraft(
        effective_from=datetime(2026, 1, 1, tzinfo=UTC),
        source="a correction",
        source_date=date(2026, 1, 2),
        tiers={"input": ((0, int(nanos_per_token * 1_000)),), "output": ((0, 0),)},
    )
    return approve_price_version(draft_price(LanguageModel.objects.get(), draft, created_by="alice"), approved_by="bob")


def rerate(nanos_per_token: float, monkeypatch: pytest.MonkeyPatch) -> int:
    """Price the last day again and return the difference in nanos."""
    later = timezone.now() + timedelta(minutes=1)
    monkeypatch.setattr("billing.corrections.rerating.timezone.now", lambda: later)
    plan = ReratingPlan(LanguageModel.objects.get(), price_of(nanos_per_token), later - timedelta(days=1), later)
    differences = apply_rerating(plan, actor="olga", reason="it was wrong")
    monkeypatch.undo()
    return sum(difference.difference_nanos for difference in differences)


def refund(record: UsageRecord, nanos: int | None = None, *, key: str = "r") -> int:
    alice = Organization.objects.get(pk=record.organization_id)
    before = posted(alice)
    refund_usage(
        alice, request_id=record.request_id, amount_nanos=nanos, reason="sorry", actor="olga", idempotency_key=key
    )
    return posted(alice) - before


def receipt_of(record: UsageRecord) -> Receipt:
    found = find_receipt(Organization.objects.get(pk=record.organization_id), record.request_id)
    assert isinstance(found, Receipt)
    return found


def test_a_refund_after_a_lowered_price_gives_back_what_is_left(
    alice: Organization, record: UsageRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert rerate(0.6, monkeypatch) == -400_000
    with pytest.raises(InvalidRefundError):
        refund(record, COST)
    assert refund(record) == 600_000
    assert posted(alice) == USD
    assert_ledger_holds()


def test_a_lowered_price_after_a_refund_gives_nothing_back_twice(
    alice: Organization, record: UsageRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    refund(record)
    assert rerate(0.6, monkeypatch) == 0
    assert posted(alice) == USD
    assert_ledger_holds()


def test_a_lowered_price_after_a_part_was_refunded(
    alice: Organization, record: UsageRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    """800,000 are given back: at 600,000 the request would be paid back more than once over."""
    refund(record, 800_000)
    assert rerate(0.6, monkeypatch) == -200_000
    assert posted(alice) == USD
    assert rerate(0.6, monkeypatch) == 0
    assert_ledger_holds()


def test_a_refund_finds_room_after_a_re_rating_has_filled_the_lot_that_was_drawn_last(
    alice: Organization, monkeypatch: pytest.MonkeyPatch
) -> None:
    """600,000 were promotional and 400,000 paid; the re-rating fills the paid lot, the refund the other."""
    grant_credit(
        alice,
        amount_nanos=600_000,
        kind=CreditLot.Kind.PROMOTIONAL,
        reason="test",
        actor="olga",
        idempotency_key="promotion",
    )
    event = make_event(alice, COST, price_version_id=make_price().pk, language_model_id=LanguageModel.objects.get().pk)
    settle(event)
    record = UsageRecord.objects.get(pk=event.request_id)
    assert rerate(0.6, monkeypatch) == -400_000
    assert refund(record) == 600_000
    lots = CreditLot.objects.filter(organization=alice).order_by("pk").values_list("kind", "remaining_nanos")
    assert list(lots) == [("paid", USD), ("promotional", 600_000)]
    assert_ledger_holds()


def test_a_refund_of_all_is_the_same_when_it_is_repeated_at_another_price(
    alice: Organization, record: UsageRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert rerate(0.6, monkeypatch) == -400_000
    assert refund(record) == 600_000
    assert rerate(1.0, monkeypatch) == 400_000
    assert refund(record) == 0
    assert posted(alice) == USD - 400_000
    assert_ledger_holds()


def test_a_raised_price_is_not_what_refunds_are_bounded_by(
    alice: Organization, record: UsageRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert rerate(1.5, monkeypatch) == 500_000
    assert refund(record) == COST
    assert receipt_of(record).current_nanos == 500_000
    assert posted(alice) == USD - 500_000
    assert_ledger_holds()


def test_a_receipt_shows_what_is_paid_in_the_end(record: UsageRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = receipt_of(record)
    assert (plain.is_corrected, plain.current_nanos, plain.agrees) == (False, COST, True)
    rerate(0.6, monkeypatch)
    refund(record, 100_000)
    receipt = receipt_of(record)
    assert (receipt.rerated_nanos, receipt.refunded_nanos, receipt.current_nanos) == (600_000, 100_000, 500_000)
    assert receipt.agrees


def test_a_statement_names_the_requests_that_were_corrected(
    alice: Organization, record: UsageRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    rerate(0.6, monkeypatch)
    refund(record, 100_000)
    lines = list_statement(alice).lines
    assert [(line.transaction.kind, line.amount_nanos) for line in lines[:3]] == [
        ("refund", 100_000),
        ("rerating", 400_000),
        ("usage", -COST),
    ]
    assert [corrected_requests(line.transaction, limit=9) for line in lines[:3]] == [
        [CorrectedRequest(record.request_id, 100_000)],
        [CorrectedRequest(record.request_id, 400_000)],
        [],
    ]


def test_margins_count_what_re_rated_requests_cost_since(record: UsageRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    today = timezone.now().replace(hour=0, minute=0, second=0, microsecond=0)
    begins, ends = today - timedelta(days=1), today + timedelta(days=1)
    rerate(1.5, monkeypatch)
    rerate(0.6, monkeypatch)
    for grouping in ("model", "organization", "upstream"):
        (row,) = margins(grouping, begins=begins, ends=ends)
        assert (row.requests, row.cost_nanos) == (1, 600_000)
    (worst,) = request_margins(begins=begins, ends=ends)
    assert (UUID(worst.name), worst.cost_nanos) == (record.request_id, 600_000)


# --- The commands -------------------------------------------------------------------------------------------------


def run(*arguments: str) -> str:
    output = StringIO()
    # A negative amount comes last, behind "--".
    call_command(arguments[0], *as_root(), *arguments[1:], stdout=output)
    return output.getvalue()


def test_the_command_refunds(alice: Organization, record: UsageRecord) -> None:
    request_id = f"req_{record.request_id.hex}"
    once = ("refund", request_id, "--amount", "0.0002", "--reason", "sorry", "--idempotency-key", "ticket 5")
    assert "0.0002 USD of " in run(*once)
    assert "nothing changed" in run(*once)
    assert posted(alice) == USD - 800_000
    assert "0.001 USD of " in run("refund", request_id, "--amount", "0.0008", "--reason", "all of it")
    assert posted(alice) == USD
    for arguments in (
        (request_id, "--reason", "again"),
        (request_id, "--amount", "x", "--reason", "again"),
        (request_id, "--reason", " "),
        ("req_nonsense", "--reason", "unknown"),
    ):
        with pytest.raises(CommandError):
            run("refund", *arguments)
    assert posted(alice) == USD
    assert_ledger_holds()


def test_a_refund_of_all_that_is_repeated_is_the_one_that_it_was(alice: Organization, record: UsageRecord) -> None:
    everything = ("refund", record.request_id.hex, "--reason", "sorry", "--idempotency-key", "ticket 6")
    assert "0.001 USD of " in run(*everything)
    assert "Refunded before" in run(*everything), "although nothing is left to refund by now"
    assert posted(alice) == USD


def test_the_command_adjusts(alice: Organization) -> None:
    run("adjust_balance", alice.slug, "0.5", "--reason", "goodwill", "--kind", "paid", "--idempotency-key", "t1")
    assert "nothing changed" in run(
        *("adjust_balance", alice.slug, "0.5", "--reason", "goodwill", "--kind", "paid", "--idempotency-key", "t1")
    )
    assert posted(alice) == USD + USD // 2
    run("adjust_balance", alice.slug, "--reason", "a bill that was too low", "--", "-0.25")
    assert posted(alice) == USD + USD // 4
    for arguments in ((alice.slug, "0"), (alice.slug, "x"), ("nobody", "1")):
        with pytest.raises(CommandError):
            run("adjust_balance", *arguments, "--reason", "nonsense")
    with pytest.raises(CommandError):
        run("adjust_balance", alice.slug, "1", "--reason", " ")
    assert_ledger_holds()
