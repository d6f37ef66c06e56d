"""What Redis is told of many organizations and keys at once: what it is told of each, in as many queries as of one."""

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.keys import create_key
from accounts.models import Organization
from accounts.organizations import create_organization
from billing.admission.outbox import read_key, read_keys, read_organization, read_organizations
from billing.budgets.amounts import Amounts, Holder
from billing.budgets.choices import set_end_user_budget
from billing.budgets.overrides import make_override
from tests.billing.ledger_factory import USD, give
from tests.support.settled_usage import billed_event, sell_model, settle

pytestmark = pytest.mark.django_db


def make_some(count: int) -> tuple[list[int], list[int]]:
    """Return ids of organizations and of keys that differ in all that Redis is told of them."""
    organizations, keys, version = [], [], sell_model()
    for number in range(count):
        organization = create_organization(
            name=f"Number {number}", fields={"monthly_budget_nanos": (number + 5) * USD, "credit_limit_nanos": number}
        )
        give(organization, (number + 1) * USD)
        key, _ = create_key(
            organization, name="one", created_by=None, fields={"daily_budget_nanos": (number + 2) * USD}
        )
        if number % 2:
            override(organization, Holder("organization"))
            override(organization, Holder("key", str(key.pk)))
            set_end_user_budget(organization, end_user="", amounts=Amounts(daily_nanos=5), actor="test")
            settle([billed_event(key, version)])
        organizations.append(organization.pk)
        keys.append(key.pk)
    return organizations, keys


def override(organization: Organization, holder: Holder) -> None:
    make_override(
        organization,
        holder=holder,
        amounts=Amounts(None, 7 * USD, None),
        until=timezone.now() + timedelta(days=1),
        reason="why",
        actor="test",
    )


def test_many_are_told_as_each_of_them_is() -> None:
    organizations, keys = make_some(4)
    told, told_of_keys = read_organizations([*organizations, 10**9]), read_keys([*keys, 10**9])
    assert told == {number: read_organization(number) for number in organizations}
    assert told_of_keys == {number: read_key(number) for number in keys}
    assert len({str(each.config) for each in told.values()}) == 4
    assert [bool(told[number].posted_nanos_by_day) for number in organizations] == [False, True] * 2
    assert [bool(told_of_keys[number].posted_nanos_by_day) for number in keys] == [False, True] * 2


def test_many_cost_no_more_queries_than_one() -> None:
    organizations, keys = make_some(3)
    counts = []
    for number in (1, 3):
        with CaptureQueriesContext(connection) as queries:
            read_organizations(organizations[:number])
            read_keys(keys[:number])
        counts.append(len(queries))
    assert counts[0] == counts[1] <= 8
