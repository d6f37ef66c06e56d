"""Margins: what was paid less what every attempt cost, by model, organization, upstream and request."""

from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from accounts.models import Organization
from billing.models import FailedRequest
from billing.usage.margin import Margin, WindowTooLongError, margins, request_margins
from tests.billing.usage_factory import add_record, request_id_at

pytestmark = pytest.mark.django_db

DAY = datetime(2026, 11, 5, tzinfo=UTC)
WINDOW: dict[str, Any] = {"begins": DAY, "ends": DAY + timedelta(days=1)}


def attempt(upstream: str, cost_nanos: int) -> dict[str, Any]:
    return {"upstream": upstream, "status": 200, "outcome": "served", "upstream_cost_nanos": cost_nanos}


@pytest.fixture(autouse=True)
def requests() -> None:
    alice, bob = (Organization.objects.create(name=name, slug=name) for name in ("alice", "bob"))
    for organization, model, cost_nanos, attempts in (
        (alice, "acme/large", 1_000, [attempt("acme", 700)]),
        (alice, "acme/large", 1_000, [attempt("acme", 200), attempt("other", 900)]),
        (bob, "acme/small", 100, [attempt("other", 40)]),
    ):
        add_record(organization, model_id=model, cost_nanos=cost_nanos, attempts=attempts, admitted_at=DAY)
    # Outside: the end of a window is not a part of it.
    add_record(bob, model_id="acme/large", cost_nanos=5, attempts=[attempt("acme", 5)], admitted_at=WINDOW["ends"])
    FailedRequest.objects.create(
        request_id=request_id_at(DAY + timedelta(hours=23)),
        organization_id=bob.pk,
        key_id=1,
        model_id="acme/large",
        error_code="upstream_failed",
        attempts=[attempt("acme", 30)],
        upstream_cost_nanos=30,
        admitted_at=DAY,
        total_ms=1,
        settled_at=DAY,
    )


def test_by_model() -> None:
    assert margins("model", **WINDOW) == [Margin("acme/large", 2, 2_000, 1_830), Margin("acme/small", 1, 100, 40)]


def test_by_organization() -> None:
    assert margins("organization", **WINDOW) == [Margin("alice", 2, 2_000, 1_800), Margin("bob", 1, 100, 70)]


def test_by_upstream() -> None:
    """What was paid belongs to the upstream that served, what was charged to the one that charged."""
    assert margins("upstream", **WINDOW) == [Margin("other", 2, 1_100, 940), Margin("acme", 1, 1_000, 930)]


def test_every_grouping_adds_up_to_the_same() -> None:
    totals = {
        (sum(row.cost_nanos for row in rows), sum(row.upstream_cost_nanos for row in rows))
        for rows in (margins("model", **WINDOW), margins("organization", **WINDOW), margins("upstream", **WINDOW))
    }
    assert totals == {(2_100, 1_870)}


def test_by_request_the_worst_first() -> None:
    rows = request_margins(**WINDOW)
    assert [(row.cost_nanos, row.margin_nanos) for row in rows] == [(1_000, -100), (100, 60), (1_000, 300)]
    assert len(request_margins(**WINDOW, limit=1)) == 1


def test_percent_is_unknown_where_nothing_was_paid() -> None:
    assert Margin("x", 0, 0, 5).margin_percent is None
    assert Margin("x", 1, 200, 50).margin_percent == 75.0


@pytest.mark.parametrize("days", [-1, 0, 93])
def test_windows_are_bounded(days: int) -> None:
    with pytest.raises(WindowTooLongError):
        margins("model", begins=DAY, ends=DAY + timedelta(days=days))


def test_command() -> None:
    output = StringIO()
    call_command("margin", "--from", "2026-11-05", "--to", "2026-11-06", "--by", "organization", stdout=output)
    lines = [line.split() for line in output.getvalue().splitlines()]
    assert lines == [
        ["organization", "requests", "paid", "charged", "left"],
        ["alice", "2", "0.000002", "0.0000018", "0.0000002", "10.0", "%"],
        ["bob", "1", "0.0000001", "0.00000007", "0.00000003", "30.0", "%"],
    ]
    with pytest.raises(CommandError, match="92 days"):
        call_command("margin", "--from", "2026-01-05", "--to", "2026-11-06")
