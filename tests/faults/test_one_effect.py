"""The check of I9 itself: an orphan that cost nothing may precede a billed retry; nothing else may stand beside one."""

import json
from uuid import UUID

from billing.models import UsageRecord
from tests.faults.one_effect import broken_keys
from tests.support.load import Answer

FIRST, SECOND = UUID(int=1), UUID(int=2)


def answer(request_id: UUID | None, *, served_by: UUID | None = None, status: int = 200, other: bool = False) -> Answer:
    """Return what a client saw; a whole reply where `served_by` names whose it is."""
    seen = Answer("secret", False, 0.0, idempotency_key="k", request_id=request_id, status=status, has_other_body=other)
    if served_by is not None:
        seen.content, seen.is_whole = json.dumps({"id": f"msg_{served_by.hex}"}).encode(), True
        seen.is_replayed = served_by != request_id
    return seen


def record(request_id: UUID, cost_nanos: int, source: str = UsageRecord.Source.PROVIDER) -> UsageRecord:
    return UsageRecord(request_id=request_id, cost_nanos=cost_nanos, usage_source=source)


def broken(answers: list[Answer], *records: UsageRecord) -> list[str]:
    by_id = {item.request_id: item for item in records}
    return list(broken_keys(answers, by_id, {"k": set(by_id)}))


def test_a_reply_and_its_repetition_are_one_effect() -> None:
    assert broken([answer(FIRST, served_by=FIRST), answer(SECOND, served_by=FIRST)], record(FIRST, 5)) == []


def test_a_free_orphan_before_a_billed_retry_is_one_effect() -> None:
    orphan = record(FIRST, 0, UsageRecord.Source.ORPHAN)
    assert broken([answer(FIRST, status=500), answer(SECOND, served_by=SECOND)], orphan, record(SECOND, 5)) == []


def test_a_billed_orphan_before_a_billed_retry_is_two() -> None:
    orphan = record(FIRST, 1, UsageRecord.Source.ORPHAN)
    answers = [answer(None, status=0), answer(SECOND, served_by=SECOND)]  # No client learnt the id of the orphan.
    assert len(broken(answers, orphan, record(SECOND, 5))) == 2


def test_a_free_record_that_is_no_orphan_is_broken() -> None:
    assert len(broken([answer(FIRST, served_by=FIRST)], record(FIRST, 0))) == 1


def test_a_reply_that_another_request_was_billed_for_is_broken() -> None:
    assert len(broken([answer(FIRST, served_by=FIRST)], record(SECOND, 5))) == 1


def test_two_replies_are_broken() -> None:
    assert len(broken([answer(FIRST, served_by=FIRST), answer(SECOND, served_by=SECOND)], record(FIRST, 5))) == 2


def test_another_body_is_refused_once_there_is_a_reply() -> None:
    first = answer(FIRST, served_by=FIRST)
    assert broken([first, answer(SECOND, status=409, other=True)], record(FIRST, 5)) == []
    assert broken([first, answer(SECOND, other=True)], record(FIRST, 5)) != []
