"""What an operator must know of a running CrossModel: named checks, each of which says how it is in a line or more.

The one place of these questions: `manage.py status`, the admin's dashboard and `/metrics` show what is found here, each
in its own form. Everything here only looks. A store that cannot be asked is a line of its own; what the other one knows
is told.
"""

import shutil
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from django.conf import settings
from django.db import DatabaseError, InterfaceError
from django.utils import timezone

from accounts.models import AdmissionChange
from billing import read_replica
from billing.admission.blocking import oldest_waiting_ms
from billing.admission.durability import find_shortcomings
from billing.admission.errors import AdmissionUnavailableError
from billing.admission.inspection import read_shards
from billing.admission.server_use import read_server_use
from billing.catalog.price_versions import drafts_that_wait
from billing.catalog.serving import unserved_models
from billing.documents.closing import count_late_closings, last_month_over
from billing.mail_outbox import count_late_mails
from billing.models import Approval, DeletionRequest, UsageQuarantine
from billing.money import NANOS_PER_USD, parse_usd
from billing.partitions import missing_partitions
from billing.reconciliation.runs import count_open_breaks
from billing.upstream_health.sharing import read_upstream_health
from billing.webhooks.deliveries import count_late_deliveries
from billing.webhooks.endpoints import count_endpoints
from operations.database_use import read_database_use
from operations.gauges import GAUGES, Gauge
from operations.jobs import read_standings
from operations.models import ProviderBalance
from operations.traffic import traffic_between

LAG_TO_WORRY_SECONDS = 60
UNPUBLISHED_TO_WORRY_SECONDS = 60
CLOSING_TO_WORRY_SECONDS = 86_400  # After the end of a month everybody's documents are there.
MEBIBYTE = 1024 * 1024
USE_TO_WORRY = 0.9  # Of the connections or the memory that there may be.
FREE_TO_WORRY_BYTES = 256 * MEBIBYTE
BOUNDED_SECONDS = 3600  # So far back usage is looked through; check_ledger looks through seven days.
MAX_DELETIONS_SHOWN = 20
MAX_MODELS_NAMED = 5
CREDENTIAL = "credential "
LOW_BALANCE = "our-account-at-a-provider-runs-dry"
STORES, SETTLEMENT = "redis-or-postgres-cannot-be-reached", "settlement-is-behind"  # Sections of docs/operating.md.


class Line(NamedTuple):
    """One thing that was looked at, and how it is. `value` is the number in it, for machines.

    `runbook` is the section of docs/operating.md; `gauge` what Prometheus knows it as, with `labels`; `page` the admin
    page that shows more, with the `query` that leaves these alone, for operators who have `permission`. `is_detail`:
    for graphs, not for the screen.
    """

    name: str
    says: str
    value: float
    needs_a_person: bool = False
    runbook: str = ""
    gauge: str = ""
    labels: tuple[str, ...] = ()
    page: str = ""
    permission: str = ""
    is_detail: bool = False
    query: str = ""


Check = Callable[[], Iterator[Line]]
AWAY = (AdmissionUnavailableError, DatabaseError, InterfaceError, OSError)


def read_status() -> list[Line]:
    """Return what every check says, in an order for reading. A store that is away is a line of its own."""
    return [line for store, checks in CHECKS.items() for line in _ask(store, checks) if not line.is_detail]


def read_gauges(store: str) -> list[tuple[str, Gauge, list[Line]]]:
    """Return the gauges of a store with the lines that they are made of. Raises one of AWAY.

    Asked every few seconds: only of checks that cost next to nothing.
    """
    lines = [line for check in CHECKS[store] if check in FREQUENT for line in _look(check)]
    return [(name, gauge, [line for line in lines if line.gauge == name]) for name, gauge in GAUGES[store].items()]


def _look(check: Check) -> list[Line]:
    """Return what a check says now or, of one that reads much, said a moment ago."""
    seconds = SELDOM.get(check)
    if seconds is None:
        return list(check())
    looked_at, lines = _said.get(check, (-seconds, []))
    if time.monotonic() - looked_at >= seconds:
        looked_at, lines = _said[check] = time.monotonic(), list(check())
    return lines


