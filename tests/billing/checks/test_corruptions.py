"""Each corruption of the table is tried, and then forced past the triggers: who refuses it, who notices it."""

import re
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import IntegrityError, InternalError, connection, transaction
from django.utils import timezone

from accounts.keys import create_key
from accounts.models import Organization
from billing.catalog.price_versions import PriceDraft, approve_price_version, draft_price
from billing.checks import (
    CHECKS,
    open_months,
    prove_due_months,
    proven_check,
    proven_months,
    run_checks,
    span_of,
)
from billing.corrections.refunds import refund_usage
from billing.corrections.rerating import ReratingPlan, apply_rerating
from billing.credit.redemption import create_codes, redeem
from billing.credit.top_ups import lot_inputs
from billing.documents.periods import month_of
from billing.ledger.book import input_digest
from billing.models import (
    CreditLot,
    LanguageModel,
    LedgerAccount,
    LedgerEntry,
    LedgerTransaction,
    OrganizationPriceFactor,
    PriceVersion,
    Upstream,
    UsageQuarantine,
)
from tests.billing.checks.corruptions import CORRUPTIONS
from tests.billing.checks.corruptions_of_ledger import NEVER, Corruption
from tests.billing.ledger_factory import KEY, give, make_event, make_failed_event, make_organization, settle

pytestmark = pytest.mark.django_db
DOCUMENT = Path(__file__).parents[3] / "docs" / "corruption.md"
ROW = re.compile(r"^\| (.+?) \| (yes|no) \| (I\d+|never possible|no) \| (I\d+|never possible|no) \|$", re.MULTILINE)
# When this month and the next are proven.
LATER = month_of(datetime.now(UTC)).next.ends + timedelta(days=11)
THIS_YEARS = PriceDraft(
    effective_from=datetime(2026, 1, 1, tzinfo=UTC),
    source="test",
    source_date=date(2026, 1, 1),
    tiers={"input": ((0, 1_000),), "output": ((0, 5_000),)},
)


@pytest.fixture
def ids() -> dict[str, Any]:
    """A ledger with something of everything, and the ids that corruptions name."""
    prices = make_prices()
    alice, bob = make_organization("Alice"), make_organization("Bob")
    give(bob, 9_000)
    with connection.cursor() as cursor:  # The events below are by a key of the number KEY, which must not be Bob's.
        cursor.execute(
            "SELECT setval(name, greatest(nextval(name), %s))"
            " FROM pg_get_serial_sequence('accounts_apikey', 'id') AS name",
            [KEY],
        )
    bobs_key, _ = create_key(bob, name="Bob's", created_by=None)
    lot = give(alice, 50_000)
    expiring = give(alice, 100, kind="promotional", expires_at=datetime.now(UTC) + timedelta(days=9), priority=200)
    values = {"price_version_id": prices["price"], "language_model_id": prices.pop("model")}
    events = [make_event(alice, nanos, **values) for nanos in (700, 800)]
    failed, free = make_failed_event(alice, **values), make_event(alice, 0, usage_source="orphan", **values)
    settle(*events, failed, free)
    lost = make_event(alice, 0, usage_source="orphan", upstream_cost_nanos=5_000, **values)
    settle(lost)
    orphan = make_event(alice, 20, usage_source="orphan", **values)
    settle(orphan)
    settle(make_event(alice, 30, request_id=orphan.request_id, admitted_at_ms=orphan.admitted_at_ms, **values))
    refund = refund_usage(
        alice, request_id=_uuid(events[0].request_id), reason="r", actor="a", idempotency_key="k", amount_nanos=10
    )
    (new,) = create_codes(amount_nanos=77, reason="r", created_by="a", count=1)
    redeem(alice, code=new.text, actor="a")
    # Its cost passes what is left, so that Alice owes something.
    settle(make_event(alice, 60_000, **values))
    make_what_is_beside(alice, values)
    # There have been seals for longer than processes of the version before may go on without.
    force("UPDATE billing_ledgersealkey SET created_at = created_at - interval '2 days'")
    usage = LedgerTransaction.objects.filter(organization=alice, kind="usage").earliest("id").pk
    own = {account.kind: account.pk for account in LedgerAccount.objects.filter(organization=alice)}
    prepaid = LedgerEntry.objects.get(transaction_id=usage, account_id=own["prepaid"])
    revenue = LedgerEntry.objects.get(transaction_id=usage, account__kind="revenue")
    drawn = lot.entries.get(transaction_id=usage)
    return {
        **prices, **own,
        "alice": alice.pk, "bob": bob.pk, "third": make_organization("Third").pk, "bobs_key": bobs_key.pk,
        "usage": usage, "last": LedgerTransaction.objects.filter(organization=alice).latest("id").pk,
        "top_up": LedgerTransaction.objects.filter(organization=alice, kind="top_up").earliest("id").pk,
        "promotion": LedgerTransaction.objects.filter(organization=alice, kind="promotion").earliest("id").pk,
        "loss": LedgerTransaction.objects.get(kind="orphan_loss").pk, "lost": lost.request_id,
        "expense": LedgerAccount.objects.get(organization=None, kind="promotion_expense").pk,
        "made_up": made_up_digest(alice),
        "refund": refund.transaction.pk, "refunded": events[0].request_id, "unrefunded": events[1].request_id,
        "entry": prepaid.pk, "counter_entry": revenue.pk, "revenue": revenue.account_id,
        "cash": LedgerAccount.objects.get(entries__transaction__organization=alice, kind="cash").pk,
        "other_prepaid": LedgerAccount.objects.get(organization=bob, kind="prepaid").pk,
        "lot": lot.pk, "expiring": expiring.pk, "lot_entry": drawn.pk, "lot_opening": lot.entries.earliest("id").pk,
        "code": new.code.pk,
        "corrected": orphan.request_id,
        "record": events[0].request_id, "free": free.request_id, "failed": failed.request_id,
    }  # fmt: skip


