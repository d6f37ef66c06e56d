"""Refusals are written once each, and forgotten after DAYS_KEPT days."""

import uuid
from datetime import UTC, datetime, timedelta

import pytest

from billing.models import RefusedRequest
from billing.usage.refusals import DAYS_KEPT, Refusal, forget_old_refusals, write_refusals

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def refusal(refused_at: datetime, **fields: object) -> Refusal:
    values = {"model_id": "m", "message": "No.", "repeats": 0, **fields}
    return Refusal(
        request_id=uuid.uuid4().hex,
        organization_id=1,
        key_id=2,
        endpoint="messages",
        status=402,
        error_code="insufficient_balance",
        refused_at=refused_at,
        **values,  # type: ignore[arg-type]
    )


@pytest.mark.django_db
def test_it_is_written_once_and_its_repeats_only_grow() -> None:
    item = refusal(NOW)
    write_refusals([item])
    item.repeats = 7
    write_refusals([item])
    item.repeats = 3
    write_refusals([item])
    assert [row.repeats for row in RefusedRequest.objects.all()] == [7]


@pytest.mark.django_db
def test_what_a_client_wrote_is_made_storable() -> None:
    written = {"message": 'half \ud83d of it, "quoted" and \\ so on' * 99, "end_user": "u\x00" * 999}
    write_refusals([refusal(NOW, model_id="a\x00b" + "x" * 200, tag="t" * 99, session="s" * 999, **written)])
    [row] = RefusedRequest.objects.all()
    assert row.model_id.startswith("abx")
    assert len(row.model_id) == 100
    assert len(row.message) == 1000
    assert (row.end_user, row.tag, row.session) == ("u" * 256, "t" * 64, "s" * 128)


@pytest.mark.django_db
def test_old_ones_are_forgotten() -> None:
    kept = refusal(NOW - timedelta(days=DAYS_KEPT - 1))
    write_refusals([kept, refusal(NOW - timedelta(days=DAYS_KEPT + 1))])
    assert forget_old_refusals(now=NOW) == 1
    assert [row.request_id.hex for row in RefusedRequest.objects.all()] == [kept.request_id]
