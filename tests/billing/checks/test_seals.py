"""Seals of ledger transactions: who makes them, who notices that they are missing or of another key, how keys go on."""

from datetime import timedelta

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone
from pytest_django import Settings

from billing.checks import CHECKS, run_checks
from billing.ledger.seals import open_keys, reseal_keys
from billing.models import LedgerSealKey, LedgerTransaction
from tests.billing.checks.test_check_ledger import force
from tests.billing.ledger_factory import assert_ledger_holds, give, make_event, make_organization, settle

pytestmark = pytest.mark.django_db


def broken() -> list[str]:
    return run_checks(CHECKS).breaks


def test_i18_a_transaction_is_not_what_was_posted() -> None:
    alice = make_organization("Alice")
    lot = give(alice, 1_000, kind="promotional", expires_at=timezone.now() + timedelta(days=3))
    settle(make_event(alice, 700))
    assert_ledger_holds()
    assert not LedgerTransaction.objects.filter(seal=None).exists()
    force("UPDATE billing_ledgertransaction SET reason = 'other' WHERE kind = 'usage'")
    force("UPDATE billing_creditlot SET origin = 'other' WHERE id = %s", lot.pk)
    assert [line.split()[0] for line in broken()] == ["I18", "I18"]


def test_an_erased_person_breaks_no_seal() -> None:
    give(make_organization("Alice"), 1_000)
    force("UPDATE billing_ledgertransaction SET actor = 'person 7'")
    assert_ledger_holds()
    force("UPDATE billing_ledgertransaction SET actor = 'person X'")
    assert len(broken()) == 1


def test_processes_of_before_may_go_on_for_a_day_and_not_longer() -> None:
    alice = make_organization("Alice")
    give(alice, 1_000)
    give(alice, 1_000)
    last = LedgerTransaction.objects.latest("id").pk
    force("UPDATE billing_ledgertransaction SET seal = NULL WHERE id = %s", last)
    assert_ledger_holds()
    force("UPDATE billing_ledgersealkey SET created_at = created_at - interval '25 hours'")
    assert [f"I18 transaction {last} of organization {alice.pk}, kind top_up, has no seal"] == broken()
    # What was there before the first seal has none.
    force("UPDATE billing_ledgersealkey SET after_transaction_id = %s", last)
    assert_ledger_holds()


def test_an_earlier_time_hides_nothing_that_has_no_seal() -> None:
    alice = make_organization("Alice")
    for _ in range(3):
        give(alice, 1_000)
    last = LedgerTransaction.objects.latest("id").pk
    force("UPDATE billing_ledgersealkey SET created_at = created_at - interval '25 hours'")
    force(
        "UPDATE billing_ledgertransaction SET seal = NULL, created_at = created_at - interval '2 days' WHERE id = %s",
        last,
    )
    assert f"I18 transaction {last} of organization {alice.pk}, kind top_up, has no seal" in broken()


def test_the_signing_key_may_be_rotated(settings: Settings) -> None:
    alice = make_organization("Alice")
    give(alice, 1_000)
    settings.SECRET_KEY_FALLBACKS, settings.SECRET_KEY = [settings.SECRET_KEY], "n" * 60
    give(alice, 1_000)
    assert_ledger_holds()
    assert reseal_keys(is_dry=True) == (1, 0)
    call_command("reseal_secrets")
    assert reseal_keys() == (0, 0)
    settings.SECRET_KEY_FALLBACKS = []
    give(alice, 1_000)
    assert_ledger_holds()
    assert LedgerSealKey.objects.count() == 1


def test_a_lost_signing_key_stops_no_posting_and_is_noticed(settings: Settings) -> None:
    alice = make_organization("Alice")
    give(alice, 1_000)
    first = LedgerTransaction.objects.get().pk
    settings.SECRET_KEY = "n" * 60
    settle(make_event(alice, 700))
    assert len(open_keys()) == 1
    [line] = broken()
    assert line.startswith(f"I18 transaction {first} ")
    with pytest.raises(CommandError, match="1 secret"):
        call_command("reseal_secrets")
