"""What each job of the registry does when a person runs it, and what it would do: the same code as the worker's."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from django.conf import settings
from django.utils import timezone

from accounts.models import AdmissionChange
from billing.admission.inspection import read_shards
from billing.approvals.kinds import describe
from billing.approvals.rerating_work import decided_reratings
from billing.checks import open_months, proven_months
from billing.credit.lots import organizations_with_expired_lots
from billing.documents.closing import last_month_over
from billing.documents.invoices import organizations_to_close
from billing.documents.receipts import payments_without_receipt
from billing.models import Alert, OutgoingMail, TopUp, WebhookDelivery
from billing.partitions import missing_partitions
from billing.payments.automatic import due_organizations
from billing.payments.providers import current_provider
from billing.privacy.deletion import due_deletions
from billing.privacy.retention import due_retentions
from billing.reconciliation.runs import days_compared
from operations import courier, tasks
from operations.provider_accounts import find_drifts
from operations.reconciliation import check_ledger_due, reconcile_due
from operations.reratings import post_decided
from operations.traffic import next_to_count

MAX_SHOWN = 50  # Lines of what is due, of each kind.


@dataclass(frozen=True, slots=True)
class Work:
    """`run` does it and returns when it is done; `due` yields a line for each thing that a run would do."""

    run: Callable[[], object]
    due: Callable[[], Iterable[str]]


def _due_work() -> Iterator[str]:
    yield f"{AdmissionChange.objects.count():,} changes to publish"
    shards = read_shards(with_holders=False)
    yield f"{sum(shard.waiting_events for shard in shards):,} usage events to settle"


def _maintenance() -> Iterator[str]:
    yield from (f"make partition {name}" for name in missing_partitions(now=datetime.now(UTC)))
    yield from (f"expire credit of {organization.slug}" for organization in organizations_with_expired_lots())


def _traffic() -> Iterator[str]:
    yield f"count minutes from {next_to_count(datetime.now(UTC)):%Y-%m-%d %H:%M} UTC on"


def _traffic_check() -> Iterator[str]:
    yield f"count the hours of {tasks.yesterday()} again"


def _retention() -> Iterator[str]:
    for row, first, before in due_retentions(datetime.now(UTC).date()):
        yield f"erase details of {row.organization.slug} from {first} until before {before}"
    for request in due_deletions(timezone.now()):
        yield f"erase {request.organization.slug}, as {request.made_by} asked on {request.made_at:%Y-%m-%d}"


def _alerts() -> Iterator[str]:
    yield f"look again at {Alert.objects.filter(cleared_at=None).count():,} open alerts, and for new ones"


def _notices() -> Iterator[str]:
    now = timezone.now()
    mails = OutgoingMail.objects.filter(sent_at=None, given_up_at=None, next_attempt_at__lte=now).count()
    yield f"send {mails:,} mails"
    waiting = WebhookDelivery.objects.filter(state=WebhookDelivery.State.WAITING, next_attempt_at__lte=now)
    yield f"send {waiting.count():,} webhook deliveries"


def _documents() -> Iterator[str]:
    month = last_month_over()
    yield f"write {len(list(payments_without_receipt())):,} payment receipts"
    yield from (f"close {month} of {organization.slug}" for organization in organizations_to_close(month))


def _payments() -> Iterator[str]:
    yield f"ask about {TopUp.objects.filter(state=TopUp.State.PENDING).count():,} pending orders"
    yield from (f"top up {organization.slug}" for organization in due_organizations(timezone.now()))


def _payment_lists() -> Iterator[str]:
    provider = current_provider()
    since = timezone.now() - tasks.LISTED_SPAN
    yield f"go through the list of {provider.name} since {since:%Y-%m-%d %H:%M} UTC" if provider else "nothing"


def _reratings() -> Iterator[str]:
    yield from (f"post {approval}: {describe(approval)}" for approval in decided_reratings())


def _reconcile() -> Iterator[str]:
    now = datetime.now(UTC)
    yield from (f"compare the books of {day}" for day in days_compared(now))


def _ledger_check() -> Iterator[str]:
    now = datetime.now(UTC)
    yield from (f"check the books of {month}, which is not proven" for month, _ in open_months(now=now))
    yield from (f"check the books of {row.month} again" for row in proven_months(night=now.date()))


def _provider_balances() -> Iterator[str]:
    yield from (f"ask {name} what is left" for name in settings.PROVIDER_BALANCES)


def _price_drift() -> Iterator[str]:
    yield from (f"draft {drift}" for drift in find_drifts())


def _send() -> None:
    tasks.send_what_waits()
    courier.deliver_mails()
    courier.deliver_webhooks()


WORK: dict[str, Work] = {
    "due_work": Work(tasks.do_due_work, _due_work),
    "maintenance": Work(tasks.maintain, _maintenance),
    "traffic": Work(tasks.count_what_happened, _traffic),
    "traffic_check": Work(tasks.check_traffic, _traffic_check),
    "retention": Work(tasks.erase_old_details, _retention),
    "alerts": Work(tasks.look_for_alerts, _alerts),
    "catalog_alerts": Work(tasks.look_for_catalog_alerts, _alerts),
    "notices": Work(_send, _notices),
    "documents": Work(tasks.write_documents, _documents),
    "payments": Work(tasks.look_after_payments, _payments),
    "payment_lists": Work(tasks.go_through_payment_lists, _payment_lists),
    "reratings": Work(post_decided, _reratings),
    "reconcile": Work(partial(reconcile_due, at_once=True), _reconcile),
    "ledger_check": Work(partial(check_ledger_due, at_once=True), _ledger_check),
    "provider_balances": Work(tasks.watch_provider_balances, _provider_balances),
    "price_drift": Work(tasks.draft_price_drifts, _price_drift),
}
