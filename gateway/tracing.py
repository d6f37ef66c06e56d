"""Spans of the request path for OpenTelemetry, and the trace that a client began.

Off unless CROSSMODEL_TRACES_URL names a collector: then nothing of OpenTelemetry is imported, and a request costs one
look into its headers. A client's `traceparent` and `tracestate` are passed on to upstreams in any case. Where a span is
recorded, upstreams get ours as the parent, so the trace stays one.

A span holds names, counts, times and our ids (the `gen_ai.*` attributes of OpenTelemetry's conventions), and nothing of
a prompt, a reply or a key. Which traces are recorded is decided by their id and CROSSMODEL_TRACES_RATIO alone: what a
client wishes would let it fill the collector.
"""

import logging
import re
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from django.conf import settings

from billing.money import format_usd
from billing.request_id import MESSAGE_PREFIX

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, Tracer

    from gateway.metering.attempts import Attempt
    from gateway.metering.metered_request import MeteredRequest
    from gateway.upstreams.planning import PlannedCall

TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
MAX_TRACESTATE_CHARS = 512  # What W3C Trace Context asks everybody to pass on.
MAX_WAITING_SPANS = 4096
EXPORT_SECONDS = 5.0
SERVED = "served"
FIRST_SERVER_ERROR = 500

logger = logging.getLogger(__name__)

_provider: "TracerProvider | None" = None
_tracer: "Tracer | None" = None


class Trace(Protocol):
    """What belongs to one request. `trace_id` is in hexadecimal."""

    trace_id: str

    def begin_call(self, planned: "PlannedCall", attempt: "Attempt") -> Mapping[str, str]:
        """Return the headers that tell an upstream of the trace."""

    def finish(
        self, *, method: str, path: str, status: int, code: str, request_id: str, metered: "MeteredRequest | None"
    ) -> None:
        """End what was begun, once the last byte of the answer is out."""


def begin_trace(meta: Mapping[str, str]) -> Trace | None:
    """Return the trace of a request that has just come; None where nobody wants to know."""
    sent = meta.get("HTTP_TRACEPARENT")
    if sent is None and _tracer is None:
        return None
    carried = read_trace_headers(meta)
    if _tracer is not None:
        recorded = RecordedTrace.begin(_tracer, carried)
        if recorded is not None:
            return recorded
    return PassedTrace(carried) if carried else None


def read_trace_headers(meta: Mapping[str, str]) -> dict[str, str]:
    """Return a client's `traceparent` and `tracestate`, if they are well-formed."""
    parent = meta.get("HTTP_TRACEPARENT", "")
    if not TRACEPARENT.fullmatch(parent):
        return {}
    state = meta.get("HTTP_TRACESTATE", "")
    if not state or len(state) > MAX_TRACESTATE_CHARS or not (state.isascii() and state.isprintable()):
        return {"traceparent": parent}
    return {"traceparent": parent, "tracestate": state}


