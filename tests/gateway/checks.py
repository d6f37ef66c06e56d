"""What the tests of the request path ask again and again: of an answer, of what is held, of the sandbox's journal."""

import re
import time
from typing import Any

import httpx

from billing.admission.blocking import read_admission_state
from billing.admission.calls.state import AdmissionState
from billing.models import FailedRequest, LedgerEntry, UsageRecord
from billing.money import parse_usd
from sandbox.journal import ABORTED_BY_CLIENT, STARTED, JournalRecord
from tests.gateway.wire import Connection
from tests.support.live_stack import LiveStack, Tenant

CLOSED_WITHIN_SECONDS = 5.0
REQUEST_ID = re.compile(r"req_[0-9a-f]{32}")
TYPE_BY_STATUS = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "permission_error",
    403: "permission_error",
    404: "invalid_request_error",
    405: "invalid_request_error",
    408: "invalid_request_error",
    415: "invalid_request_error",
    413: "request_too_large",
    429: "rate_limit_error",
    431: "invalid_request_error",
    500: "api_error",
    502: "api_error",
    503: "overloaded_error",
}


def assert_error(response: httpx.Response, status: int, code: str) -> str:
    """Check the whole documented form of an error and return its message."""
    assert (response.status_code, response.text and response.json()["error"]["code"]) == (status, code), response.text
    assert response.headers["content-type"] == "application/json"
    answer = response.json()
    assert set(answer) == {"type", "error", "request_id"}
    assert set(answer["error"]) == {"type", "message", "code"}
    assert answer["type"] == "error"
    assert answer["error"]["type"] == TYPE_BY_STATUS[status]
    assert REQUEST_ID.fullmatch(answer["request_id"])
    assert response.headers["request-id"] == answer["request_id"]
    message: str = answer["error"]["message"]
    assert message
    assert "Traceback" not in message
    return message


def assert_refused(stack: LiveStack, tenant: Tenant, response: httpx.Response, status: int, code: str) -> str:
    """Check an error that comes before any upstream is called: no attempt, nothing held. Return its message."""
    message = assert_error(response, status, code)
    assert attempts_of(stack, response) == []
    assert_nothing_is_held(stack, tenant)
    return message


def attempts_of(stack: LiveStack, answered: httpx.Response | UsageRecord | FailedRequest) -> list[JournalRecord]:
    """Return what the sandbox was asked for one request."""
    if isinstance(answered, httpx.Response):
        request_id = answered.headers["request-id"].removeprefix("req_")
    else:
        request_id = answered.request_id.hex
    return [attempt for attempt in stack.sandbox.journal() if attempt.request_id == request_id]


def assert_nothing_is_held(stack: LiveStack, tenant: Tenant) -> None:
    """Check, at once, that no request of the organization holds money or counts as running."""
    state = read_admission_state(tenant.organization.pk)
    assert state is None or (state.held_nanos, state.open_requests) == (0, 0)


def wait_until_released(stack: LiveStack, tenant: Tenant) -> AdmissionState:
    """Wait until nothing is held or unsettled for the organization, and return what admission then enforces."""

    def settled() -> AdmissionState | None:
        state = read_admission_state(tenant.organization.pk)
        if state and state.held_nanos == state.open_requests == state.unsettled_nanos == 0:
            return state
        return None

    state = stack.wait_until(settled, f"nothing is held for organization {tenant.organization.pk}")
    assert state is not None
    return state


def wait_for_record(stack: LiveStack, tenant: Tenant) -> UsageRecord:
    """Return the organization's only usage record, as soon as it is there."""
    records = stack.wait_until(lambda: stack.records(tenant), "the request is billed")
    assert len(records) == 1
    return records[0]


def wait_for_failure(stack: LiveStack, tenant: Tenant) -> FailedRequest:
    """Return the organization's only failed request, as soon as it is there."""

    def failures() -> list[FailedRequest]:
        return list(FailedRequest.objects.filter(organization_id=tenant.organization.pk))

    [failure] = stack.wait_until(failures, "the request is released")
    return failure


def wait_for_attempt(stack: LiveStack, answered: Any) -> JournalRecord:
    """Return the only attempt of a request once its outcome is in the journal."""

    def ended() -> list[JournalRecord]:
        attempts = attempts_of(stack, answered)
        return [] if any(attempt.delivered == STARTED for attempt in attempts) else attempts

    [attempt] = stack.wait_until(ended, "the sandbox has journaled the attempt's outcome")
    return attempt


def depart(connection: Connection, leave: str) -> float:
    """Leave, and return when."""
    if leave == "reset":
        connection.reset()
    else:
        connection.socket.close()
    return time.time()


def assert_billed_once(stack: LiveStack, tenant: Tenant, record: UsageRecord) -> None:
    """Check that one record and one debit of its cost are all that happened to the organization."""
    state = wait_until_released(stack, tenant)
    assert state.credit_nanos == parse_usd("10") - record.cost_nanos
    assert [found.request_id for found in stack.records(tenant)] == [record.request_id]
    assert not FailedRequest.objects.filter(organization_id=tenant.organization.pk).exists()
    debits = LedgerEntry.objects.filter(
        transaction_id=record.ledger_transaction_id, account__organization_id=tenant.organization.pk
    )
    assert sum(debits.values_list("amount_nanos", flat=True)) == -record.cost_nanos


def assert_closed_in_time(attempt: JournalRecord, left_at: float) -> None:
    assert attempt.delivered == ABORTED_BY_CLIENT
    assert attempt.ended_time is not None
    assert attempt.ended_time - left_at < CLOSED_WITHIN_SECONDS


def started_attempts(stack: LiveStack, tenant: Tenant) -> bool:
    """True once an upstream works for the organization: it holds money, and the sandbox has begun."""
    return any(attempt.delivered == "started" for attempt in stack.sandbox.journal()[-3:])
