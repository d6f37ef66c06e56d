"""Arguments that nothing could keep are refused in one line, before anything is posted."""

from argparse import ArgumentTypeError

import pytest
from django.core.management import CommandError, call_command

from accounts.models import User
from billing.models import LedgerTransaction, RedemptionCode
from operations.management.arguments import read_day, text_of
from tests.support.people import make_people

pytestmark = pytest.mark.django_db

COMMANDS = {
    "grant_credit": ["grant_credit", "alice", "1"],
    "adjust_balance": ["adjust_balance", "alice", "1"],
    "create_codes": ["create_codes", "1"],
    "refund": ["refund", "req_" + "0" * 32],
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS.keys())
@pytest.mark.parametrize("option", ["--reason", "--actor"])
def test_a_text_that_is_too_long_is_refused(command: list[str], option: str) -> None:
    make_people()
    texts = {"--reason": "because", "--actor": "alice@example.org", option: "x" * 1_000}
    with pytest.raises(CommandError, match=f"argument {option}: 1000 characters are too many"):
        call_command(*command, *(f"{name}={text}" for name, text in texts.items()))
    assert not LedgerTransaction.objects.exists()
    assert not RedemptionCode.objects.exists()


def test_a_long_idempotency_key_is_refused() -> None:
    make_people()
    with pytest.raises(CommandError, match="argument --idempotency-key: 201 characters are too many"):
        call_command("grant_credit", "alice", "1", "--reason=r", "--idempotency-key=" + "k" * 201)
    assert not LedgerTransaction.objects.exists()


def test_texts_of_the_greatest_length_are_kept() -> None:
    make_people()
    User.objects.create(email=f"{'a' * 240}@example.org", is_staff=True, is_superuser=True)
    longest = {"--reason": "r" * 500, "--actor": f"{'a' * 240}@example.org", "--idempotency-key": "k" * 200}
    call_command("grant_credit", "alice", "1", "--yes", *(f"{name}={text}" for name, text in longest.items()))
    assert LedgerTransaction.objects.get().reason == "r" * 500


@pytest.mark.parametrize("text", ["2026-02-30", "yesterday", "2026-1", "", "2026-11-30T00:00"])
def test_what_is_no_day_is_told_in_words(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="is not a day such as 2026-11-30"):
        read_day(text)


@pytest.mark.parametrize("text", ["two\nlines", "\x1b[31mred"])
def test_a_text_is_one_line(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="line break"):
        text_of(100)(text)
