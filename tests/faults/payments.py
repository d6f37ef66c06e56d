"""Payments while their messages are lost, doubled, late or turned round, and while who hears or charges them is killed.

Customers order, pay, dispute and are paid back at the sandbox payment provider, whose own memory is the oracle: in the
end each order is credited exactly where the provider has its money, and exactly what went back is taken back.
"""

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial

from django.test import override_settings
from django.utils import timezone

from billing.checks import run_checks
from billing.checks.payments import PAYMENT_CHECKS
from billing.corrections.refunds import adjust_balance
from billing.ledger.statements import posted_nanos
from billing.models import TopUp
from billing.money import NANOS_PER_CENT, NANOS_PER_USD
from billing.payments.automatic import run_automatic_top_ups
from billing.payments.automatic_settings import Choice, ask_for_card, choose
from billing.payments.events import apply_event
from billing.payments.orders import open_payment_page, place_order
from billing.payments.provider import CardSaved, SavedCard
from billing.payments.providers import find_provider
from billing.payments.pull import pull_orders
from tests.faults.scenario import Scenario
from tests.support.live_stack import Tenant
from tests.support.payment_sandbox import SECRET, PaymentSandbox, wait_until

ORDERS = 10
ENDINGS = ("pay", "pay", "later", "free", "decline")
STEPS = ("refund_half", "dispute", "refund", "win", "fail_refund")
HEARD_SECONDS = 60.0
SLOW_SECONDS = 1.5  # Between the charge and its answer: the worker is killed within it.
KILLS = 3


def payment_messages_lost(scenario: Scenario) -> None:
    """Nothing that the provider tells arrives: what was paid is found by asking."""
    _pay_under(scenario, "lose")


def payment_messages_doubled(scenario: Scenario) -> None:
    _pay_under(scenario, "double")


def payment_messages_late(scenario: Scenario) -> None:
    """Each first attempt is put off, so that disputes and refunds are heard of before their payments."""
    _pay_under(scenario, "late")


def payment_messages_reversed(scenario: Scenario) -> None:
    _pay_under(scenario, "reverse")


def gateway_killed_among_payment_messages(scenario: Scenario) -> None:
    """The process that hears of payments is killed in the middle: what was not answered with 2xx is told again."""

    def kill() -> None:
        scenario.stack.kill_gateway()
        scenario.pause()
        scenario.stack.start_gateway()

    _pay_under(scenario, "double", strike=kill)


def worker_killed_between_charge_and_posting(scenario: Scenario) -> None:
    """The provider has charged the card; the worker that asked for it is killed before it could post the payment."""
    with _payments(scenario) as sandbox:
        tenant = scenario.rich
        _turn_on_automatic_top_up(tenant)
        sandbox.control(webhooks="lose", answer_after=SLOW_SECONDS)
        for _ in range(KILLS):
            _empty_balance(tenant)
            wait_until(partial(_has_more_orders, tenant, _automatic_orders(tenant)), "A card is charged")
            time.sleep(scenario.chance.uniform(0.1, SLOW_SECONDS))
            scenario.stack.kill_worker()
            scenario.stack.start_worker()
            run_automatic_top_ups(now=timezone.now() + timedelta(minutes=5))
        sandbox.control(webhooks="", answer_after=0)
        run_automatic_top_ups(now=timezone.now() + timedelta(minutes=5))
        _ask()
        scenario.notes += _differences(sandbox)


def _pay_under(scenario: Scenario, disorder: str, strike: Callable[[], None] | None = None) -> None:
    with _payments(scenario) as sandbox:
        sandbox.control(webhooks=disorder)
        orders = [_order(scenario, sandbox) for _ in range(ORDERS)]
        if strike is not None:
            strike()
        for top_up in orders:
            for step in scenario.chance.sample(STEPS, k=scenario.chance.randrange(len(STEPS))):
                _step(sandbox, top_up, step)
        scenario.pause()
        sandbox.control(webhooks="")
        wait_until(
            lambda: all(line.startswith("heard") for line in sandbox.events()), "All is heard", seconds=HEARD_SECONDS
        )
        if disorder == "lose":
            _ask()
        scenario.notes += _differences(sandbox)


