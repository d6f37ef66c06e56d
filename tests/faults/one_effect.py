"""I9: whatever is repeated under one idempotency key is served once, billed once and answered alike.

One exception, and why it is none: a request whose gateway died, or stood still past its lease, is settled as an
orphan. Where nothing had been delivered by then the orphan costs nothing, and its client has no reply. If that gateway
then says so and gives the key back, the client's retry is a first attempt. So a record that cost nothing may stand
beside the billed one if it is such an orphan, and only then.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from uuid import UUID

from billing.models import UsageRecord
from tests.support.load import Answer


def broken_keys(
    answers: Iterable[Answer],
    records: Mapping[UUID, UsageRecord],
    requests_by_key: Mapping[str, Iterable[UUID]],
    *,
    forgotten_at: float | None = None,
) -> Iterator[str]:
    """Name each idempotency key that had two effects.

    `requests_by_key`: what Postgres knows to have been asked for with a key, also where no client learnt its id.
    `forgotten_at`: when Postgres came back without its last claims. A key used before and after that is passed over.
    """
    by_key: dict[str, list[Answer]] = defaultdict(list)
    for answer in answers:
        if answer.idempotency_key:
            by_key[answer.idempotency_key].append(answer)
    for key, seen in by_key.items():
        moments = [moment for answer in seen for moment in (answer.began_at, answer.ended_at)]
        if forgotten_at is not None and min(moments) < forgotten_at < max(moments):
            continue
        ids = {*requests_by_key.get(key, ()), *(answer.request_id for answer in seen if answer.request_id)}
        own = [records[request_id] for request_id in sorted(ids) if request_id in records]
        yield from _broken_key(key, seen, own)


def _broken_key(key: str, answers: Sequence[Answer], records: Sequence[UsageRecord]) -> Iterator[str]:
    whole = [answer for answer in answers if answer.is_complete]
    served = {answer.served_by for answer in whole}
    billed = [record.request_id for record in records if record.cost_nanos]
    free = [record for record in records if not record.cost_nanos]
    if len(billed) > 1:
        yield f"I9 {len(billed)} requests were billed under idempotency key {key}: {billed}"
    if len(served) > 1 or len({answer.content for answer in whole}) > 1:
        yield f"I9 idempotency key {key} was answered by {served}"
    if billed and served and set(billed) != served:
        yield f"I9 idempotency key {key} was answered by {served}, and {billed} was billed"
    for record in free:
        if record.usage_source != UsageRecord.Source.ORPHAN or record.request_id in served:
            yield f"I9 request {record.request_id} of idempotency key {key} cost nothing ({record.usage_source})"
    yield from _other_bodies(key, answers)


def _other_bodies(key: str, answers: Sequence[Answer]) -> Iterator[str]:
    """Another body is refused once the key has an answer; one that was itself the first to be served is none."""
    firsts = [answer for answer in answers if not answer.has_other_body and answer.is_complete]
    for answer in answers:
        if answer.has_other_body and firsts and answer.status == 200:
            yield f"I9 idempotency key {key} was answered for another body by {answer.request_id}"
