"""What must hold after a fault, once all is healed and quiet: every invariant that this stack can refute.

Each function returns lines that name what is broken, and nothing when all is well.
"""

import io
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast
from uuid import UUID

import redis
from django.core.management import CommandError, call_command
from django.db.models import Sum
from django.utils import timezone

from accounts.models import ApiKey
from billing.admission.redis.blocking_client import redis_client
from billing.admission.redis_keys import SHARDS
from billing.budgets.spenders import END_USER, Spender, digest_of
from billing.checks.journal import COUNTS, compare_counts
from billing.credit.lots import spendable_credit
from billing.models import (
    BudgetDay,
    FailedRequest,
    RequestDetail,
    SpenderDay,
    UsageCorrection,
    UsageQuarantine,
    UsageRecord,
)
from billing.request_id import parse_request_id
from billing.shards import SHARD_COUNT, shard_of
from billing.usage.budgets import WHOLE_ORGANIZATION
from billing.usage.corrected import show_corrected
from sandbox.journal import JournalRecord
from tests.faults.one_effect import broken_keys
from tests.faults.rates import broken_concurrency, broken_rates, holders_of, read_admissions
from tests.support.live_stack import LiveStack, Tenant
from tests.support.load import Answer

MAX_LINES = 20
SANDBOX_CHARS_PER_TOKEN = 4
NO_REQUEST = UUID(int=0)


@dataclass
class Evidence:
    """All that is known of a run: who acted, what clients saw, what the upstream served, and what the fault excuses.

    `rate_states_lost`: how often Redis came back without its rates, each of which allows another burst.
    `holds_lost`: True when a gateway and Redis' memory of its holds are gone together, so that nobody knows of some
    requests any more; none of their responses arrived whole.
    `keys_forgotten_at`: when Postgres came back as of an earlier moment, without idempotency keys that were used since.
    """

    tenants: Sequence[Tenant]
    answers: Sequence[Answer]
    journal: Sequence[JournalRecord]
    poison_events: int = 0
    rate_states_lost: int = 0
    holds_lost: bool = False
    keys_forgotten_at: float | None = None
    records: Mapping[UUID, UsageRecord] = field(default_factory=dict)
    failed: set[UUID] = field(default_factory=set)
    doubled: Mapping[UUID, int] = field(default_factory=dict)
    requests_by_key: Mapping[str, set[UUID]] = field(default_factory=dict)

    @classmethod
    def collect(
        cls, tenants: Sequence[Tenant], answers: Sequence[Answer], journal: Iterable[JournalRecord]
    ) -> "Evidence":
        """Read what Postgres has of these tenants."""
        ids = [tenant.organization.pk for tenant in tenants]
        rows = list(UsageRecord.objects.filter(organization_id__in=ids))
        show_corrected(rows)
        records = {record.request_id: record for record in rows}
        times = Counter(record.request_id for record in rows)
        doubled = {request_id: count for request_id, count in times.items() if count > 1}
        failed = set(
            FailedRequest.objects.filter(organization_id__in=ids).values_list("request_id", flat=True),
        )
        # Whoever sends an idempotency key names it as its user too: so a request is known to be of that key although no
        # client has learnt its id.
        details = RequestDetail.objects.filter(organization_id__in=ids).exclude(end_user="")
        requests_by_key: dict[str, set[UUID]] = defaultdict(set)
        for key, request_id in details.values_list("end_user", "request_id"):
            requests_by_key[key].add(request_id)
        return cls(
            tenants,
            answers,
            list(journal),
            records=records,
            failed=failed,
            doubled=doubled,
            requests_by_key=requests_by_key,
        )


def find_violations(stack: LiveStack, evidence: Evidence) -> list[str]:
    """Return a line for each break of an invariant, with its number in front."""
    found = [
        *replies_have_records(evidence),
        *calls_have_one_end(evidence),
        *keys_have_one_effect(evidence),
        *refusals_reach_no_upstream(evidence),
        *overdraft_is_bounded(evidence),
        *limits_are_kept(evidence),
        *redis_equals_postgres(evidence.tenants),
        *quarantine_holds_poison_only(evidence),
        *spool_is_settled(stack),
    ]
    UsageQuarantine.objects.filter(resolved_at=None).update(resolved_at=timezone.now(), resolved_by="test")
    return found + ledgers_agree(stack)