class PassedTrace:
    """A trace of the client's that is only passed on."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._headers = headers
        self.trace_id = headers["traceparent"].split("-")[1]

    def begin_call(self, planned: "PlannedCall", attempt: "Attempt") -> Mapping[str, str]:
        return self._headers

    def finish(self, **_: object) -> None:
        return


class RecordedTrace:
    """A span for the request, one for its admission, one for each call of an upstream, one for closing its hold."""

    def __init__(self, tracer: "Tracer", span: "Span", context: Any) -> None:
        self._tracer = tracer
        self._span = span
        self._context = context
        self._calls: list[tuple[Span, Attempt]] = []
        self._began_ns = time.time_ns()
        self._began = time.monotonic()
        self.trace_id = format(span.get_span_context().trace_id, "032x")

    @classmethod
    def begin(cls, tracer: "Tracer", carried: Mapping[str, str]) -> "RecordedTrace | None":
        """Return a trace that is recorded, below the client's span if it sent one; None for one that is not."""
        from opentelemetry.trace import SpanKind, set_span_in_context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        outer = TraceContextTextMapPropagator().extract(carried) if carried else None
        span = tracer.start_span("request", context=outer, kind=SpanKind.SERVER)
        return cls(tracer, span, set_span_in_context(span)) if span.is_recording() else None

    def begin_call(self, planned: "PlannedCall", attempt: "Attempt") -> Mapping[str, str]:
        from opentelemetry.trace import SpanKind, set_span_in_context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        attributes = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": planned.route.upstream_name,
            "gen_ai.request.model": planned.route.upstream_model,
        }
        name = f"chat {planned.route.upstream_model}"
        span = self._tracer.start_span(name, context=self._context, kind=SpanKind.CLIENT, attributes=attributes)
        self._calls.append((span, attempt))
        headers: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(headers, set_span_in_context(span, self._context))
        return headers

    def finish(
        self, *, method: str, path: str, status: int, code: str, request_id: str, metered: "MeteredRequest | None"
    ) -> None:
        from opentelemetry.trace import StatusCode

        span = self._span
        span.update_name(f"{method} {path}")
        span.set_attributes(
            {
                "http.request.method": method,
                "url.path": path,
                "http.response.status_code": status,
                "crossmodel.request_id": request_id,
            }
        )
        for call, attempt in self._calls:
            self._end_call(call, attempt)
        if code:
            span.set_attribute("error.type", code)
            if status >= FIRST_SERVER_ERROR:
                span.set_status(StatusCode.ERROR)
        if metered is not None:
            span.set_attributes(describe(metered, request_id))
            self._add_step("admit", metered.admission_began, metered.started)
            if metered.close_began:
                self._add_step("close hold", metered.close_began, metered.close_began + metered.close_seconds)
        span.end()

    def _end_call(self, call: "Span", attempt: "Attempt") -> None:
        from opentelemetry.trace import StatusCode

        if attempt.status:
            call.set_attribute("http.response.status_code", attempt.status)
        if attempt.outcome != SERVED:
            call.set_attribute("error.type", attempt.outcome)
            call.set_status(StatusCode.ERROR)
        ended = attempt.started + attempt.duration_ms / 1000 if attempt.duration_ms else time.monotonic()
        call.end(self._ns(ended))

    def _add_step(self, name: str, began: float, ended: float) -> None:
        step = self._tracer.start_span(name, context=self._context, start_time=self._ns(began))
        step.end(self._ns(ended))

    def _ns(self, moment: float) -> int:
        """Return a moment of time.monotonic() in nanoseconds since 1970."""
        return self._began_ns + int((moment - self._began) * 1e9)


def describe(metered: "MeteredRequest", request_id: str) -> dict[str, Any]:
    """Return what a span tells of an admitted request. By convention, input tokens include the cached ones."""
    facts, usage = metered.facts, metered.billed_usage
    return {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": facts.catalog_model.id,
        "gen_ai.request.max_tokens": facts.max_tokens,
        "gen_ai.request.stream": facts.is_streamed,
        "gen_ai.response.id": MESSAGE_PREFIX + request_id,
        "gen_ai.response.model": facts.catalog_model.id,
        "gen_ai.usage.input_tokens": usage.prompt_tokens,
        "gen_ai.usage.output_tokens": usage.output_tokens,
        "gen_ai.usage.cache_read.input_tokens": usage.cache_read_tokens,
        "gen_ai.usage.cache_creation.input_tokens": usage.cache_write_5m_tokens + usage.cache_write_1h_tokens,
        "crossmodel.organization": facts.organization_id,
        "crossmodel.ending": metered.ending or "running",
        "crossmodel.cost_usd": format_usd(metered.billed_nanos),
    }


def start_tracing() -> None:
    """Begin to record, where CROSSMODEL_TRACES_URL is set. What the collector does not take is dropped, in bounds."""
    global _provider, _tracer
    if not settings.TRACES_URL:
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import TraceIdRatioBased

    _provider = TracerProvider(
        sampler=TraceIdRatioBased(settings.TRACES_RATIO),
        resource=Resource.create({"service.name": "crossmodel-gateway"}),
        shutdown_on_exit=False,
    )
    exporter = OTLPSpanExporter(endpoint=settings.TRACES_URL, timeout=EXPORT_SECONDS)
    _provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=MAX_WAITING_SPANS))
    _tracer = _provider.get_tracer("crossmodel")


def stop_tracing() -> None:
    """Send what waits, for EXPORT_SECONDS at most, and record no more. Blocks."""
    global _provider, _tracer
    if _provider is not None:
        _provider.force_flush(int(EXPORT_SECONDS * 1000))
        _provider.shutdown()
    _provider = _tracer = None