def _ask(store: str, checks: tuple[Check, ...]) -> Iterator[Line]:
    try:
        for check in checks:
            yield from check()
    except AWAY as error:
        yield Line(store, " ".join(str(error).split()), 0, needs_a_person=True, runbook=STORES)


def _shards() -> Iterator[Line]:
    shards = read_shards(with_holders=False)
    rebuilding = [shard for shard in shards if not shard.is_open]
    waiting = [shard.shard for shard in shards if shard.waiting_events]
    oldest_ms = oldest_waiting_ms(waiting)
    lag = max(0.0, time.time() - oldest_ms / 1000) if oldest_ms else 0.0
    yield _count("events waiting", sum(shard.waiting_events for shard in shards), gauge="waiting_events")
    yield Line(
        "settlement lag", f"{lag:.1f} s", lag, lag > LAG_TO_WORRY_SECONDS, SETTLEMENT, gauge="settlement_lag_seconds"
    )
    yield _count("holds in flight", sum(shard.holds_in_flight for shard in shards))
    if rebuilding:
        yield _count("shards rebuilding", len(rebuilding), True, STORES, gauge="rebuilding_shards")
    vanished = sum(shard.vanished_events for shard in shards)
    if vanished:
        says = f"{vanished} in seven days; gateways sent again what they had"
        yield Line("events vanished", says, vanished, True, "quarantine")


def _redis() -> Iterator[Line]:
    for shortcoming in find_shortcomings():
        yield Line("redis", shortcoming.text, 1, shortcoming.loses_money, "processes")


def _upstreams() -> Iterator[Line]:
    for item in read_upstream_health():
        seconds = item.lasts_ms / 1000
        says = {
            "breaker": f"breaker open for {seconds:.0f} s, it cannot be reached",
            "suspected": f"suspected for {seconds:.0f} s, it fails several organizations",
            "account": f"account refused, told for {seconds:.0f} s",
        }.get(item.subject, f"{item.subject} for {seconds:.0f} s")
        if item.subject.startswith(CREDENTIAL):
            says = f"suspended credential {item.subject.removeprefix(CREDENTIAL)} for {seconds:.0f} s"
        what = "credential" if item.subject.startswith(CREDENTIAL) else item.subject
        yield Line(
            f"upstream {item.upstream}", says, round(seconds, 1), True, "an-upstream-is-in-trouble",
            "upstream_trouble_seconds", (item.upstream, what), "admin:billing_upstream_changelist",
            "billing.view_upstream",
        )  # fmt: skip


def _redis_use() -> Iterator[Line]:
    used = read_server_use()
    runbook = "redis-is-slow-or-full"
    yield from _use("redis connections", used.connections, used.max_connections, runbook, "redis_connections")
    yield from _use("redis memory", used.memory_bytes, used.max_memory_bytes, runbook, "redis_memory_bytes", MEBIBYTE)


def _postgres_use() -> Iterator[Line]:
    used = read_database_use()
    gauge = "postgres_connections"
    for state, count in used.by_state.items():
        yield Line(f"{state} connections", str(count), count, gauge=gauge, labels=(state,), is_detail=True)
    whole, most = _use(
        "postgres connections", used.connections, used.max_connections, "postgres-has-no-connections-left", gauge
    )
    yield from (whole._replace(gauge=""), most)  # Its states are what is drawn.


def _use(name: str, used: int, most: int, runbook: str, gauge: str, unit: int = 1) -> Iterator[Line]:
    """Say how much is used of what there may be; somebody should look once little is left."""
    word = " MiB" if unit == MEBIBYTE else ""
    says = f"{used // unit:,}{word}" + (f" of {most // unit:,}{word}" if most else "")
    yield Line(name, says, used, bool(most) and used > USE_TO_WORRY * most, runbook, gauge)
    yield Line(f"{name} at most", str(most), most, gauge=f"{gauge}_max", is_detail=True)