def made_up_digest(alice: Organization) -> str:
    inputs = lot_inputs(5, "promotional", expires_at=None, priority=100, payment_provider="")
    return input_digest(LedgerTransaction.Kind.PROMOTION, alice.pk, inputs).hex()


def make_what_is_beside(alice: Organization, values: dict[str, Any]) -> None:
    """A request with a discount, one that was re-rated, and an event that was settled from quarantine."""
    OrganizationPriceFactor.objects.create(
        organization=alice, factor_ppm=900_000, effective_from=timezone.now(), reason="r", created_by="a"
    )
    settle(make_event(alice, 900, input_tokens=1_000, factor_ppm=900_000, **values))
    UsageQuarantine.objects.create(
        organization=alice, shard=1, stream_id="1-1", raw_event=b"{}", reason="r",
        resolved_at=timezone.now(), resolved_by="a", resolution="settled",
    )  # fmt: skip
    model = LanguageModel.objects.get(pk=values["language_model_id"])
    begins = timezone.now() + timedelta(days=700)
    dearer = replace(THIS_YEARS, effective_from=begins, tiers={"input": ((0, 1_500),), "output": ((0, 5_000),)})
    version = PriceVersion.objects.get(pk=approved(model, dearer))
    window = ReratingPlan(model, version, timezone.now() - timedelta(days=1), timezone.now())
    apply_rerating(window, actor="a", reason="r")


def make_prices() -> dict[str, int]:
    """Make versions that a record must not be rated by beside the one that it must; all say the same amounts."""
    model, other = (
        LanguageModel.objects.create(model_id=name, context_tokens=1_000_000, max_output_tokens=64_000)
        for name in ("acme/large", "acme/small")
    )
    acme = Upstream.objects.create(name="acme", protocol="messages", base_url="https://acme.example")
    last_years = replace(THIS_YEARS, effective_from=datetime(2025, 1, 1, tzinfo=UTC))
    replaced = approved(model, last_years)
    # An approval makes a version begin no earlier than now; this one has been in force since the first of January.
    price = approved(model, THIS_YEARS)
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL session_replication_role = replica")
        cursor.execute(
            "UPDATE billing_priceversion SET effective_from = %s WHERE id = %s", [THIS_YEARS.effective_from, price]
        )
        cursor.execute("SET LOCAL session_replication_role = origin")
    return {
        "model": model.pk,
        "other_model": other.pk,
        "last_years": replaced,
        "price": price,
        "other_models_price": approved(other, THIS_YEARS),
        "upstreams": approved(model, replace(THIS_YEARS, upstream=acme)),
        "draft": draft_price(model, THIS_YEARS, created_by="a").pk,
        "next_years": approved(model, replace(THIS_YEARS, effective_from=datetime.now(UTC) + timedelta(days=365))),
    }


