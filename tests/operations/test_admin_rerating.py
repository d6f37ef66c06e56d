"""A window priced again from the admin: what would be posted is shown, another decides, a worker posts it."""

import html
import uuid
from datetime import timedelta

import pytest
from django.core.management import call_command
from pytest_django import Settings

from accounts.staff_roles import StaffRole
from billing.approvals import reratings
from billing.models import Approval, PriceVersion
from operations.jobs import BY_NAME, Job
from operations.models import JobState
from tests.billing.corrections.test_rerating_work import half_of, midnight, postings, yesterday
from tests.support.operators import operator_client
from tests.support.people import People
from tests.support.settled_usage import billed_event, sell_model, settle


@pytest.fixture
def right(people: People) -> PriceVersion:
    """The price that was right, and yesterday's two requests at the one that was not."""
    wrong = sell_model()
    settle([billed_event(people.key, wrong, at=yesterday()) for _ in range(2)])
    return half_of(wrong)


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    called: list[Job] = []
    monkeypatch.setattr("operations.reratings.run_now", called.append)
    return called


def test_from_the_price_to_the_postings(right: PriceVersion, called: list[Job], settings: Settings) -> None:
    settings.ALONE_USD = {**settings.ALONE_USD, "finance": "0"}
    fay, finn = (operator_client(name, StaffRole.FINANCE) for name in ("fay", "finn"))
    path = f"/admin/billing/priceversion/{right.pk}/rerate/"
    begins, ends = midnight().date() - timedelta(days=1), midnight().date()
    form = {"begins_on": f"{begins}", "ends_on": f"{ends}", "reason": "typo", "form_id": str(uuid.uuid4())}
    assert fay.get(path).status_code == 200
    for wrong, words in (({"ends_on": f"{begins}"}, "A window lasts"), ({"reason": ""}, "required")):
        answer = fay.post(path, {**form, **wrong})
        assert words in html.unescape(answer.content.decode())
    shown = fay.post(path, form)
    assert "alice: 2 requests," in html.unescape(shown.content.decode())
    assert not Approval.objects.exists()
    assert fay.post(path, {**form, "shown": shown.context["form"].initial["shown"]}).status_code == 302
    approval = Approval.objects.get()
    page = f"/admin/billing/approval/{approval.pk}"
    assert "A worker posts it." in finn.get(f"{page}/approve/").content.decode()
    assert finn.post(f"{page}/approve/").status_code == 302
    assert (called, postings()) == ([BY_NAME["reratings"]], 0)
    assert "0 of 2 requests so far" in finn.get(f"{page}/change/").content.decode()
    call_command("run_job", "reratings")
    assert "2 of 2 requests, the last at" in finn.get(f"{page}/change/").content.decode()
    assert (postings(), JobState.objects.get(name="reratings").failures_in_a_row) == (1, 0)
    again = fay.post(path, {**form, "form_id": str(uuid.uuid4())})
    assert "Nothing differs." in again.content.decode()


def test_a_window_that_is_too_long_for_a_page_is_asked_for_by_the_command(
    right: PriceVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reratings, "MAX_REQUESTS_ON_A_PAGE", 1)
    fay = operator_client("fay", StaffRole.FINANCE)
    days = {"begins_on": f"{midnight().date() - timedelta(days=1)}", "ends_on": f"{midnight().date()}"}
    answer = fay.post(
        f"/admin/billing/priceversion/{right.pk}/rerate/", {**days, "reason": "r", "form_id": str(uuid.uuid4())}
    )
    assert answer.status_code == 422
    assert "manage.py rerate" in answer.content.decode()
