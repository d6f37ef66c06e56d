"""Whatever moves money, at random and at once, on the same few organizations: it ends well, and the books hold."""

import random
import time
import uuid
from collections.abc import Sequence
from datetime import timedelta

import pytest
from django.utils import timezone

from accounts.models import Organization
from billing.corrections.refunds import InvalidRefundError, adjust_balance, refund_usage
from billing.credit.lots import expire_lots
from billing.credit.redemption import RedemptionError, create_codes, redeem
from billing.ledger.statements import posted_nanos
from billing.models import RedemptionCode, TopUp, UsageRecord
from billing.payments.events import adopt_waiting, apply_event
from billing.settlement.batch import settle_batch
from billing.shards import shard_of
from billing.usage_event import UsageEvent
from tests.billing.ledger_factory import (
    USD,
    assert_ledger_holds,
    entry_of,
    give,
    make_event,
    make_organization,
    make_price,
)
from tests.billing.payments.payment_factory import order, paid, refund_failed, refunded, reinstated, withdrawn
from tests.support.together import run_together

OPERATORS, DEEDS = 6, 50
MAX_BUSY_SECONDS = 30
WEIGHTS = {
    "use": 3, "orphan": 1, "truth": 2, "give_back": 2, "redeem": 1, "grant": 1, "expire": 2,
    "pay": 1, "pay_again": 1, "send_back": 1, "dispute": 1, "adjust": 1,
}  # fmt: skip


class Operator:
    """Does one thing after another; what is refused for a good reason is nothing."""

    def __init__(self, seed: int, organizations: Sequence[Organization], codes: Sequence[str]) -> None:
        self.chance, self.organizations, self.codes = random.Random(seed), organizations, codes
        self.orphans: list[UsageEvent] = []

    def work(self) -> None:
        for name in self.chance.choices(list(WEIGHTS), list(WEIGHTS.values()), k=DEEDS):
            try:
                getattr(self, name)(self.chance.choice(self.organizations))
            except (InvalidRefundError, RedemptionError):
                continue

    def settle(self, *events: UsageEvent) -> None:
        entries, end = [entry_of(event) for event in events], time.monotonic() + MAX_BUSY_SECONDS
        while settle_batch(shard_of(events[0].organization_id), entries) is None:
            assert time.monotonic() < end
            time.sleep(0.01)

    def use(self, organization: Organization) -> None:
        self.settle(*(make_event(organization, self.chance.randint(1, USD)) for _ in range(3)))

    def orphan(self, organization: Organization) -> None:
        cost = self.chance.choice([0, self.chance.randint(1, USD)])
        event = make_event(organization, cost, usage_source="orphan", upstream_cost_nanos=500)
        self.settle(event)
        self.orphans.append(event)

    def truth(self, organization: Organization) -> None:
        """The true event comes after its orphan, perhaps twice, perhaps when the lot that should pay has expired."""
        if self.orphans:
            event = self.chance.choice(self.orphans)
            payer = Organization.objects.get(pk=event.organization_id)
            cost = int(event.request_id[-6:], 16) * 50
            values = {"request_id": event.request_id, "admitted_at_ms": event.admitted_at_ms}
            self.settle(make_event(payer, cost, upstream_cost_nanos=700, **values))

    def give_back(self, organization: Organization) -> None:
        record = UsageRecord.objects.filter(organization_id=organization.pk, cost_nanos__gt=0).order_by("?").first()
        if record is not None:
            part = max(1, record.cost_nanos // 3)
            refund_usage(
                organization, request_id=record.request_id, amount_nanos=part, reason="r", actor="a",
                idempotency_key=str(self.chance.randint(1, 4)),
            )  # fmt: skip

    def redeem(self, organization: Organization) -> None:
        redeem(organization, code=self.chance.choice(self.codes), actor="a")

    def grant(self, organization: Organization) -> None:
        kind, ends = self.chance.choice(["paid", "promotional"]), self.chance.choice([1, 3, 3_000])
        give(
            organization, self.chance.randint(1, 3 * USD), kind=kind, idempotency_key=uuid.uuid4().hex,
            expires_at=timezone.now() + timedelta(seconds=ends),
        )  # fmt: skip

    def expire(self, organization: Organization) -> None:
        expire_lots(organization, available_nanos=posted_nanos(organization) - self.chance.randint(0, USD))

    def pay(self, organization: Organization) -> None:
        if TopUp.objects.filter(organization=organization).count() < 25:
            top_up = order(organization, self.chance.randint(5, 9), idempotency_key=uuid.uuid4().hex)
            if self.chance.random() < 0.8:
                apply_event(paid(top_up))

    def pay_again(self, organization: Organization) -> None:
        for top_up in self.some_order(organization):
            apply_event(paid(top_up))

    def send_back(self, organization: Organization) -> None:
        for top_up in self.some_order(organization):
            seconds = self.chance.randint(1, 20)
            apply_event(refunded(top_up, 1 + seconds // 5, seconds=seconds))
            if self.chance.random() < 0.5:
                apply_event(refund_failed(top_up, 1, seconds=seconds + 1))

    def dispute(self, organization: Organization) -> None:
        for top_up in self.some_order(organization):
            happens, number = self.chance.choice([withdrawn, reinstated]), self.chance.randint(1, 2)
            apply_event(happens(top_up, top_up.amount_nanos // USD, dispute=f"dp_{top_up.pk}_{number}"))

    def adjust(self, organization: Organization) -> None:
        nanos = self.chance.choice([-1, 1]) * self.chance.randint(1, USD)
        adjust_balance(organization, amount_nanos=nanos, reason="r", actor="a", idempotency_key=uuid.uuid4().hex)

    def some_order(self, organization: Organization) -> list[TopUp]:
        return list(TopUp.objects.filter(organization=organization).order_by("?")[:1])


@pytest.mark.long
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("seed", [1, 2])
def test_the_books_hold_whatever_happens_at_once(seed: int) -> None:
    make_price()
    organizations = [make_organization("Acme") for _ in range(3)]
    new = create_codes(amount_nanos=USD, reason="r", created_by="a", count=20)
    operators = [
        Operator(seed * 100 + number, organizations, [code.text for code in new]) for number in range(OPERATORS)
    ]
    assert run_together(*(operator.work for operator in operators)) == []
    for (
        top_up
    ) in TopUp.objects.all():  # What was refunded or disputed before its payment was told of has its order now.
        apply_event(paid(top_up))
    adopt_waiting()
    for organization in organizations:  # What kept lots from expiring has ended.
        expire_lots(organization, available_nanos=10**15)
    assert UsageRecord.objects.exists() and not RedemptionCode.objects.filter(redemption_count__gt=1).exists()
    assert_ledger_holds()