@contextmanager
def _payments(scenario: Scenario) -> Iterator[PaymentSandbox]:
    """Let the stack and this process take payments at a sandbox payment provider of their own."""
    stack = scenario.stack
    with PaymentSandbox(webhook_url=f"{stack.base_url}/webhooks/sandbox/") as sandbox:
        added = {
            "CROSSMODEL_PAYMENT_PROVIDER": "sandbox",
            "CROSSMODEL_PAYMENT_SANDBOX_URL": sandbox.url,
            "CROSSMODEL_PAYMENT_SANDBOX_SECRET": SECRET,
            "CROSSMODEL_PAYMENT_SECONDS": "0.3",
        }
        stack.overrides.update(added)
        try:
            _restart(scenario)
            with override_settings(
                PAYMENT_PROVIDER="sandbox", PAYMENT_SANDBOX_URL=sandbox.url, PAYMENT_SANDBOX_SECRET=SECRET
            ):
                yield sandbox
        finally:
            for name in added:
                del stack.overrides[name]
            _restart(scenario)


def _restart(scenario: Scenario) -> None:
    scenario.stack.kill_worker()
    scenario.stack.kill_gateway()
    scenario.stack.start_worker()
    scenario.stack.start_gateway()


def _order(scenario: Scenario, sandbox: PaymentSandbox) -> TopUp:
    """Order and pay in one of several ways, by a member of one of the tenants."""
    top_up = place_order(
        scenario.chance.choice(scenario.tenants).organization,
        amount_nanos=scenario.chance.randrange(500, 5_000) * NANOS_PER_CENT,
        provider="sandbox",
        idempotency_key=uuid.uuid4().hex,
        actor="a member",
    )
    url = open_payment_page(top_up, find_provider("sandbox"), customer_email="", return_url="", cancel_url="")
    ending = scenario.chance.choice(ENDINGS)
    sandbox.choose(url, ending)
    top_up.refresh_from_db()
    if ending == "later":
        sandbox.step(top_up.checkout_id, scenario.chance.choice(("arrive", "bounce")))
    return top_up


def _step(sandbox: PaymentSandbox, top_up: TopUp, step: str) -> None:
    if sandbox.checkout(top_up.reference)["status"] == "paid" and sandbox.checkout(top_up.reference).get("charge"):
        try:
            sandbox.step(top_up.checkout_id, step)
        except OSError:
            return  # The provider refuses it: nothing is left to pay back, or it is disputed.


def _turn_on_automatic_top_up(tenant: Tenant) -> None:
    reference = ask_for_card(tenant.organization).card_reference
    apply_event(CardSaved("sandbox", reference, SavedCard("cus_1", "pm_1", "A card"), timezone.now()))
    wanted = Choice(True, 10 * NANOS_PER_USD, 20 * NANOS_PER_USD, 10**13, 10**14, 20, 200)
    choose(tenant.organization, wanted, actor="a member")


def _empty_balance(tenant: Tenant) -> None:
    balance = posted_nanos(tenant.organization)
    if balance > 0:
        adjust_balance(
            tenant.organization,
            amount_nanos=-balance,
            reason="for a test",
            actor="test",
            idempotency_key=uuid.uuid4().hex,
        )


def _has_more_orders(tenant: Tenant, before: int) -> bool:
    return _automatic_orders(tenant) > before


def _automatic_orders(tenant: Tenant) -> int:
    return TopUp.objects.filter(organization=tenant.organization, origin=TopUp.Origin.AUTOMATIC).count()


def _ask() -> None:
    """Do what the worker does in the days to come."""
    for days in (0.1, 2, 8):
        pull_orders(now=timezone.now() + timedelta(days=days))


def _differences(sandbox: PaymentSandbox) -> list[str]:
    """Compare every order with what the provider remembers of it, and ask the invariants of payments."""
    found = list(run_checks(PAYMENT_CHECKS).breaks)
    for top_up in TopUp.objects.filter(provider="sandbox", created_at__gt=timezone.now() - timedelta(minutes=10)):
        try:
            checkout = sandbox.checkout(top_up.reference)
        except OSError:
            continue  # Of an earlier run, at another provider.
        is_paid = checkout["status"] == "paid"
        gone = checkout["refunded_cents"] if is_paid else 0
        gone += sum(each["amount_cents"] for each in checkout.get("disputes", ()) if not each["reinstated_at"])
        expected = min(top_up.amount_nanos, gone * NANOS_PER_CENT) if checkout.get("charge") else 0
        if is_paid != (top_up.ledger_transaction_id is not None) or top_up.reversed_nanos != expected:
            found.append(
                f"I11 {top_up} is {top_up.state}, {top_up.reversed_nanos} taken back; the provider says"
                f" {checkout['status']}, {expected} gone back"
            )
    return found
