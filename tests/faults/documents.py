"""A month that is closed by several at once, one of whom is killed: each invoice is written once, without a gap."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial

from django.db import connections, transaction

from accounts.outbox import record_organization_change
from billing.admission.outbox import publish_pending_changes
from billing.checks import run_checks
from billing.checks.documents import DOCUMENT_CHECKS
from billing.documents.closing import last_month_over
from billing.documents.invoices import close_month
from billing.models import Document
from tests.billing.documents.months import Customer, sell
from tests.billing.ledger_factory import USD, make_organization
from tests.faults.scenario import Scenario
from tests.support.live_stack import ROOT
from tests.support.payment_sandbox import wait_until

CUSTOMERS = 12
CLOSERS = 2  # Beside the process that is killed.
CLOSING_SECONDS = 60.0


def closings_at_once_and_one_killed(scenario: Scenario) -> None:
    """Everybody closes last month in another order; a process that is at it dies; then it is closed once more."""
    month = last_month_over()
    customers = _history(scenario)
    process = subprocess.Popen(
        [sys.executable, "manage.py", "close_month", str(month)],
        cwd=ROOT,
        env=scenario.stack.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: _invoices(customers) > 0 or process.poll() is not None, "A first invoice is written")
        closers = [
            threading.Thread(target=_close_all, args=(scenario, scenario.chance.sample(customers, k=len(customers))))
            for _ in range(CLOSERS)
        ]
        for closer in closers:
            closer.start()
        os.kill(process.pid, signal.SIGKILL)
        for closer in closers:
            closer.join(CLOSING_SECONDS)
    finally:
        process.kill()
        process.wait()
    _close_all(scenario, customers)
    scenario.notes += run_checks(DOCUMENT_CHECKS).breaks
    for customer in customers:
        count = Document.objects.filter(organization=customer.organization, kind=Document.Kind.INVOICE).count()
        if count != 1:
            scenario.notes.append(f"I12 organization {customer.organization.pk} has {count} invoices of {month}")


def _history(scenario: Scenario) -> list[Customer]:
    """Return organizations that used something last month, and had paid for it."""
    month, run = last_month_over(), f"{scenario.chance.getrandbits(40):x}"
    moment = month.begins + (month.ends - month.begins) / 2
    version = sell(f"acme/{run}")
    customers = [Customer(make_organization(f"Closed-{run}-{number}")) for number in range(CUSTOMERS)]
    for customer in customers:
        customer.give(10 * USD, moment)
        customer.use(version, moment, input_tokens=scenario.chance.randrange(1, 10_000), output_tokens=1)
        with transaction.atomic():  # No gateway sent this, so no confirmation tells Redis.
            record_organization_change(customer.organization)
    publish_pending_changes()
    return customers


def _close_all(scenario: Scenario, customers: list[Customer]) -> None:
    try:
        for customer in customers:
            _noting(scenario, customer, partial(close_month, customer.organization, last_month_over()))
    finally:
        connections.close_all()


def _noting(scenario: Scenario, customer: Customer, close: Callable[[], object]) -> None:
    """Close it. Whatever stops that is a break: nobody has to try again because somebody else closes too."""
    try:
        close()
    except Exception as error:
        scenario.notes.append(f"I12 closing {customer.organization.pk} met {type(error).__name__}: {error}")


def _invoices(customers: list[Customer]) -> int:
    return Document.objects.filter(organization__in=[customer.organization for customer in customers]).count()
