"""What providers say of our accounts and prices: read, kept, shown where somebody looks, and never obeyed by itself."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.utils import timezone

from accounts.staff_roles import StaffRole
from billing.catalog.price_versions import PriceDraft, approve_price_version, discard_price_version, draft_price
from billing.models import LanguageModel, OutgoingMail, PriceVersion, Route, Upstream
from operations.models import ProviderBalance
from operations.provider_accounts import draft_drifts, find_drifts, watch_balances
from operations.status import read_status
from tests.support.operators import make_operator
from tests.support.provider_account import Provider, asked_provider
from tests.support.settled_usage import sell_model

pytestmark = pytest.mark.django_db


@pytest.fixture
def provider(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    with asked_provider(settings, monkeypatch) as made:
        yield made


def told() -> tuple[str, bool]:
    [line] = [line for line in read_status() if line.name == "balance at acme"]
    return line.says, line.needs_a_person


def test_an_account_that_runs_dry_is_told_before_it_is_empty(provider: Provider, settings: Any) -> None:
    provider.answers["/credits"] = {"data": {"total_credits": 500.25, "total_usage": 120.5}}
    assert watch_balances(now=timezone.now()) == 1
    assert told() == ("$379.75", False)
    provider.answers["/credits"] = {"data": {"total_credits": 500, "total_usage": 450}}
    watch_balances(now=timezone.now())
    assert told() == ("$50.00", True)
    for answer in (
        None,
        {},
        {"data": {"total_credits": "x", "total_usage": 1}},
        {"data": {"total_credits": 1e300, "total_usage": 0}},
    ):
        provider.answers["/credits"] = answer
        assert watch_balances(now=timezone.now()) == 0
    assert told()[1], "Nobody knows how much is left."
    assert ProviderBalance.objects.get().balance_nanos == 50 * 10**9, "What was known last stays."
    settings.PROVIDER_BALANCES = {}
    watch_balances(now=timezone.now())
    assert not ProviderBalance.objects.exists()


def test_a_price_that_differs_becomes_one_draft_and_changes_nothing(provider: Provider) -> None:
    sell_model("acme/large")
    model, upstream = LanguageModel.objects.get(), Upstream.objects.get(name="acme")
    Route.objects.create(language_model=model, upstream=upstream, upstream_model="large-v1")
    tiers = {"input": ((0, 2_000_000), (200_000, 4_000_000)), "output": ((0, 10_000_000),)}
    charged = PriceDraft(timezone.now(), "contract", timezone.now().date(), tiers, upstream=upstream)
    approve_price_version(draft_price(model, charged, created_by="alice"), approved_by="bob")
    listed = {"id": "large-v1", "pricing": {"prompt": "0.000002", "completion": "0.00001", "input_cache_read": "0"}}
    provider.answers["/models"] = {"data": [listed, {"id": "other", "pricing": {"prompt": "9"}}]}
    assert list(find_drifts()) == []
    listed["pricing"]["completion"] = "0.000012"  # type: ignore[index]
    [drift] = find_drifts()
    assert str(drift) == "acme large-v1: output is 12,000,000 pico-dollars there and 10,000,000 here"
    before = PriceVersion.objects.filter(approved_at__isnull=False).count()
    fay = make_operator("fay", StaffRole.FINANCE)
    assert [draft_drifts(now=timezone.now()) for _ in range(2)] == [1, 0], "Asked again, it is the same draft."
    assert [(mail.user, mail.template) for mail in OutgoingMail.objects.all()] == [(fay, "price_drafts")]
    draft = PriceVersion.objects.get(approved_at=None)
    amounts = set(draft.components.values_list("component", "prompt_tokens_from", "picos_per_unit"))
    assert amounts == {("input", 0, 2_000_000), ("input", 200_000, 4_000_000), ("output", 0, 12_000_000)}
    assert draft.created_by == "job:price_drift"
    assert PriceVersion.objects.filter(approved_at__isnull=False).count() == before
    discard_price_version(draft, by=fay, reason="They told us that it is an error.")
    assert draft_drifts(now=timezone.now()) == 0, "Somebody said no to this."
    newer = {**tiers, "output": ((0, 11_000_000),)}
    charged = PriceDraft(timezone.now(), "contract", timezone.now().date(), newer, upstream=upstream)
    approve_price_version(draft_price(model, charged, created_by="alice"), approved_by="bob")
    assert draft_drifts(now=timezone.now()) == 1, "They said it of another price."
    listed["pricing"]["completion"] = "-1"  # type: ignore[index]
    assert list(find_drifts()) == [], "A negative price is none."
