"""I14: what was admitted of requests, input and output tokens keeps to burst + rate x time; and no more run at once.

The bound, as the scripts of admission promise it. A limit of L a minute lets L through at once, and L / 60 more each
second. A request takes w when it is admitted, the most that it may use, and gives w - a back when it has used a. So
over any span, from the admission of a first request to that of a last:

    sum of min(a, w) <= L + L / 60 x span + sum, over requests that ran when the span began, of max(0, w - a)

min(a, w), because what is used beyond what was reserved is charged afterwards, and never more than a minute's worth of
it. The last sum is what earlier requests had taken and gave back. A whole L more for each time that Redis came back
without its rates: then nothing is known of what was taken. What was reserved in such a lost state is not given back in
the new one; what is used of it is taken there.

When a request was admitted is known between two moments: the client began to send it, and had the answer.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from billing.models import UsageRecord
from tests.support.live_stack import Tenant
from tests.support.load import Answer

MINUTE_SECONDS = 60
BYTES_PER_INPUT_TOKEN = 2  # The default of the setting of this name.
ROUNDING_UNITS = 1
REQUESTS, INPUT, OUTPUT = "requests", "input tokens", "output tokens"
LIMIT_FIELDS = {
    REQUESTS: "requests_per_minute",
    INPUT: "input_tokens_per_minute",
    OUTPUT: "output_tokens_per_minute",
}


@dataclass(frozen=True, slots=True)
class Admission:
    """An admitted request: admitted after `began_at`, before `ended_at`; `used` and `reserved` by kind of limit."""

    organization_id: int
    key_id: int
    began_at: float
    ended_at: float
    used: Mapping[str, int]
    reserved: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Holder:
    """A key or an organization, and what it may do."""

    label: str
    organization_id: int
    key_id: int | None
    limits: Mapping[str, int | None]
    concurrent_requests: int | None

    def owns(self, organization_id: int, key_id: int) -> bool:
        return self.organization_id == organization_id and self.key_id in (None, key_id)


def holders_of(tenants: Iterable[Tenant]) -> list[Holder]:
    """Return every key of the tenants, and every organization once."""
    found: dict[str, Holder] = {}
    for tenant in tenants:
        organization, key = tenant.organization, tenant.key
        for label, key_id, limited in (
            (f"key {key.pk}", key.pk, key),
            (f"organization {organization.pk}", None, organization),
        ):
            limits = {kind: getattr(limited, field) for kind, field in LIMIT_FIELDS.items()}
            found[label] = Holder(label, organization.pk, key_id, limits, limited.concurrent_requests)
    return list(found.values())


def read_admissions(
    tenants: Sequence[Tenant], answers: Iterable[Answer], records: Mapping[UUID, UsageRecord], called: Iterable[UUID]
) -> list[Admission]:
    """Return what is known to have been admitted: it was billed, or an upstream was asked for it.

    A request whose client never learnt its id is left out: nobody knows when it was sent.
    """
    by_secret = {tenant.secret: tenant for tenant in tenants}
    admitted = records.keys() | set(called)
    found = []
    for answer in answers:
        if answer.request_id is None or answer.request_id not in admitted:
            continue
        tenant, record = by_secret[answer.secret], records.get(answer.request_id)
        used = {REQUESTS: 1, INPUT: 0, OUTPUT: 0}
        if record is not None:
            used[INPUT] = (
                record.input_tokens
                + record.cache_read_tokens
                + record.cache_write_5m_tokens
                + record.cache_write_1h_tokens
            )
            used[OUTPUT] = record.output_tokens
        reserved = {REQUESTS: 1, INPUT: -(-answer.body_bytes // BYTES_PER_INPUT_TOKEN), OUTPUT: answer.max_tokens}
        found.append(Admission(tenant.organization.pk, tenant.key.pk, answer.began_at, answer.ended_at, used, reserved))
    return sorted(found, key=lambda admission: admission.began_at)


def broken_rates(holders: Iterable[Holder], admissions: Sequence[Admission], *, states_lost: int) -> Iterator[str]:
    """Name each limit that more than its bound was admitted of, with the worst span."""
    for holder in holders:
        own = [item for item in admissions if holder.owns(item.organization_id, item.key_id)]
        for kind, limit in holder.limits.items():
            if limit is None:
                continue
            worst = max(_excesses(own, kind, limit, states_lost), default=(0.0, 0, 0.0))
            if worst[0] > ROUNDING_UNITS:
                yield (
                    f"I14 {holder.label} had {worst[1]} {kind} admitted within {worst[2]:.1f} s, {worst[0]:.0f} more"
                    f" than {limit} a minute allow"
                )


def _excesses(
    admissions: Sequence[Admission], kind: str, limit: int, states_lost: int
) -> Iterator[tuple[float, int, float]]:
    """Yield, for every span, by how much it passes its bound, what was admitted in it, and how long it is."""
    reserved = [min(item.reserved[kind], limit) for item in admissions]
    taken = [min(item.used[kind], most) for item, most in zip(admissions, reserved, strict=True)]
    for first, opening in enumerate(admissions):
        returned = sum(reserved[at] - taken[at] for at in range(first) if admissions[at].ended_at > opening.began_at)
        total, ended_at = 0, opening.ended_at
        for at in range(first, len(admissions)):
            total += taken[at]
            ended_at = max(ended_at, admissions[at].ended_at)
            span = ended_at - opening.began_at
            yield total - limit * (1 + states_lost + span / MINUTE_SECONDS) - returned, total, span


def broken_concurrency(holders: Iterable[Holder], running: Iterable[tuple[int, int, float, float]]) -> Iterator[str]:
    """Name each holder of whom more ran at once than may.

    `running`: organization, key, and from when to when an upstream surely worked for a request that ended whole.
    """
    spans = list(running)
    for holder in holders:
        if holder.concurrent_requests is None:
            continue
        steps = []
        for organization_id, key_id, began_at, ended_at in spans:
            if holder.owns(organization_id, key_id):
                steps += [(began_at, 1), (ended_at, -1)]
        most = at_once = 0
        for _, step in sorted(steps):  # One that ends as another begins does not run beside it.
            at_once += step
            most = max(most, at_once)
        if most > holder.concurrent_requests:
            yield f"I14 {holder.label} had {most} requests running at once, {holder.concurrent_requests} may"
