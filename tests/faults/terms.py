"""What people change while requests of theirs run: price factors, suspension, secrets of keys, owners, and limits.

A change holds for what is admitted once Redis has it; what runs already ends, and is billed, by the terms of before.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

from django.db import connections

from accounts.key_secrets import rotate_secret
from accounts.keys import change_key, hand_over_keys
from accounts.models import Member, Organization, Role, User
from accounts.organizations import change_organization
from billing.admission.outbox import publish_pending_changes
from billing.models import OrganizationPriceFactor, UsageRecord
from billing.pricing.cost import FACTOR_ONE_PPM
from tests.faults.scenario import MAX_TOKENS, Scenario
from tests.support.live_stack import Tenant

FACTORS = (900_000, 1_500_000, 100_000, 1_000_000)
FACTOR_SECONDS = 4.0  # In force for so long, each: longer than the slowest gateway reads no catalog.
READ_SECONDS = 3.0
SENT_SECONDS = 0.05  # A request that was sent before a change may be admitted after it, by this much.
JOIN_SECONDS = 120.0


def price_factors_changed(scenario: Scenario) -> None:
    """Discounts and a markup begin and end: each record has the one that was in force when it was admitted."""
    tenant = scenario.tenants[0]
    for factor_ppm in FACTORS:
        begins = datetime.now(UTC)
        OrganizationPriceFactor.objects.create(
            organization=tenant.organization,
            factor_ppm=factor_ppm,
            effective_from=begins,
            reason="for a test",
            created_by="test",
        )
        scenario.pause(FACTOR_SECONDS, FACTOR_SECONDS + 1)
    scenario.at_the_end.append(partial(_wrong_factors, tenant))


def organization_suspended(scenario: Scenario) -> None:
    """Twice: nothing that is sent while it is suspended is served; what ran goes on, and is billed."""
    tenant = scenario.tenants[1]
    for _ in range(2):
        scenario.pause()
        _set(tenant.organization, status=Organization.Status.SUSPENDED)
        began = time.time()
        scenario.pause(0.5, 1.5)
        ended = time.time()
        _set(tenant.organization, status=Organization.Status.ACTIVE)
        what = "although its organization was suspended"
        scenario.at_the_end.append(partial(_served, scenario, tenant.secret, began, ended, what))


def key_rotated_and_handed_over(scenario: Scenario) -> None:
    """The secret before is dead at once, the new one works; meanwhile the key becomes somebody else's, and back."""
    tenant = scenario.tenants[1]
    people = [User.objects.create(email=f"{tenant.key.pk}-{name}@example.org") for name in ("a", "b")]
    for person in people:
        Member.objects.create(organization=tenant.organization, user=person, role=Role.DEVELOPER)
    tenant.organization.keys.filter(pk=tenant.key.pk).update(owner=people[0])
    for giver, taker in (people, people[::-1]):
        scenario.pause()
        dead = scenario.tenants[1].secret
        hand_over_keys(tenant.organization, of=giver, to=taker, disabled_by=None)
        _, secret = rotate_secret(tenant.key, overlap=timedelta())
        publish_pending_changes()
        rotated_at = time.time()
        scenario.replace_tenant(1, replace(tenant, secret=secret))
        scenario.at_the_end.append(partial(_served, scenario, dead, rotated_at, None, "by a secret of before"))
        scenario.load.wait_for_answers(30)


def limits_lowered_below_what_is_used(scenario: Scenario) -> None:
    """Budgets, rates and the number of requests at once fall below what is used and runs; and rise again."""
    tenant = scenario.tenants[1]
    key, organization = tenant.key, tenant.organization
    scenario.pause()
    change_key(key, fields={"monthly_budget_nanos": 1})
    publish_pending_changes()
    began = time.time()
    scenario.pause(0.5, 1.5)
    ended = time.time()
    change_key(key, fields={"monthly_budget_nanos": None})
    publish_pending_changes()
    what = "beyond a budget that was lowered"
    scenario.at_the_end.append(partial(_served, scenario, tenant.secret, began, ended, what))
    for fields in ({"concurrent_requests": 1}, {"output_tokens_per_minute": MAX_TOKENS}, {"credit_limit_nanos": 0}):
        before = {name: getattr(organization, name) for name in fields}
        _set(organization, **fields)
        scenario.pause(0.3, 1.0)
        _set(organization, **before)


def terms_changed_at_once(scenario: Scenario) -> None:
    """Several of these together, while the gateway dies."""
    changes: Sequence[Callable[[Scenario], None]] = (price_factors_changed, organization_suspended)
    failures: list[str] = []
    threads = [threading.Thread(target=_noting, args=(scenario, change, failures)) for change in changes]
    for thread in threads:
        thread.start()
    scenario.pause(1.0, 3.0)
    scenario.stack.kill_gateway()
    scenario.stack.start_gateway()
    for thread in threads:
        thread.join(JOIN_SECONDS)
    scenario.notes += failures


def _noting(scenario: Scenario, change: Callable[[Scenario], None], failures: list[str]) -> None:
    try:
        change(scenario)
    except Exception as error:
        failures.append(f"P4 {change.__name__} met {type(error).__name__}: {error}")
    finally:
        connections.close_all()


def _set(organization: Organization, **fields: object) -> None:
    change_organization(organization, fields=fields)
    publish_pending_changes()


def _served(scenario: Scenario, secret: str, began: float, ended: float | None, what: str) -> list[str]:
    """Return a line for each request that was sent and admitted within this time although nothing might be served."""
    sent = {
        answer.request_id: answer
        for answer in scenario.load.answers
        if answer.secret == secret and answer.began_at > began + SENT_SECONDS and answer.status == 200
    }
    records = UsageRecord.objects.filter(request_id__in=[request_id for request_id in sent if request_id])
    if ended is not None:
        records = records.filter(admitted_at__lt=datetime.fromtimestamp(ended, UTC))
    return [f"I7 request {record.request_id} was served {what}" for record in records]


def _wrong_factors(tenant: Tenant) -> list[str]:
    """Return where a record has another factor than one that was in force when it was admitted, or just before."""
    factors = list(OrganizationPriceFactor.objects.filter(organization=tenant.organization).order_by("effective_from"))
    found = []
    for record in UsageRecord.objects.filter(organization_id=tenant.organization.pk):
        known = [factor for factor in factors if factor.effective_from <= record.admitted_at]
        allowed = {known[-1].factor_ppm if known else FACTOR_ONE_PPM}
        if known and record.admitted_at - known[-1].effective_from < timedelta(seconds=READ_SECONDS):
            allowed.add(known[-2].factor_ppm if len(known) > 1 else FACTOR_ONE_PPM)
        if record.factor_ppm not in allowed:
            found.append(f"I4 {record.request_id}, admitted {record.admitted_at}, has the factor {record.factor_ppm}")
    return found[:20]
