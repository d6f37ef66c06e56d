"""Budgets of end users and members, as whoever calls the gateway meets them."""

import pytest

from accounts.keys import create_key, hand_over_keys
from accounts.members import add_member
from accounts.models import Role
from billing.admission.blocking import rebuild_shard
from billing.admission.outbox import publish_pending_changes
from billing.budgets.amounts import Amounts
from billing.budgets.choices import set_end_user_budget, set_member_budget
from billing.checks import Books, admission_check
from billing.models import SpenderDay
from billing.money import NANOS_PER_USD, format_usd
from billing.shards import shard_of
from tests.gateway.checks import assert_error, assert_refused, wait_until_released
from tests.gateway.test_balance import LEFT, TINY
from tests.support.live_stack import LiveStack, Tenant
from tests.support.people import make_person

BUDGET = NANOS_PER_USD // 50


@pytest.fixture
def tenant(stack: LiveStack) -> Tenant:
    """A tenant whose end users may each spend two cents a day, but for the guest, who may spend nothing."""
    tenant = stack.make_tenant()
    set_end_user_budget(tenant.organization, end_user="", amounts=Amounts(daily_nanos=BUDGET), actor="a test")
    set_end_user_budget(tenant.organization, end_user="guest", amounts=Amounts(weekly_nanos=0), actor="a test")
    publish_pending_changes()
    return tenant


def test_each_end_user_has_the_default_or_a_budget_of_their_own(stack: LiveStack, tenant: Tenant) -> None:
    first = stack.post(tenant, "[[sandbox: tokens=900]]", metadata={"user_id": "eve"})
    assert first.status_code == 200
    spent = stack.record(first).cost_nanos
    wait_until_released(stack, tenant)
    for _ in range(2):  # And once more after Redis has forgotten all of it.
        refused = stack.post(tenant, metadata={"user_id": "eve"})
        message = assert_refused(stack, tenant, refused, 402, "end_user_daily_budget_exceeded")
        assert "the daily budget of this end user has" in message
        assert LEFT.findall(message) == [(format_usd(BUDGET - spent), format_usd(BUDGET))]
        rebuild_shard(shard_of(tenant.organization.pk), force=True)
        stack.wait_until(lambda: stack.post(tenant, TINY).status_code == 200 or None, "admission to open again")
    assert stack.post(tenant, TINY, metadata={"user_id": "mallory"}).status_code == 200
    assert_error(stack.post(tenant, TINY, metadata={"user_id": "guest"}), 402, "end_user_weekly_budget_exceeded")
    wait_until_released(stack, tenant)
    days = SpenderDay.objects.filter(organization_id=tenant.organization.pk, end_user="eve")
    assert list(days.values_list("scope", "cost_nanos")) == [("end_user", spent)]
    own = [line for line in admission_check(looks=3).run(Books()).breaks if f"{tenant.organization.pk}-" in line]
    assert own == []


def test_a_member_has_one_budget_for_all_keys_that_they_own(stack: LiveStack) -> None:
    tenant = stack.make_tenant()
    bob = make_person(f"bob-{tenant.organization.pk}")
    member = add_member(tenant.organization, user=bob, role=Role.DEVELOPER)
    keys = [create_key(tenant.organization, name=name, created_by=bob) for name in ("laptop", "server")]
    laptop, server = (Tenant(tenant.organization, key, secret) for key, secret in keys)
    publish_pending_changes()
    first = stack.post(laptop, "[[sandbox: tokens=900]]")
    spent = stack.record(first).cost_nanos
    wait_until_released(stack, tenant)
    # What was spent before there was a budget counts.
    set_member_budget(tenant.organization, member=member, amounts=Amounts(monthly_nanos=BUDGET), actor="a test")
    publish_pending_changes()
    message = assert_error(stack.post(server), 402, "member_monthly_budget_exceeded")
    assert LEFT.findall(message) == [(format_usd(BUDGET - spent), format_usd(BUDGET))]
    assert stack.post(server, TINY, max_tokens=10).status_code == 200
    assert stack.post(tenant).status_code == 200
    # Handed over, it counts for its new owner.
    carol = make_person(f"carol-{tenant.organization.pk}")
    add_member(tenant.organization, user=carol, role=Role.DEVELOPER)
    assert hand_over_keys(tenant.organization, of=bob, to=carol, disabled_by=None) == 2
    publish_pending_changes()
    assert stack.post(server).status_code == 200