def _changes() -> Iterator[Line]:
    changes = AdmissionChange.objects.all()
    old = changes.filter(created_at__lt=timezone.now() - timedelta(seconds=UNPUBLISHED_TO_WORRY_SECONDS))
    yield _count(
        "unpublished changes", changes.count(), old.exists(), STORES, "unpublished_changes",
        "admin:accounts_admissionchange_changelist", "accounts.view_admissionchange",
    )  # fmt: skip


def _quarantine() -> Iterator[Line]:
    quarantined = UsageQuarantine.objects.filter(resolved_at=None).count()
    yield _count(
        "in quarantine", quarantined, quarantined > 0, "quarantine", "quarantined_events",
        "admin:billing_usagequarantine_changelist", "billing.view_usagequarantine", "resolved_at__isempty=1",
    )  # fmt: skip


def _price_drafts() -> Iterator[Line]:
    drafts = drafts_that_wait().count()
    if drafts:
        yield _count(
            "price drafts", drafts, gauge="price_drafts", page="admin:billing_priceversion_changelist",
            permission="billing.view_priceversion", query="state=draft",
        )  # fmt: skip


def _unserved_models() -> Iterator[Line]:
    """What is on sale and gets 503, because no upstream of it is enabled."""
    unserved = unserved_models()
    if unserved:
        names = ", ".join(unserved[:MAX_MODELS_NAMED]) + (", …" if len(unserved) > MAX_MODELS_NAMED else "")
        yield Line(
            "unserved models", f"{len(unserved)}: {names}", len(unserved), True, "an-upstream-is-in-trouble",
            "unserved_models", page="admin:billing_upstream_changelist", permission="billing.view_upstream",
        )  # fmt: skip


def _approvals() -> Iterator[Line]:
    waiting = Approval.objects.filter(state=Approval.State.WAITING).count()
    if waiting:
        yield _count(
            "waiting approvals", waiting, gauge="waiting_approvals", page="admin:billing_approval_changelist",
            permission="billing.view_approval", query="state__exact=waiting",
        )  # fmt: skip


def _bounded_usage() -> Iterator[Line]:
    since = datetime.now(UTC) - timedelta(seconds=BOUNDED_SECONDS)
    count = traffic_between(since, datetime.now(UTC)).bounded
    if count:
        says = f"{count} since {since:%Y-%m-%dT%H:%MZ}"
        yield Line("bounded usage", says, count, True, "an-upstream-is-in-trouble")


def _documents() -> Iterator[Line]:
    late = count_late_closings()
    is_overdue = timezone.now() - last_month_over().ends > timedelta(seconds=CLOSING_TO_WORRY_SECONDS)
    yield _count("months not closed", late, late > 0 and is_overdue, "documents-are-late", "late_documents")


def _deletions() -> Iterator[Line]:
    """A closed organization that is to be erased, and cannot be: something is owed, or documents are missing."""
    waiting = DeletionRequest.objects.filter(ended_at=None).exclude(waits_because="").select_related("organization")
    for request in waiting[:MAX_DELETIONS_SHOWN]:
        yield Line(f"deletion of {request.organization.slug}", request.waits_because, 1, True, "jobs")


def _breaks() -> Iterator[Line]:
    breaks = count_open_breaks()
    yield _count(
        "breaks open", breaks, breaks > 0, "books-differ", "open_breaks",
        "admin:billing_reconciliationbreak_changelist", "billing.view_reconciliationbreak", "state__exact=open",
    )  # fmt: skip


def _jobs() -> Iterator[Line]:
    for standing in read_standings():
        if standing.needs_a_person:
            yield Line(
                f"job {standing.job.name}", standing.says, 1, True, "a-job-is-late-stuck-or-failing", "jobs_in_trouble",
                page="operations_jobs", permission="operations.view_jobrun",
            )  # fmt: skip


def _outboxes() -> Iterator[Line]:
    mails, deliveries = count_late_mails(), count_late_deliveries()
    runbook = "mail-or-webhooks-do-not-go-out"
    yield _count(
        "mail late", mails, mails > 0, runbook, "late_mails", "admin:billing_outgoingmail_changelist",
        "billing.view_outgoingmail",
    )  # fmt: skip
    yield _count(
        "webhooks late", deliveries, deliveries > 0, runbook, "late_webhooks",
        "admin:billing_webhookdelivery_changelist", "billing.view_webhookdelivery",
    )  # fmt: skip


