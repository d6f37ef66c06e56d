"""Changes while requests are in flight: prices, keys, credit that expires; and clocks that jump."""

import time
from datetime import UTC, datetime, timedelta

from django.utils import timezone

from accounts.keys import revoke_key
from billing.admission.blocking import read_admission_state
from billing.admission.outbox import publish_pending_changes
from billing.catalog.price_versions import PriceDraft, approve_price_version, draft_price
from billing.catalog.snapshot import load_snapshot
from billing.credit.lots import expire_lots
from billing.credit.top_ups import grant_credit
from billing.models import CreditLot, LanguageModel
from billing.money import parse_usd
from tests.faults.scenario import Scenario
from tests.support.live_stack import MODEL

HOUR_SECONDS = 3600
REVOCATION_SECONDS = 0.05  # A request that was sent before the revocation may be admitted after it, by this much.


def price_changed(scenario: Scenario) -> None:
    """New prices become live under load: each request is priced by the version of its admission."""
    language_model = LanguageModel.objects.get(model_id=MODEL)
    catalog_model = load_snapshot().find(MODEL)
    assert catalog_model is not None
    for _ in range(3):
        now = datetime.now(UTC)
        price = catalog_model.price_at(now)
        assert price is not None
        tiers = {
            component: tuple((start, picos + scenario.chance.randint(0, 1000)) for start, picos in steps)
            for component, steps in price.tiers.items()
        }
        draft = PriceDraft(effective_from=now, source="a test", source_date=now.date(), tiers=tiers)
        approve_price_version(draft_price(language_model, draft, created_by="alice"), approved_by="bob")
        scenario.pause(0.3, 0.8)


def key_revoked(scenario: Scenario) -> None:
    """After the revocation has reached Redis, nothing that is sent with the key is served."""
    tenant = scenario.tenants[1]
    scenario.pause()
    revoke_key(tenant.key, revoked_by=None)
    publish_pending_changes()
    revoked_at = time.time()
    scenario.load.wait_for_answers(30)
    late = [
        answer
        for answer in list(scenario.load.answers)
        if answer.secret == tenant.secret and answer.began_at > revoked_at + REVOCATION_SECONDS and answer.status == 200
    ]
    scenario.notes += [f"I7 request {answer.request_id} was served with a revoked key" for answer in late]


def lot_expired(scenario: Scenario) -> None:
    """Credit expires while it is held and spent; what is in flight stays covered."""
    organization = scenario.poor.organization
    grant_credit(
        organization,
        amount_nanos=parse_usd("0.2"),
        kind=CreditLot.Kind.PROMOTIONAL,
        reason="for a test",
        actor="test",
        idempotency_key=f"expiring:{organization.pk}",
        expires_at=timezone.now() + timedelta(seconds=scenario.chance.uniform(1.5, 2.5)),
    )
    publish_pending_changes()
    scenario.crowd_on(scenario.poor)
    scenario.pause(2.0, 3.0)
    scenario.crowd_on(None)
    ends_at = time.monotonic() + 5
    while time.monotonic() < ends_at:
        state = read_admission_state(organization.pk)
        available = 0 if state is None else max(0, state.available_nanos)
        if not expire_lots(organization, available_nanos=available).left_nanos:
            break
        publish_pending_changes()
        time.sleep(0.2)
    publish_pending_changes()


def clock_put_forward(scenario: Scenario) -> None:
    _move_clock(scenario, HOUR_SECONDS)


def clock_put_back(scenario: Scenario) -> None:
    _move_clock(scenario, -HOUR_SECONDS)


def _move_clock(scenario: Scenario, seconds: int) -> None:
    """The clock of Redis, gateway and worker jumps; a gateway dies in the new time; then the clock is right again."""
    scenario.rate_states_lost += 2  # Each jump leaves behind what was taken by the other time.
    scenario.pause()
    scenario.stack.move_all_clocks(seconds)
    scenario.load.wait_for_answers(20)
    scenario.stack.kill_gateway()
    scenario.stack.start_gateway()
    scenario.load.wait_for_answers(20)
    scenario.stack.move_all_clocks(0)


def gateway_clock_put_forward(scenario: Scenario) -> None:
    _move_gateway_clock(scenario, HOUR_SECONDS)


def gateway_clock_put_back(scenario: Scenario) -> None:
    _move_gateway_clock(scenario, -HOUR_SECONDS)


def _move_gateway_clock(scenario: Scenario, seconds: int) -> None:
    """The clock of the gateway alone jumps; it dies there; then it is right again. It decides nothing about money."""
    assert scenario.stack.gateway_clock is not None
    scenario.pause()
    scenario.stack.gateway_clock.move(seconds)
    scenario.load.wait_for_answers(20)
    scenario.stack.kill_gateway()
    scenario.stack.start_gateway()
    scenario.load.wait_for_answers(20)
    scenario.stack.gateway_clock.move(0)