def ledgers_agree(stack: LiveStack) -> list[str]:
    """I1 to I15 as far as rows can refute them. In this process: one of its own would take seconds to come up."""
    output = io.StringIO()
    try:
        call_command("check_ledger", "--journal", str(stack.journal_path), "--quiet", stdout=output)
    except CommandError as error:
        output.write(str(error))
        return ["I1-I15 " + line.strip() for line in output.getvalue().splitlines()]
    return []


def replies_have_records(evidence: Evidence) -> list[str]:
    """I3, I5: a reply that a client has whole is recorded once, by the counts that it was told, and is no orphan.

    What was an orphan for a while counts as its correction has it.
    """
    found = []
    for answer in evidence.answers:
        if not answer.is_complete:
            continue
        record = evidence.records.get(cast(UUID, answer.served_by))
        if record is None:
            found.append(f"I3 reply {answer.request_id} arrived whole and has no usage record")
            continue
        if record.usage_source == UsageRecord.Source.ORPHAN:
            found.append(f"I5 reply {answer.request_id} arrived whole and is an orphan of {record.cost_nanos} nanos")
            continue
        told = answer.usage
        recorded = {name: getattr(record, name) for name in ("input_tokens", "output_tokens")}
        if record.usage_source == UsageRecord.Source.PROVIDER and recorded != {name: told[name] for name in recorded}:
            found.append(f"I5 reply {answer.request_id} said {told}, its record says {recorded}")
    return _cut(found)


def calls_have_one_end(evidence: Evidence) -> list[str]:
    """I3, I5: what an upstream was asked has one terminal state, and its record has the upstream's counts."""
    found = []
    found += [f"I4 request {request_id} has {count} usage records" for request_id, count in evidence.doubled.items()]
    both = evidence.failed & evidence.records.keys()
    found += [f"I3 request {request_id} is both billed and failed" for request_id in both]
    for call in evidence.journal:
        request_id = parse_request_id(call.request_id or "")
        if request_id is None:
            continue
        record = evidence.records.get(request_id)
        if record is None:
            if request_id not in evidence.failed and not evidence.holds_lost:
                found.append(f"I3 request {request_id} was {call.delivered} by the upstream and has no terminal state")
        elif record.usage_source == UsageRecord.Source.PROVIDER and call.is_complete and call.usage is not None:
            recorded = {name: getattr(record, column) for name, column in COUNTS.items()}
            found += ["I5 " + line for line in compare_counts(request_id, call.usage, recorded)]
    return _cut(found)


def keys_have_one_effect(evidence: Evidence) -> list[str]:
    """I9: what is repeated under an idempotency key is served and billed once, and answered alike."""
    return _cut(
        list(
            broken_keys(
                evidence.answers,
                evidence.records,
                evidence.requests_by_key,
                forgotten_at=evidence.keys_forgotten_at,
            )
        )
    )


def refusals_reach_no_upstream(evidence: Evidence) -> list[str]:
    """I7: after our own 402 or 429 no upstream was called, and nothing was recorded."""
    called = {parse_request_id(call.request_id or "") for call in evidence.journal}
    refused = [answer for answer in evidence.answers if answer.status == 402 or is_own_429(answer)]
    return _cut(
        [f"I7 request {answer.request_id} was refused and called" for answer in refused if answer.request_id in called]
        + [
            f"I7 request {answer.request_id} was refused and billed"
            for answer in refused
            if answer.request_id in evidence.records
        ]
    )


def is_own_429(answer: Answer) -> bool:
    return answer.status == 429 and answer.error_code.startswith("rate_limited_")


def overdraft_is_bounded(evidence: Evidence) -> list[str]:
    """I6, with every request counted as in flight: balance >= -(limit + sum of max(0, cost - hold))."""
    found = []
    excess: Counter[int] = Counter()
    for record in evidence.records.values():
        excess[record.organization_id] += max(0, record.cost_nanos - record.hold_nanos)
    credit = spendable_credit([tenant.organization.pk for tenant in evidence.tenants])
    for tenant in evidence.tenants:
        organization = tenant.organization
        balance = credit.get(organization.pk, (0, 0))[0]
        bound = -(organization.credit_limit_nanos + excess[organization.pk])
        if balance < bound:
            found.append(f"I6 organization {organization.pk} has {balance} nanos, below {bound}")
    return found