def _webhook_endpoints() -> Iterator[Line]:
    """Endpoints are their owners' to mend: they have mail about it."""
    for state, count in count_endpoints().items():
        yield Line(
            f"webhook endpoints {state}", str(count), count, gauge="webhook_endpoints", labels=(state,),
            page="admin:billing_webhookendpoint_changelist", permission="billing.view_webhookendpoint", is_detail=True,
        )  # fmt: skip


def _provider_balances() -> Iterator[Line]:
    for row in ProviderBalance.objects.all():
        if row.problem:
            says = f"not known since {row.looked_at or 'ever'}: {row.problem}"
            yield Line(f"balance at {row.upstream}", says, 0, True, LOW_BALANCE)
        elif row.balance_nanos is not None:
            is_low = row.balance_nanos < parse_usd(settings.PROVIDER_BALANCE_LOW_USD)
            usd = row.balance_nanos / NANOS_PER_USD
            labels = (row.upstream,)
            yield Line(
                f"balance at {row.upstream}", f"${usd:,.2f}", round(usd, 2), is_low, LOW_BALANCE,
                "provider_balance_usd", labels, permission="billing.view_upstream",
            )  # fmt: skip


def _partitions() -> Iterator[Line]:
    for name in missing_partitions(now=datetime.now(UTC)):
        yield Line("partition missing", name, 1, True, "a-partition-is-missing", "missing_partitions")


def _replica() -> Iterator[Line]:
    if read_replica.is_configured():
        try:
            lag = read_replica.lag_seconds()
        except AWAY as error:
            yield Line("read replica", " ".join(str(error).split()), 0, True, STORES)
        else:
            yield Line("read replica", f"{lag:.1f} s behind", lag, lag > settings.REPLICA_MAX_LAG_SECONDS, STORES)


def _disk() -> Iterator[Line]:
    """Say how much room the spool on this machine has: its gateway admits nobody when nothing can be written down."""
    folder = settings.DATA_DIR / "spool"
    if not folder.exists():  # No gateway has run here.
        return
    free = shutil.disk_usage(folder).free
    says = f"{free // MEBIBYTE} MiB free on its disk"
    yield Line("spool", says, free, free < FREE_TO_WORRY_BYTES, "a-disk-is-full-or-the-spool-grows")


def _spool() -> Iterator[Line]:
    rejected = count_rejected_lines()
    yield _count("lines set aside", rejected, rejected > 0, "quarantine")


def count_rejected_lines() -> int:
    """Return how many lines of the spools in this machine's data folder were no usage events and await a person."""
    files = (settings.DATA_DIR / "spool").glob("*.rejected")
    return sum(path.read_bytes().count(b"\n") for path in files)


def _count(
    name: str,
    count: int,
    needs_a_person: bool = False,
    runbook: str = "",
    gauge: str = "",
    page: str = "",
    permission: str = "",
    query: str = "",
) -> Line:
    return Line(name, str(count), count, needs_a_person, runbook, gauge, (), page, permission, query=query)


CHECKS: dict[str, tuple[Check, ...]] = {
    "redis": (_shards, _redis, _redis_use, _upstreams),
    "postgres": (
        _changes, _quarantine, _unserved_models, _price_drafts, _approvals, _bounded_usage, _documents, _deletions,
        _breaks, _outboxes, _webhook_endpoints, _jobs, _partitions, _provider_balances, _postgres_use, _replica,
    ),
    "spool": (_disk, _spool),
}  # fmt: skip
FREQUENT = (
    _shards,
    _redis_use,
    _upstreams,
    _documents,
    _webhook_endpoints,
    _postgres_use,
    _changes,
    _quarantine,
    _unserved_models,
    _price_drafts,
    _approvals,
    _breaks,
    _outboxes,
    _jobs,
    _partitions,
    _provider_balances,
)
# What reads a row of each organization, and how often that is asked for gauges.
SELDOM: dict[Check, float] = {_documents: 60.0}
_said: dict[Check, tuple[float, list[Line]]] = {}
