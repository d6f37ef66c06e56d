"""The one write path of the ledger: what it writes, what it refuses, and that it neither doubles nor deadlocks."""

from collections.abc import Callable
from datetime import timedelta
from functools import partial

import pytest
from django.db import IntegrityError, connection, transaction
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from accounts.models import AdmissionChange, Organization
from billing.checks import CHECKS, run_checks
from billing.corrections.refunds import adjust_balance
from billing.credit.lots import expire_lots
from billing.ledger.book import (
    Book,
    Header,
    IdempotencyConflictError,
    LotOutOfBoundsError,
    PostedTransaction,
    Posting,
    UnbalancedPostingError,
    post_transaction,
    system_account,
)
from billing.models import CreditLot, LedgerAccount, LedgerEntry, LedgerTransaction, OrganizationBalance
from billing.shards import shard_of
from tests.billing.ledger_factory import (
    USD,
    account_balances,
    assert_ledger_holds,
    entries_of,
    give,
    make_organization,
    posted,
    remaining,
)
from tests.support.together import run_together

Kind = LedgerAccount.Kind


def post_raw(
    organization: Organization,
    compose: Callable[[Posting], None],
    *,
    key: str = "raw",
    inputs: dict[str, object] | None = None,
) -> PostedTransaction:
    return post_transaction(
        organization,
        kind=LedgerTransaction.Kind.ADJUSTMENT,
        idempotency_key=key,
        inputs=inputs or {},
        actor="alice",
        system=[system_account(Kind.REVENUE, shard_of(organization.pk))],
        compose=compose,
    )


def pay_one_dollar(posting: Posting) -> None:
    posting.open_lot("paid", USD, origin="test")
    posting.add(system_account(Kind.REVENUE, shard_of(posting.header.organization_id or 0)), -USD)


def pay_one_dollar_of_two(posting: Posting) -> None:
    pay_one_dollar(posting)
    posting.charge(USD, as_of=timezone.now())


@pytest.mark.django_db
def test_a_posting_moves_accounts_balance_version_and_the_change_feed_together() -> None:
    organization = make_organization()
    AdmissionChange.objects.all().delete()
    first = post_raw(organization, pay_one_dollar, key="one")
    post_raw(organization, pay_one_dollar, key="two")
    balance = OrganizationBalance.objects.get(pk=organization.pk)
    assert (balance.posted_nanos, balance.version) == (2 * USD, 2)
    assert account_balances(organization) == {"prepaid": 2 * USD}
    assert entries_of(first.transaction.pk) == {"prepaid": USD, "revenue": -USD}
    entries = LedgerEntry.objects.filter(account__organization=organization).order_by("seq")
    assert list(entries.values_list("seq", "amount_nanos", "balance_after_nanos")) == [(1, USD, USD), (2, USD, 2 * USD)]
    changes = AdmissionChange.objects.all()
    assert [(change.organization_id, change.key_id) for change in changes] == [(organization.pk, None)] * 2
    assert_ledger_holds()


@pytest.mark.django_db
def test_the_same_key_and_input_posts_once() -> None:
    organization = make_organization()
    first = post_raw(organization, pay_one_dollar, inputs={"amount": 1})
    again = post_raw(organization, pay_one_dollar, inputs={"amount": 1})
    assert (first.is_new, again.is_new) == (True, False)
    assert again.transaction == first.transaction
    assert posted(organization) == USD


@pytest.mark.django_db
def test_the_same_key_with_another_input_is_refused() -> None:
    organization, other = make_organization(), make_organization("Other")
    post_raw(organization, pay_one_dollar, inputs={"amount": 1})
    with pytest.raises(IdempotencyConflictError, match="used before"):
        post_raw(organization, pay_one_dollar, inputs={"amount": 2})
    with pytest.raises(IdempotencyConflictError):
        post_raw(other, pay_one_dollar, inputs={"amount": 1})
    assert posted(organization) == USD
    assert not OrganizationBalance.objects.filter(organization=other, posted_nanos__gt=0).exists()


@pytest.mark.django_db
def test_an_unbalanced_or_empty_posting_is_refused_and_writes_nothing() -> None:
    organization = make_organization()
    with pytest.raises(UnbalancedPostingError):
        post_raw(organization, pay_one_dollar_of_two)
    with pytest.raises(UnbalancedPostingError):
        post_raw(organization, lambda posting: None)
    assert not LedgerTransaction.objects.filter(organization=organization).exists()
    assert not CreditLot.objects.filter(organization=organization).exists()


@pytest.mark.django_db
def test_a_lot_leaves_its_bounds_never() -> None:
    organization = make_organization()
    lot = give(organization, USD)
    for amount in (-USD - 1, 1):
        with pytest.raises(LotOutOfBoundsError):
            post_raw(
                organization,
                lambda posting, amount=amount: posting.move_lot(  # type: ignore[misc]
                    posting.book.find_lot(organization.pk, lot.pk), amount
                ),
            )
    assert remaining(lot) == [USD]


@pytest.mark.django_db
def test_what_lots_do_not_cover_is_owed_and_the_next_top_up_clears_it() -> None:
    organization = make_organization()
    give(organization, 3 * USD)
    adjust_balance(organization, amount_nanos=-5 * USD, reason="fee", actor="alice", idempotency_key="fee")
    assert account_balances(organization) == {"receivable": -2 * USD}
    assert posted(organization) == -2 * USD
    small, large = give(organization, USD), give(organization, 4 * USD)
    assert account_balances(organization) == {"prepaid": 3 * USD}
    assert remaining(small, large) == [0, 3 * USD]
    assert_ledger_holds()


