"""An upstream's error answers become ours: which status, whose fault, and which words may pass."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.protocol.upstream_errors import Fault, map_upstream_error, read_retry_after


def anthropic(error_type: str, message: str) -> bytes:
    return orjson.dumps({"type": "error", "error": {"type": error_type, "message": message}, "request_id": "req_up"})


def openai(message: str, code: str | None = None) -> bytes:
    return orjson.dumps({"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}})


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (400, anthropic("invalid_request_error", "Boom."), (400, "invalid_request_error", "upstream_invalid_request")),
        (413, anthropic("request_too_large", "Big."), (413, "request_too_large", "upstream_request_too_large")),
        (422, b'{"detail": []}', (400, "invalid_request_error", "upstream_invalid_request")),
        (401, anthropic("authentication_error", "x"), (502, "api_error", "upstream_refused_credential")),
        (402, openai("x"), (502, "api_error", "upstream_refused_account")),
        (403, anthropic("permission_error", "x"), (402, "permission_error", "upstream_refused_request")),
        (404, anthropic("not_found_error", "model: up"), (502, "api_error", "upstream_error")),
        (429, anthropic("rate_limit_error", "x"), (503, "overloaded_error", "upstream_rate_limited")),
        (500, anthropic("api_error", "x"), (502, "api_error", "upstream_error")),
        (502, b"<html>Bad gateway</html>", (502, "api_error", "upstream_error")),
        (503, b"", (503, "overloaded_error", "upstream_overloaded")),
        (504, b"", (502, "api_error", "upstream_error")),
        (529, anthropic("overloaded_error", "x"), (503, "overloaded_error", "upstream_overloaded")),
        (302, b"", (502, "api_error", "upstream_error")),
        (418, b"", (502, "api_error", "upstream_error")),
    ],
)
def test_statuses(status: int, body: bytes, expected: tuple[int, str, str]) -> None:
    failure = map_upstream_error(status, {}, body)
    assert (failure.status, failure.error_type, failure.code) == expected
    assert failure.can_fail_over == (failure.fault not in (Fault.CLIENT, Fault.FORBIDDEN))


@pytest.mark.parametrize(
    ("status", "body", "fault"),
    [
        (400, anthropic("invalid_request_error", "x"), Fault.CLIENT),
        (401, b"", Fault.CREDENTIAL),
        (402, b"", Fault.ACCOUNT),
        (403, b"<html>Blocked</html>", Fault.FORBIDDEN),
        (429, b"", Fault.RATE_LIMIT),
        (429, openai("You exceeded your current quota", "insufficient_quota"), Fault.ACCOUNT),
        (500, b"", Fault.UPSTREAM),
        (404, b"", Fault.NOT_SERVED),
        (409, b"", Fault.NOT_SERVED),
        (302, b"", Fault.UPSTREAM),
        (
            400,
            anthropic("invalid_request_error", "Your credit balance is too low to access the API."),
            Fault.ACCOUNT,
        ),
        (400, anthropic("invalid_request_error", "This organization has been disabled."), Fault.ACCOUNT),
        (429, openai("Your account is not active", "billing_not_active"), Fault.ACCOUNT),
    ],
)
def test_whose_fault_it_is(status: int, body: bytes, fault: Fault) -> None:
    assert map_upstream_error(status, {}, body).fault is fault


@pytest.mark.parametrize(
    "words", ["Your credit balance is too low", "This organization has been disabled.", "billing_not_active"]
)
def test_a_client_that_makes_a_400_repeat_its_words_parks_no_key(words: str) -> None:
    """Unknown types pass to the upstream, whose refusal names them: a client could write there what it likes."""
    tag = (
        f"messages.0.content.0: Input tag '{words}' found using 'type' does not match any of the expected tags: 'text'"
    )
    for body in (anthropic("invalid_request_error", tag), openai(f"Invalid value: '{words}'.")):
        assert map_upstream_error(400, {}, body).fault is Fault.CLIENT


@pytest.mark.parametrize("status", [400, 413])
def test_texts_of_400_and_413_pass_unchanged(status: int) -> None:
    for text in ("messages.1.role: Input should be 'user' or 'assistant'", "prompt is too long: 9 tokens > 8 maximum"):
        assert map_upstream_error(status, {}, anthropic("invalid_request_error", text)).message == text
        assert map_upstream_error(status, {}, openai(text)).message == text


@pytest.mark.parametrize("status", [401, 403, 404, 422, 429, 500, 502, 503, 529])
def test_other_texts_are_replaced(status: int) -> None:
    for body in (anthropic("api_error", "org-secret"), openai("org-secret"), b"org-secret", b"<p>org-secret</p>"):
        failure = map_upstream_error(status, {}, body)
        assert "org-secret" not in failure.message
        assert failure.message


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b'"text"', b"[]", b"null", b'{"error": null}', b'{"error": {"message": 3}}']
)
def test_a_400_without_words_gets_ours(body: bytes) -> None:
    assert map_upstream_error(400, {}, body).message == "The model service refused the request as invalid."


@pytest.mark.parametrize(
    "body",
    [
        b'{"error": "Boom."}',
        b'[{"error": {"code": 400, "message": "Boom."}}]',
        b'{"detail": "Boom."}',
        b'{"message": "Boom."}',
    ],
)
def test_envelopes_of_other_providers(body: bytes) -> None:
    assert map_upstream_error(400, {}, body).message == "Boom."


def test_a_context_that_is_too_long_is_said_as_claude_code_knows_it() -> None:
    body = openai("This model's maximum context length is 8 tokens.", "context_length_exceeded")
    assert map_upstream_error(400, {}, body).message == (
        "prompt is too long: This model's maximum context length is 8 tokens."
    )


def test_reasons_for_logs_keep_the_text() -> None:
    assert map_upstream_error(500, {}, anthropic("api_error", "org-secret")).reason == "status 500: org-secret"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("2", 2),
        ("0.2", 1),
        ("0", 0),
        ("600", 600),
        ("1e9", 86400),
        ("-1", None),
        ("nan", None),
        ("inf", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
        ("Wednesday", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after(value: str | None, seconds: int | None) -> None:
    assert read_retry_after(value) == seconds


def test_rate_limits_and_overload_always_carry_a_retry_after() -> None:
    assert map_upstream_error(429, {"retry-after": "17"}, b"").retry_after_seconds == 17
    assert map_upstream_error(429, {}, b"").retry_after_seconds == 1
    assert map_upstream_error(529, {"retry-after": "soon"}, b"").retry_after_seconds == 1
    assert map_upstream_error(500, {}, b"").retry_after_seconds is None


@given(
    st.integers(100, 599),
    st.binary(max_size=100)
    | st.recursive(
        st.none() | st.text(),
        lambda x: st.lists(x) | st.dictionaries(st.sampled_from(["error", "message", "code", "type", "detail"]), x),
    ).map(orjson.dumps),
)
def test_any_answer_becomes_a_documented_error(status: int, body: bytes) -> None:
    failure: Any = map_upstream_error(status, {}, body)
    assert failure.status in (400, 402, 413, 502, 503)
    assert failure.message


def test_a_date_to_retry_after_counts_from_the_clock_that_wrote_it() -> None:
    headers = {"retry-after": "Wed, 21 Oct 2037 07:29:30 GMT", "date": "Wed, 21 Oct 2037 07:28:00 GMT"}
    assert map_upstream_error(429, headers, b"").retry_after_seconds == 90


def test_details_of_a_400_pass() -> None:
    details = {"error_code": "tool_name_conflict", "names": ["a"]}
    error = {"type": "invalid_request_error", "message": "no", "details": details}
    body = orjson.dumps({"type": "error", "error": error})
    assert map_upstream_error(400, {}, body).details == details
    assert map_upstream_error(500, {}, body).details is None
    odd: Any
    for odd in (None, [], "x", {}, {"error_code": 1}, {"error_code": "x" * 5_000}):
        body = orjson.dumps({"error": {**error, "details": odd}})
        assert map_upstream_error(400, {}, body).details is None


def test_who_lacks_the_model_is_not_asked_again() -> None:
    assert map_upstream_error(404, {}, b"").should_retry is False
    assert map_upstream_error(500, {}, b"").should_retry is None