def limits_are_kept(evidence: Evidence) -> list[str]:
    """I14: requests and tokens of limited keys and organizations, and how many of theirs ran at once."""
    calls = {parse_request_id(call.request_id or ""): call for call in evidence.journal}
    called = [request_id for request_id in calls if request_id is not None]
    admissions = read_admissions(evidence.tenants, evidence.answers, evidence.records, called)
    holders = holders_of(evidence.tenants)
    running = []
    for answer in evidence.answers:
        call, record = calls.get(answer.request_id), evidence.records.get(answer.request_id or NO_REQUEST)
        if answer.is_complete and record is not None and call is not None and call.ended_time is not None:
            running.append((record.organization_id, record.key_id, call.time, call.ended_time))
    return _cut(
        [
            *broken_rates(holders, admissions, states_lost=evidence.rate_states_lost),
            *broken_concurrency(holders, running),
        ]
    )


def redis_equals_postgres(tenants: Sequence[Tenant]) -> list[str]:
    """I8: nothing is held, unsettled or open, and what Redis enforces is what Postgres has."""
    found = []
    for names in SHARDS:
        for name, size in ((names.usage, redis_client().xlen), (names.deadlines, redis_client().zcard)):
            if size(name):
                found.append(f"I8 {name} is not empty")
    for tenant in tenants:
        organization_id = tenant.organization.pk
        names = SHARDS[shard_of(organization_id)]
        org, key = _read_hash(names.org(organization_id)), _read_hash(names.key(tenant.key.pk))
        for label, counters in ((f"org:{organization_id}", org), (f"key:{tenant.key.pk}", key)):
            found += [
                f"I8 {label} {name} is {value}"
                for name, value in counters.items()
                if name.partition(":")[0] in ("held", "unsettled", "open") and int(value)
            ]
        if "status" in org:  # Else it is not in Redis, and will be loaded when it is asked for.
            credit, version = spendable_credit([organization_id]).get(organization_id, (0, 0))
            if (int(org["credit"]), int(org["version"])) != (credit, version):
                found.append(
                    f"I8 org:{organization_id} has {org['credit']} nanos, Postgres {credit} (version {version})"
                )
            found += _days_equal(f"org:{organization_id}", org, organization_id, WHOLE_ORGANIZATION)
        if "status" in key:
            found += _days_equal(f"key:{tenant.key.pk}", key, organization_id, tenant.key.pk)
            is_revoked = ApiKey.objects.get(pk=tenant.key.pk).is_revoked
            if (key["status"] == "revoked") != is_revoked:
                found.append(f"I8 key:{tenant.key.pk} is {key['status']} in Redis")
        found += _spenders_equal(organization_id)
    return _cut(found)


