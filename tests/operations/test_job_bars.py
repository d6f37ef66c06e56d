"""Every job of the registry shows on a terminal how far it is, when it has something to do."""

import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from datetime import date, timedelta
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
from django.core.management import call_command
from django.db import connection
from django.utils import timezone

from billing.payments.orders import open_payment_page
from billing.payments.providers import find_provider
from billing.payments.recurring import include_monthly
from billing.privacy.retention import choose_retention
from billing.watching import watching
from operations.jobs import BY_NAME
from operations.management.progress import show_progress
from tests.billing.corrections.test_rerating_work import decided
from tests.billing.ledger_factory import USD, give
from tests.billing.payments.payment_factory import order
from tests.support.payment_sandbox import SECRET, PaymentSandbox
from tests.support.people import People
from tests.support.provider_account import asked_provider
from tests.support.settled_usage import billed_event, sell_model, settle
from tests.support.spending import raise_some_alert, spend

ROOT = Path(__file__).resolve().parents[2]
BAR = re.compile(r"\r(\[#+ *\] )?[0-9,]+")
LONG_AGO = timedelta(days=40)


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


class Due:
    """Makes something for a job to do. A job without a method of its name finds something in every installation."""

    def __init__(self, people: People, settings: Any, monkeypatch: pytest.MonkeyPatch, until: ExitStack) -> None:
        self.people = people
        self.settings = settings
        self.monkeypatch = monkeypatch
        self.until = until

    def retention(self) -> None:
        settle([billed_event(self.people.key, sell_model(), at=timezone.now() - LONG_AGO)])
        choose_retention(self.people.organization, details_days=30, actor="alice@example.org")

    def alerts(self) -> None:
        spend(self.people.organization, USD)

    def notices(self) -> None:
        raise_some_alert(self.people.organization)

    def documents(self) -> None:
        give(self.people.organization, 10 * USD, kind="paid")

    def payments(self) -> None:
        include_monthly(
            self.people.organization, amount_nanos=USD, first_month=date(2026, 1, 1), reason="r", created_by="fay"
        )

    def payment_lists(self) -> None:
        sandbox = self.until.enter_context(PaymentSandbox())
        self.settings.PAYMENT_PROVIDER = "sandbox"
        self.settings.PAYMENT_SANDBOX_URL, self.settings.PAYMENT_SANDBOX_SECRET = sandbox.url, SECRET
        top_up = order(self.people.organization, 10, provider="sandbox")
        provider = find_provider("sandbox")
        open_payment_page(top_up, provider, customer_email="a@example.org", return_url="", cancel_url="")
        top_up.refresh_from_db()
        sandbox.choose(top_up.checkout_url, "pay")

    def reratings(self) -> None:
        self.settings.ALONE_USD = {**self.settings.ALONE_USD, "finance": "0"}
        decided(self.people)

    def provider_balances(self) -> None:
        self.until.enter_context(asked_provider(self.settings, self.monkeypatch))

    def price_drift(self) -> None:
        provider = self.until.enter_context(asked_provider(self.settings, self.monkeypatch))
        provider.answers["/models"] = {"data": []}


@pytest.mark.django_db
@pytest.mark.parametrize("name", BY_NAME)
def test_a_job_shows_how_far_it_is(
    people: People, redis_client: redis.Redis, settings: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    terminal = Terminal()
    with ExitStack() as until:
        make_due: Callable[[], None] | None = getattr(Due(people, settings, monkeypatch, until), name, None)
        if make_due is not None:
            make_due()
        with watching(partial(show_progress, stream=terminal)):
            call_command("run_job", name, stdout=StringIO())
    assert BAR.search(terminal.getvalue())


@pytest.mark.django_db(transaction=True)
def test_the_command_draws_on_a_real_terminal(people: People) -> None:
    address = urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{connection.settings_dict['NAME']}")
    environment = {**os.environ, "DATABASE_URL": address.geturl()}
    screen, terminal = pty.openpty()
    command = [sys.executable, "manage.py", "run_job", "due_work"]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=terminal) as process:
        os.close(terminal)
        told = b""
        with suppress(OSError):  # The terminal is gone with its last writer.
            while more := os.read(screen, 4096):
                told += more
    os.close(screen)
    assert process.returncode == 0, told
    assert BAR.search(told.decode())
