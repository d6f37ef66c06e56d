"""The book of breaks: opened once, closed when they are gone, and kept resolved for as long as they stay the same."""

from datetime import date

import pytest
from django.db import IntegrityError, transaction
from hypothesis import given
from hypothesis import strategies as st

from billing.models import LedgerTransaction, ReconciliationBreak, ReconciliationSource
from billing.reconciliation.breaks import (
    NANOS_PER_CENT,
    Difference,
    ResolutionError,
    cents_of,
    note_differences,
    resolve,
    take_over,
)
from tests.billing.ledger_factory import give, make_organization
from tests.support.people import make_person

pytestmark = pytest.mark.django_db

DAY = date(2026, 11, 27)
SOURCE = ReconciliationSource.PROVIDER_COST


def note(*differences: Difference, day: date | None = DAY, source: str = SOURCE) -> int:
    return note_differences(source, differences, day=day)


def off_by(nanos: int, subject: str = "acme") -> Difference:
    return Difference(subject, f"It is off by {nanos}.", nanos)


def states() -> list[str]:
    return list(ReconciliationBreak.objects.order_by("id").values_list("state", flat=True))


@given(st.integers(-(10**18), 10**18))
def test_no_difference_rounds_to_none(nanos: int) -> None:
    cents = cents_of(nanos)
    assert (cents == 0) == (nanos == 0)
    assert abs(cents * NANOS_PER_CENT) >= abs(nanos) > abs(cents * NANOS_PER_CENT) - NANOS_PER_CENT or nanos == 0
    assert cents_of(-nanos) == -cents


def test_a_break_is_opened_once_and_follows_its_figures() -> None:
    assert note(off_by(15_000_000)) == 1
    assert note(off_by(-25_000_001)) == 1
    row = ReconciliationBreak.objects.get()
    assert (row.amount_nanos, row.amount_cents, row.detail) == (-25_000_001, -3, "It is off by -25000001.")
    assert row.last_seen_at > row.found_at


def test_what_is_no_longer_found_is_closed_and_comes_back_as_another() -> None:
    note(off_by(1))
    assert note() == 0
    row = ReconciliationBreak.objects.get()
    assert (row.state, row.resolution) == ("vanished", "")
    assert row.gone_at is not None
    note(off_by(1))
    assert states() == ["vanished", "open"]


def test_days_and_sources_do_not_touch_each_other() -> None:
    note(off_by(1, "a"))
    note(off_by(1, "b"), day=date(2026, 11, 26))
    note(off_by(1, "c"), source=ReconciliationSource.ROLL_UPS)
    note(off_by(1, "d"), day=None)
    assert states() == ["open"] * 4
    note(day=None)
    assert states() == ["open", "open", "open", "vanished"]


def test_what_a_person_resolved_stays_so_until_it_changes_or_comes_back() -> None:
    note(off_by(1))
    resolve(ReconciliationBreak.objects.get(), actor="olga", note="The provider rounds.")
    assert note(off_by(1)) == 0
    assert states() == ["resolved"]
    note(off_by(2))  # Another amount is another matter.
    assert states() == ["resolved", "open"]
    note()
    note(off_by(1))  # It was gone in between.
    assert states() == ["resolved", "vanished", "open"]


def test_a_resolution_names_a_person_and_a_reason_and_happens_once() -> None:
    note(off_by(1))
    row = ReconciliationBreak.objects.get()
    for actor, reason in (("", "why"), ("olga", " ")):
        with pytest.raises(ResolutionError):
            resolve(row, actor=actor, note=reason)
    resolve(row, actor="olga", note="why")
    row.refresh_from_db()
    assert (row.state, row.resolution, row.note, row.resolved_by) == ("resolved", "note", "why", "olga")
    with pytest.raises(ResolutionError, match="no longer open"):
        resolve(row, actor="otto", note="why")
    with pytest.raises(ResolutionError, match="no longer open"):
        take_over(row, owner=make_person("otto"))


def test_a_posting_must_exist_and_be_of_the_organization() -> None:
    acme, other = make_organization(), make_organization("Other")
    give(other, 5)
    theirs = LedgerTransaction.objects.latest("id")
    give(acme, 5)
    ours = LedgerTransaction.objects.latest("id")
    note(Difference("acme", "x", 5, acme.pk))
    row = ReconciliationBreak.objects.get()
    with pytest.raises(ResolutionError, match="There is no ledger transaction 0"):
        resolve(row, actor="olga", note="posted", transaction_id=0)
    with pytest.raises(ResolutionError, match="of another organization"):
        resolve(row, actor="olga", note="posted", transaction_id=theirs.pk)
    resolve(row, actor="olga", note="posted", transaction_id=ours.pk)
    row.refresh_from_db()
    assert (row.resolution, row.ledger_transaction_id) == ("posting", ours.pk)


def test_somebody_sees_to_it() -> None:
    note(off_by(1))
    olga = make_person("olga")
    take_over(ReconciliationBreak.objects.get(), owner=olga)
    note(off_by(2))
    assert ReconciliationBreak.objects.get().owner == olga


@pytest.mark.parametrize(
    "values",
    [
        {"state": "resolved"},
        {"state": "resolved", "resolved_by": "olga", "note": "x", "resolution": ""},
        {"resolution": "posting"},
    ],
)
def test_the_database_refuses_a_resolution_that_says_nothing(values: dict[str, str]) -> None:
    note(off_by(1))
    with pytest.raises(IntegrityError), transaction.atomic():
        ReconciliationBreak.objects.update(**values)