def _spenders_equal(organization_id: int) -> list[str]:
    """Return where what Redis has of end users is not what Postgres has, or that is not what their requests cost."""
    names = SHARDS[shard_of(organization_id)]
    posted: dict[str, dict[int, int]] = defaultdict(dict)
    for day in SpenderDay.objects.filter(organization_id=organization_id):
        posted[Spender(organization_id, day.scope, day.spender).name][day.admitted_day] = day.cost_nanos
    found = []
    for name in cast(list[bytes], redis_client().zrange(names.spenders(organization_id), 0, -1)):
        label = name.decode()
        counters = _read_hash(names.prefix + label)
        told = {int(field[7:]): int(value) for field, value in counters.items() if field.startswith("posted:")}
        left = [field for field in counters if field.partition(":")[0] in ("held", "unsettled", "open")]
        found += [f"I8 {label} {field} is {counters[field]}" for field in left if int(counters[field])]
        # Without a version it has not been loaded since Redis forgot it.
        if "config_version" in counters and told != posted[label]:
            found.append(f"I8 {label} has {told} posted by day, Postgres {posted[label]}")
    if not posted:
        return found
    details = RequestDetail.objects.filter(organization_id=organization_id).exclude(end_user="")
    end_users = dict(details.values_list("request_id", "end_user"))
    more = UsageCorrection.objects.filter(organization_id=organization_id)
    costs = {each.request_id: max(0, each.cost_after_nanos - each.cost_before_nanos) for each in more}
    true: dict[str, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    for record in UsageRecord.objects.filter(organization_id=organization_id, request_id__in=list(end_users)):
        spender = Spender(organization_id, END_USER, digest_of(end_users[record.request_id]))
        true[spender.name][record.admitted_day] += record.cost_nanos + costs.get(record.request_id, 0)
    for label in true.keys() | posted.keys():
        expected = {day: nanos for day, nanos in true[label].items() if nanos}
        if posted[label] != expected:
            found.append(f"I8 {label}: {posted[label]} are counted by day, its requests cost {expected}")
    return found


def _days_equal(label: str, counters: Mapping[str, str], organization_id: int, key_id: int) -> list[str]:
    days = BudgetDay.objects.filter(organization_id=organization_id, key_id=key_id)
    posted = dict(days.values_list("admitted_day").annotate(Sum("cost_nanos")))
    told = {int(name.partition(":")[2]): int(value) for name, value in counters.items() if name.startswith("posted:")}
    return [f"I8 {label} has {told} posted by day, Postgres {posted}"] if told != posted else []


def _read_hash(name: str) -> dict[str, str]:
    fields = cast(dict[bytes, bytes], redis_client().hgetall(name))
    return {field.decode(): value.decode() for field, value in fields.items()}


def quarantine_holds_poison_only(evidence: Evidence) -> list[str]:
    """I3: nothing is in quarantine but what the test itself put into the stream."""
    waiting = UsageQuarantine.objects.filter(resolved_at=None)
    if waiting.count() == evidence.poison_events:
        return []
    reasons = [f"{row}: {row.reason}" for row in waiting[:5]]
    return [f"I3 {waiting.count()} events are in quarantine, {evidence.poison_events} were poisoned: {reasons}"]


def spool_is_settled(stack: LiveStack) -> list[str]:
    """P1, seen from the gateway: Postgres has a terminal state of every event that was ever spooled."""
    found = []
    for path in stack.spool_paths:
        output = io.StringIO()
        call_command("replay_spool", "--dry-run", "--folder", str(path), stdout=output)
        answer = output.getvalue()
        if ", 0 would be sent" not in answer:
            found.append(f"I3 {answer.strip()}")
    return found


def is_quiet() -> bool:
    """Say whether nothing is held and nothing waits. Only looks: what brings quiet about must be the system itself."""
    client = redis_client()
    try:
        for shard in range(SHARD_COUNT):
            names = SHARDS[shard]
            if client.xlen(names.usage) or client.zcard(names.deadlines):
                return False
    except (redis.RedisError, OSError):
        return False
    return True


def _cut(lines: list[str]) -> list[str]:
    return lines if len(lines) <= MAX_LINES else [*lines[:MAX_LINES], f"... and {len(lines) - MAX_LINES} more"]


def summarize(evidence: Evidence) -> dict[str, int]:
    """Return how many requests ended in which way; and for estimates, their output tokens and the true ones."""
    counts: Counter[str] = Counter(record.usage_source for record in evidence.records.values())
    for call in evidence.journal:
        record = evidence.records.get(parse_request_id(call.request_id or "") or NO_REQUEST)
        if record is not None and record.usage_source != UsageRecord.Source.PROVIDER:
            counts["output_estimated"] += record.output_tokens
            counts["output_delivered"] += -(-call.text_chars // SANDBOX_CHARS_PER_TOKEN)
    counts["failed"] = len(evidence.failed)
    counts["answers"] = len(evidence.answers)
    counts["complete"] = sum(answer.is_complete for answer in evidence.answers)
    return dict(counts)


def describe_answers(answers: Sequence[Answer]) -> str:
    """Return how often each kind of answer was seen, for a run that surprises."""
    return json.dumps(Counter(f"{answer.status} {answer.error_code}".strip() for answer in answers))