def approved(model: LanguageModel, draft: PriceDraft) -> int:
    return approve_price_version(draft_price(model, draft, created_by="a"), approved_by="b").pk


def _uuid(hexadecimal: str) -> Any:
    from uuid import UUID

    return UUID(hexadecimal)


def statement(corruption: Corruption, ids: dict[str, Any]) -> str:
    return re.sub(r"\{(\w+)\}", lambda match: str(ids[match[1]]), corruption.sql)


def test_the_books_are_sound(ids: dict[str, Any]) -> None:
    assert run_checks(CHECKS).breaks == []
    assert CreditLot.objects.get(pk=ids["lot"]).remaining_nanos == 0
    assert PriceVersion.objects.count() == 7


@pytest.mark.parametrize("corruption", CORRUPTIONS, ids=lambda corruption: corruption.what)
def test_what_is_refused_and_what_is_noticed(corruption: Corruption, ids: dict[str, Any]) -> None:
    sql = statement(corruption, ids)
    assert is_refused(sql) == corruption.refused
    assert is_refused(sql, "SET LOCAL session_replication_role = replica") == (corruption.noticed == NEVER)
    if corruption.noticed == NEVER:
        return
    force(sql)
    invariants = {line.split()[0] for line in run_checks(CHECKS).breaks}
    if corruption.noticed:
        assert corruption.noticed in invariants
    else:
        assert invariants == set()  # Whoever finds a way to tell takes the gap out of the table.


@pytest.mark.parametrize(
    "corruption", [each for each in CORRUPTIONS if each.noticed != NEVER], ids=lambda corruption: corruption.what
)
def test_what_is_noticed_in_a_month_that_was_proven(corruption: Corruption, ids: dict[str, Any]) -> None:
    assert [breaks for _, breaks in prove_due_months(CHECKS, now=LATER)] == [[], []]
    assert check_months() == []
    force(statement(corruption, ids))
    invariants = {line.split()[0] for line in check_months()}
    expected = corruption.proven_by
    assert expected in invariants if expected else invariants == set()


def check_months() -> list[str]:
    """Check as check_ledger --whole does once this month is long over."""
    months = proven_months()
    spans = [*map(span_of, months), *(span for _, span in open_months(now=LATER))]
    return run_checks([*CHECKS, proven_check(months)], spans).breaks


def is_refused(sql: str, setting: str = "SELECT 1") -> bool:
    """Say whether Postgres refuses a statement, at once or at the end of its transaction; nothing of it stays."""

    class NotRefusedError(Exception):
        pass

    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SET LOCAL crossmodel.may_truncate = 'off'")
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
            cursor.execute("SET CONSTRAINTS ALL DEFERRED")
            cursor.execute(setting)
            cursor.execute(sql)
            assert cursor.rowcount != 0, "The statement changes nothing."
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
            raise NotRefusedError
    except NotRefusedError:
        return False
    except (IntegrityError, InternalError):
        return True


def force(sql: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("SET LOCAL session_replication_role = replica")
        cursor.execute(sql)
        cursor.execute("SET LOCAL session_replication_role = origin")


def test_the_document_shows_the_table() -> None:
    shown = ROW.findall(DOCUMENT.read_text())
    assert shown == [
        (item.what, "yes" if item.refused else "no", item.noticed or "no", item.proven_by or "no")
        for item in CORRUPTIONS
    ]
