"""What a gateway process counts for Prometheus. No label names an organization, a key or anything that a client wrote.

With CROSSMODEL_METRICS_DIR the counts live in files there, one set for each process, and any gateway answers for all of
them; without, each process counts for itself. A request only adds to a dictionary; what came together goes to the
library about once a second, in `flush()`: adding to the library's own counts costs some ten times as much.
docs/metrics.md lists every name, and a test compares it.
"""

from bisect import bisect_left
from collections import Counter as TalliedBuckets
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge, Histogram

if TYPE_CHECKING:
    from gateway.metering.metered_request import MeteredRequest

MAX_MODELS = 500  # Names of language models that get a label of their own; the rest count as "other".
MAX_UPSTREAMS = 200
MAX_CODES = 200
OTHER = "other"
REQUEST_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900)
STORE_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1)
NANOS_PER_USD = 10**9
ENDPOINTS = {
    "/v1/messages": "messages",
    "/v1/messages/count_tokens": "count_tokens",
    "/v1/models": "models",
}

REQUESTS = Counter("crossmodel_requests", "Answers of /v1/, by endpoint and HTTP status.", ["endpoint", "status"])
ERRORS = Counter("crossmodel_errors", "Answers of /v1/ other than success, by the code in their body.", ["code"])
DURATION = Histogram(
    "crossmodel_request_seconds", "From the head of a request to the last byte of its answer.", ["endpoint"],
    buckets=REQUEST_SECONDS,
)  # fmt: skip
FIRST_BYTE = Histogram(
    "crossmodel_first_byte_seconds", "From admission to the first byte that an upstream sent.", buckets=REQUEST_SECONDS
)
ENDINGS = Counter("crossmodel_endings", "Admitted requests by how they ended: a usage source, or failed.", ["ending"])
TOKENS = Counter("crossmodel_tokens", "Billed tokens by language model and component.", ["model", "component"])
BILLED_USD = Counter("crossmodel_billed_usd", "What organizations were charged, in US dollars.", ["model"])
UPSTREAM_USD = Counter("crossmodel_upstream_usd", "What upstreams charge for it, in US dollars.", ["upstream"])
ATTEMPTS = Counter("crossmodel_attempts", "Calls to upstreams by how they ended.", ["upstream", "outcome"])
ADMISSION = Histogram("crossmodel_admission_seconds", "How long Redis took to admit or refuse.", buckets=STORE_SECONDS)
CLOSE = Histogram("crossmodel_close_seconds", "How long closing a hold took, retries included.", buckets=STORE_SECONDS)
HOLDS = Gauge("crossmodel_holds_in_flight", "Requests that hold money.", multiprocess_mode="livesum")
UNCONFIRMED = Gauge(
    "crossmodel_unconfirmed_events", "Usage events that Postgres is not known to have.", multiprocess_mode="livesum"
)
SPOOL_BYTES = Gauge("crossmodel_spool_bytes", "Bytes of usage events on disk.", multiprocess_mode="livesum")
REDIS_CALLS = Gauge(
    "crossmodel_redis_calls_waiting", "Calls that Redis has not answered yet.", multiprocess_mode="livesum"
)
PAGE_THREADS = Gauge(
    "crossmodel_page_threads", "Threads that make pages, each with a connection to Postgres.", ["state"],
    multiprocess_mode="livesum",
)  # fmt: skip
PAGES_WAITING = Gauge(
    "crossmodel_pages_waiting", "Requests for pages that wait for a thread.", multiprocess_mode="livesum"
)


_added: dict[Counter, float] = {}
_observed: dict[Histogram, list[float]] = {}


def _add(counter: Counter, amount: float = 1) -> None:
    _added[counter] = _added.get(counter, 0) + amount


def observe(histogram: Histogram, seconds: float) -> None:
    """Note one duration."""
    _observed.setdefault(histogram, []).append(seconds)