@pytest.mark.django_db(transaction=True)
def test_postgres_itself_refuses_an_unbalanced_transaction() -> None:
    organization = make_organization()
    ledger = post_raw(organization, pay_one_dollar).transaction
    account = LedgerAccount.objects.get(organization=organization, kind=Kind.PREPAID)
    with pytest.raises(IntegrityError, match="does not sum to zero"), transaction.atomic():
        LedgerEntry.objects.create(transaction=ledger, account=account, seq=2, amount_nanos=1, balance_after_nanos=1)


@pytest.mark.django_db
@pytest.mark.parametrize("table", ["ledgertransaction", "ledgerentry", "creditlotentry"])
@pytest.mark.parametrize("statement", ["UPDATE billing_{} SET id = id", "DELETE FROM billing_{}"])
def test_postgres_itself_refuses_changes_of_what_was_posted(table: str, statement: str) -> None:
    give(make_organization(), USD)
    with pytest.raises(IntegrityError, match="immutable"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement.format(table))


@pytest.mark.django_db
def test_postgres_itself_refuses_the_account_of_another_organization() -> None:
    organization, other = make_organization(), make_organization("Other")
    ledger = post_raw(organization, pay_one_dollar).transaction
    give(other, USD)
    account = LedgerAccount.objects.get(organization=other, kind=Kind.PREPAID)
    with pytest.raises(IntegrityError, match="another organization"), transaction.atomic():
        LedgerEntry.objects.create(transaction=ledger, account=account, seq=9, amount_nanos=1, balance_after_nanos=1)


@pytest.mark.django_db(transaction=True)
def test_a_book_is_only_opened_inside_a_transaction() -> None:
    with pytest.raises(RuntimeError, match="atomic"):
        Book.open([])


@pytest.mark.django_db(transaction=True)
def test_one_key_raced_by_many_posts_once() -> None:
    organization = make_organization()
    seen: list[PostedTransaction] = []
    work = [lambda: seen.append(post_raw(organization, pay_one_dollar)) for _ in range(8)]
    assert run_together(*work) == []
    assert posted(organization) == USD
    assert len({result.transaction.pk for result in seen}) == 1
    assert [result.is_new for result in seen].count(True) == 1
    assert_ledger_holds()


@pytest.mark.django_db(transaction=True)
def test_one_key_raced_by_two_organizations_goes_to_one() -> None:
    organizations = [make_organization(), make_organization("Other")]
    for round_number in range(5):
        key = f"round {round_number}"
        work = [partial(post_raw, organization, pay_one_dollar, key=key) for organization in organizations]
        errors = run_together(*work)
        assert [type(error) for error in errors] == [IdempotencyConflictError]
    balances = OrganizationBalance.objects.filter(organization__in=organizations)
    assert sum(balances.values_list("posted_nanos", flat=True)) == 5 * USD
    assert_ledger_holds()


@pytest.mark.django_db(transaction=True)
def test_postings_of_many_organizations_in_opposite_orders_do_not_deadlock() -> None:
    organizations = [make_organization() for _ in range(4)]
    rounds = 15

    def post_for(order: list[Organization], name: str) -> None:
        for round_number in range(rounds):
            with transaction.atomic():
                shards = {shard_of(organization.pk) for organization in order}
                system = [
                    system_account(Kind.REVENUE, shard) for shard in (shards if name == "up" else reversed([*shards]))
                ]
                book = Book.open([organization.pk for organization in order], system=system, postings=len(order))
                for organization in order:
                    key = f"{name}:{round_number}:{organization.pk}"
                    header = Header(LedgerTransaction.Kind.ADJUSTMENT, key, b"", organization.pk, "alice")
                    posting = book.start(header)
                    posting.charge(USD, as_of=book.now)
                    posting.add(system_account(Kind.REVENUE, shard_of(organization.pk)), USD)
                book.write()

    errors = run_together(
        lambda: post_for(organizations, "up"),
        lambda: post_for(organizations[::-1], "down"),
        lambda: [give(organization, USD) for _ in range(rounds) for organization in organizations],
    )
    assert errors == []
    assert [posted(organization) for organization in organizations] == [-rounds * USD] * 4
    assert_ledger_holds()


steps = st.one_of(
    st.tuples(st.sampled_from(["paid", "promotional"]), st.integers(1, 100), st.none() | st.integers(1, 5)),
    st.tuples(st.just("charge"), st.integers(1, 150), st.none()),
    st.tuples(st.just("expire"), st.integers(-50, 200), st.integers(0, 6)),
)


@pytest.mark.django_db
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(steps, max_size=12))
def test_any_history_keeps_the_invariants(history: list[tuple[str, int, int | None]]) -> None:
    organization = make_organization()
    start, expected = timezone.now(), 0
    for number, (step, nanos, hours) in enumerate(history):
        if step == "charge":
            key = f"{organization.pk}:{number}"
            adjust_balance(organization, amount_nanos=-nanos, reason="fee", actor="alice", idempotency_key=key)
            expected -= nanos
        elif step == "expire":
            now = start + timedelta(hours=hours or 0, minutes=1)
            expected -= expire_lots(organization, available_nanos=nanos, now=now).expired_nanos
        else:
            give(organization, nanos, kind=step, expires_at=start + timedelta(hours=hours) if hours else None)
            expected += nanos
    balance = OrganizationBalance.objects.filter(organization=organization).first()
    assert (balance.posted_nanos if balance else 0) == expected
    # Debts and credit that could pay them never stand side by side.
    balances = account_balances(organization)
    assert not ("receivable" in balances and ("prepaid" in balances or "promotional" in balances))
    assert run_checks(CHECKS).breaks == []
