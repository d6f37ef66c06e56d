"""docs/alerts.md: its tables name every kind and its details, its example is one that we send, its code verifies it."""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import WebhookVerificationError

from accounts.models import ApiKey, Organization
from billing.alerts import judgement, notices
from billing.models import Alert
from billing.webhooks import deliveries
from billing.webhooks.queue import alert_data
from billing.webhooks.secrets import make_secret, seal, sign

DOCUMENT = (Path(__file__).resolve().parent.parent.parent / "docs" / "alerts.md").read_text()
[EXAMPLE] = re.findall(r"```json\n(.*?)```", DOCUMENT, re.DOTALL)
WITH_LIBRARY, WITHOUT, RAISING = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)


def names_in(text: str) -> list[str]:
    return re.findall(r"`(\w+)`", text)


def first_columns(width: int) -> list[str]:
    rows = [line for line in DOCUMENT.splitlines() if line.startswith("| `") and line.count("|") == width + 1]
    return [name for row in rows for name in names_in(row.split("|")[1])]


def test_the_table_of_conditions_names_every_kind() -> None:
    assert sorted(first_columns(3)) == sorted(Alert.Kind.values)


def test_the_table_of_details_names_every_kind() -> None:
    kinds = [name for name in first_columns(2) if not name.startswith("webhook-")]
    assert sorted(kinds) == sorted(Alert.Kind.values)


def test_the_example_is_one_that_we_send() -> None:
    example = json.loads(EXAMPLE)
    at = datetime(2026, 11, 28, 10, 15, tzinfo=UTC)
    spending = judgement.Spending(
        organization_id=1,
        key_id=7,
        today_nanos=8_100_000_000,
        week_nanos=0,
        month_nanos=0,
        daily_budget_nanos=10_000_000_000,
        weekly_budget_nanos=None,
        monthly_budget_nanos=None,
        budget_warning_percent=80,
    )
    [finding] = judgement.judge(spending, today=20785, usual_hold_nanos=0)
    alert = Alert(
        pk=41,
        organization=Organization(slug="acme"),
        kind=finding.kind,
        subject=finding.subject,
        key=ApiKey(pk=7, name="Backend", prefix="cm-4f2a", last_four="9QzX"),
        details=dict(finding.details),
        raised_at=at,
    )
    assert example["data"] == alert_data(alert)
    assert (example["type"], example["timestamp"]) == ("alert.raised", "2026-11-28T10:15:00Z")


def run(code: str, name: str) -> Any:
    scope: dict[str, Any] = {}
    exec(compile(code, "docs/alerts.md", "exec"), scope)  # noqa: S102  Our own document.
    return scope[name]


def signed(secret: str, *, at: datetime) -> dict[str, str]:
    return dict(sign(EXAMPLE, event_id="evt_1", at=at, sealed_secrets=[seal(make_secret()), seal(secret)]))


def test_the_code_with_the_library_verifies() -> None:
    read_event, secret, now = run(WITH_LIBRARY, "read_event"), make_secret(), datetime.now(UTC)
    assert read_event(secret, signed(secret, at=now), EXAMPLE.encode()) == json.loads(EXAMPLE)
    with pytest.raises(WebhookVerificationError):
        read_event(make_secret(), signed(secret, at=now), EXAMPLE.encode())


def test_the_code_without_it_verifies() -> None:
    is_genuine, secret, now = run(WITHOUT, "is_genuine"), make_secret(), datetime.now(UTC)
    headers = signed(secret, at=now)
    assert is_genuine(secret, headers, EXAMPLE.encode()) is True
    assert is_genuine(make_secret(), headers, EXAMPLE.encode()) is False
    assert is_genuine(secret, headers, EXAMPLE.encode() + b" ") is False
    assert is_genuine(secret, {**headers, "webhook-id": "evt_2"}, EXAMPLE.encode()) is False
    assert is_genuine(secret, signed(secret, at=now - timedelta(minutes=6)), EXAMPLE.encode()) is False


def test_the_figures_are_the_true_ones() -> None:
    def written(seconds: int) -> str:
        for unit, size in (("h", 3_600), ("min", 60)):
            if seconds % size == 0:
                return f"{seconds // size} {unit}"
        return f"{seconds} s"

    *waits, last = [written(seconds) for seconds in deliveries.WAITS_SECONDS]
    assert f"after {', '.join(waits)} and {last}" in " ".join(DOCUMENT.split())
    assert (deliveries.SWITCH_OFF_AFTER.days, deliveries.KEPT.days) == (5, 30)
    assert (timedelta(hours=6), 6) == (notices.QUIET, notices.MAX_NOTICES_PER_HOUR)
    assert (judgement.LOW_BALANCE_DAYS, judgement.USUAL_DAYS, judgement.LEAST_ACTIVE_DAYS) == (3, 8, 3)


def test_the_code_that_raises_can_be_compiled() -> None:
    compile(RAISING, "docs/alerts.md", "exec")