def flush() -> None:
    """Give the library what was counted since the last time. To be called with every heartbeat."""
    added, observed = dict(_added), dict(_observed)
    _added.clear()
    _observed.clear()
    for counter, amount in added.items():
        counter.inc(amount)
    for histogram, seconds in observed.items():
        observe_all(histogram, seconds)


def observe_all(histogram: Histogram, seconds: Sequence[float]) -> None:
    """Do what `observe` of the library does for each, at once. The names are its own; a test fails when they go."""
    buckets = TalliedBuckets(bisect_left(histogram._upper_bounds, each) for each in seconds)
    for index, count in buckets.items():
        histogram._buckets[index].inc(count)
    histogram._sum.inc(sum(seconds))


def count_answer(path: str, status: int, code: str, seconds: float, metered: "MeteredRequest | None") -> None:
    """Count one answer of `/v1/`; `code` is that of an error, else ""."""
    endpoint = ENDPOINTS.get(path) or ("models" if path.startswith("/v1/models/") else OTHER)
    _add(_answers(endpoint, status))
    observe(_durations(endpoint), seconds)
    if code:
        _add(_errors(code))
    if metered is not None:
        _count_metered(metered)


def _count_metered(metered: "MeteredRequest") -> None:
    if metered.first_byte_ms is not None:
        observe(FIRST_BYTE, metered.first_byte_ms / 1000)
    attempt = None
    for attempt in metered.attempts:
        _add(_attempts(attempt.upstream, attempt.outcome))
    if attempt is not None and metered.upstream_nanos:
        _add(_upstream_usd(attempt.upstream), metered.upstream_nanos / NANOS_PER_USD)
    _add(_endings(metered.ending or "running"))
    if not metered.billed_nanos:
        return
    name = metered.facts.catalog_model.id
    usage = metered.billed_usage
    _add(_billed_usd(name), metered.billed_nanos / NANOS_PER_USD)
    for component, count in (
        ("input", usage.input_tokens),
        ("output", usage.output_tokens),
        ("cache_write", usage.cache_write_5m_tokens + usage.cache_write_1h_tokens),
        ("cache_read", usage.cache_read_tokens),
    ):
        if count:
            _add(_tokens(name, component), count)


@lru_cache(maxsize=len(ENDPOINTS) * 64)
def _answers(endpoint: str, status: int) -> Counter:
    return REQUESTS.labels(endpoint, str(status))


@lru_cache(maxsize=len(ENDPOINTS) + 1)
def _durations(endpoint: str) -> Histogram:
    return DURATION.labels(endpoint)


class _Names:
    """The names that have a label; whatever comes after the most that there may be is `other`."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: set[str] = set()

    def label(self, name: str) -> str:
        if name not in self._known:
            if len(self._known) >= self._most:
                return OTHER
            self._known.add(name)
        return name


_models, _upstreams, _codes = _Names(MAX_MODELS), _Names(MAX_UPSTREAMS), _Names(MAX_CODES)


@lru_cache(maxsize=MAX_CODES)
def _errors(code: str) -> Counter:
    return ERRORS.labels(_codes.label(code))


@lru_cache(maxsize=MAX_MODELS * 4)
def _tokens(name: str, component: str) -> Counter:
    return TOKENS.labels(_models.label(name), component)


@lru_cache(maxsize=MAX_MODELS)
def _billed_usd(name: str) -> Counter:
    return BILLED_USD.labels(_models.label(name))


@lru_cache(maxsize=MAX_UPSTREAMS)
def _upstream_usd(name: str) -> Counter:
    return UPSTREAM_USD.labels(_upstreams.label(name))


@lru_cache(maxsize=MAX_UPSTREAMS * 8)
def _attempts(upstream: str, outcome: str) -> Counter:
    return ATTEMPTS.labels(_upstreams.label(upstream), outcome)


@lru_cache(maxsize=16)
def _endings(ending: str) -> Counter:
    return ENDINGS.labels(ending)
