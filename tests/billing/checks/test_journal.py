"""check_ledger --journal: the sandbox upstream's journal against the usage records."""

from io import StringIO
from pathlib import Path

import orjson
import pytest
from django.core.management import CommandError, call_command

from accounts.models import Organization
from billing.checks import Books, Outcome, estimates_check, journal_check
from billing.usage_event import UsageEvent
from tests.billing.ledger_factory import give, make_event, make_organization, settle

pytestmark = pytest.mark.django_db


@pytest.fixture
def alice() -> Organization:
    organization = make_organization("Alice")
    give(organization, 50_000)
    return organization


def write_journal(path: Path, *lines: dict[str, object]) -> Path:
    path.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines) + b'{"n": 99, "deliv')
    return path


def delivered(number: int, event: UsageEvent, **values: object) -> dict[str, object]:
    return {
        "n": number,
        "request_id": f"req_{event.request_id}",
        "delivered": "complete",
        "usage": {"input": event.input_tokens, "output": event.output_tokens},
        **values,
    }


def test_a_journal_agrees_with_the_records(alice: Organization, tmp_path: Path) -> None:
    events = [make_event(alice, 10), make_event(alice, 20, usage_source="estimated"), make_event(alice, 5)]
    settle(*events[:2])
    journal = write_journal(
        tmp_path / "journal.jsonl",
        {"n": 1, "request_id": f"req_{events[0].request_id}", "delivered": "started"},
        delivered(1, events[0]),
        delivered(2, events[1], usage={"input": 1, "output": 1}),
        delivered(3, events[2], delivered="aborted_by_client"),
        {"n": 4, "request_id": None, "delivered": "complete", "usage": None},
    )
    outcome = journal_check(journal).run(Books())
    assert (outcome.rows, list(outcome.breaks)) == (2, [])


def test_a_journal_shows_what_was_not_billed_and_what_was_billed_otherwise(alice: Organization, tmp_path: Path) -> None:
    missing, wrong = make_event(alice, 10), make_event(alice, 20)
    settle(wrong)
    journal = write_journal(
        tmp_path / "journal.jsonl", delivered(1, missing), delivered(2, wrong, usage={"input": 21, "output": 0})
    )
    lines = list(journal_check(journal).run(Books()).breaks)
    assert len(lines) == 2
    assert "was delivered complete (journal line 1) and has no usage record" in lines[0]
    assert "'input': 21" in lines[1]
    assert "'input': 20" in lines[1]


def test_the_error_of_estimates_is_measured(alice: Organization, tmp_path: Path) -> None:
    """Two tokens for each character of whole replies; a cut stream is measured by the characters that it delivered."""
    whole = make_event(alice, 10, output_tokens=0)
    cut, orphan, drained = (
        make_event(alice, 110, input_tokens=110 - 5 * output, output_tokens=output, usage_source=source)
        for output, source in ((12, "estimated"), (6, "orphan"), (10, "estimated"))
    )
    settle(whole, cut, orphan, drained)
    journal = write_journal(
        tmp_path / "journal.jsonl",
        delivered(1, whole, usage={"input": 10, "output": 40}, text_chars=20),
        delivered(2, cut, delivered="aborted_by_client", usage={"input": 40, "output": 1}, text_chars=4),
        delivered(3, orphan, delivered="failed:reset", usage={"input": 80, "output": 1}, text_chars=4),
        delivered(4, drained, usage={"input": 60, "output": 12}, text_chars=6),
    )
    outcome = estimates_check(journal).run(Books())
    assert (outcome.rows, list(outcome.breaks)) == (3, [])
    assert outcome.note == (
        "estimated: 2 requests, input +10.0 %, output +10.0 %; orphan: 1 requests, input +0.0 %, output -25.0 %"
    )
    journal.write_text("")
    assert estimates_check(journal).run(Books()) == Outcome(0, note="every count is the provider's")


def test_the_command_reads_a_journal(alice: Organization, tmp_path: Path) -> None:
    journal = write_journal(tmp_path / "journal.jsonl", delivered(1, make_event(alice, 10)))
    with pytest.raises(CommandError, match="1 breaks"):
        call_command("check_ledger", "--journal", str(journal), stdout=StringIO())
    with pytest.raises(CommandError, match="No such file"):
        call_command("check_ledger", "--journal", str(tmp_path / "none"), stdout=StringIO())
