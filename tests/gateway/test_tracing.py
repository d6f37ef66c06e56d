"""A client's trace goes on at the upstream; with a collector each request is spans that tell where its time went."""

import json
import sys
from typing import Any

import httpx
import pytest

from gateway.tracing import begin_trace, read_trace_headers
from tests.support.extra_gateway import ExtraGateway
from tests.support.live_stack import HTTP, LiveStack, Tenant
from tests.support.trace_collector import ReceivedSpan, TraceCollector

MODEL = "anthropic/claude-sonnet-4.6"
CANARY = "xyzzy-plugh-4711"
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def ask(base_url: str, tenant: Tenant, text: str, **headers: str) -> httpx.Response:
    body = {"model": MODEL, "max_tokens": 500, "messages": [{"role": "user", "content": text}]}
    return HTTP.post(base_url + "/v1/messages", json=body, headers={**tenant.headers, **headers})


def received_headers(answer: httpx.Response) -> dict[str, str]:
    """What the upstream got, as the sandbox repeats it."""
    return {name.lower(): value for name, value in json.loads(answer.json()["content"][0]["text"]).items()}


def test_without_a_collector_a_trace_is_passed_on_as_it_came(stack: LiveStack, alice: Tenant) -> None:
    got = received_headers(
        ask(stack.base_url, alice, "[[sandbox: echo_headers]]", traceparent=PARENT, tracestate="vendor=1")
    )
    assert (got["traceparent"], got["tracestate"]) == (PARENT, "vendor=1")
    got = received_headers(ask(stack.base_url, alice, "[[sandbox: echo_headers]]", traceparent="00-0-0-0"))
    assert "traceparent" not in got
    assert "traceparent" not in received_headers(ask(stack.base_url, alice, "[[sandbox: echo_headers]]"))


def spans_of(impatient: ExtraGateway, collector: TraceCollector, trace_id: str) -> dict[str, ReceivedSpan]:
    def is_there() -> dict[str, ReceivedSpan] | None:
        found = collector.of_trace(trace_id)
        return found if any("http.request.method" in span.attributes for span in found.values()) else None

    return impatient.stack.wait_until(is_there, "the spans are there") or {}


def test_a_request_is_spans_in_the_trace_of_its_client(
    impatient: ExtraGateway, collector: TraceCollector, alice: Tenant
) -> None:
    answer = ask(impatient.base_url, alice, f"[[sandbox: echo_headers]] {CANARY}", traceparent=PARENT)
    spans = spans_of(impatient, collector, PARENT.split("-")[1])
    request, admit, close = spans["POST /v1/messages"], spans["admit"], spans["close hold"]
    [call] = [span for name, span in spans.items() if name.startswith("chat ")]
    assert request.parent_id == PARENT.split("-")[2]
    assert {admit.parent_id, call.parent_id, close.parent_id} == {request.span_id}
    assert request.began_ns <= admit.began_ns <= admit.ended_ns <= call.ended_ns <= close.ended_ns <= request.ended_ns
    assert received_headers(answer)["traceparent"] == f"00-{request.trace_id}-{call.span_id}-01", "One trace."
    told = request.attributes
    usage = answer.json()["usage"]
    assert (told["gen_ai.usage.input_tokens"], told["gen_ai.usage.output_tokens"]) == (
        usage["input_tokens"],
        usage["output_tokens"],
    )
    assert told["gen_ai.request.model"] == MODEL
    assert told["gen_ai.response.id"] == answer.json()["id"]
    assert told["crossmodel.organization"] == alice.organization.pk
    assert "req_" + told["crossmodel.request_id"] == answer.headers["request-id"]
    assert (call.attributes["gen_ai.operation.name"], call.attributes["http.response.status_code"]) == ("chat", 200)
    refused = "00-" + "ab" * 16 + "-b7ad6b7169203331-00"
    ask(impatient.base_url, alice, f"[[sandbox: status=529; message={CANARY}]]", traceparent=refused)
    spans = spans_of(impatient, collector, "ab" * 16)
    assert spans["POST /v1/messages"].attributes["error.type"] == "upstream_overloaded"
    assert {span.attributes.get("error.type") for name, span in spans.items() if name.startswith("chat ")} == {
        "upstream_overloaded"
    }
    assert CANARY.encode() not in collector.raw
    assert alice.secret.encode()[-43:] not in collector.raw


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ({"HTTP_TRACEPARENT": PARENT}, {"traceparent": PARENT}),
        ({"HTTP_TRACEPARENT": PARENT.upper()}, {}),
        ({"HTTP_TRACEPARENT": "00-" + "0" * 32 + "-b7ad6b7169203331-01"}, {}),
        ({"HTTP_TRACEPARENT": PARENT + "\r\nx-api-key: evil"}, {}),
        ({"HTTP_TRACEPARENT": f"{PARENT},{PARENT}"}, {}),
        ({"HTTP_TRACEPARENT": PARENT, "HTTP_TRACESTATE": "a=\x07"}, {"traceparent": PARENT}),
        ({"HTTP_TRACEPARENT": PARENT, "HTTP_TRACESTATE": "a" * 513}, {"traceparent": PARENT}),
    ],
)
def test_only_what_is_well_formed_is_passed_on(sent: dict[str, Any], kept: dict[str, str]) -> None:
    assert read_trace_headers(sent) == kept


def test_switched_off_it_is_nothing() -> None:
    assert begin_trace({"HTTP_USER_AGENT": "curl"}) is None
    assert "opentelemetry.sdk.trace" not in sys.modules
