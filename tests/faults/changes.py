"""Changes while requests are in flight: prices, keys, credit that expires; and clocks that jump."""

import time
from datetime import UTC, datetime, timedelta

from django.utils import timezone

from accounts.keys import revoke_key
from billing.admission.feed import publish_pending_changes
from billing.admission.worker import read_figures
from billing.catalog.snapshot import load_snapshot
from billing.credit_lots import expire_lots
from billing.models import CreditLot, LanguageModel
from billing.money import parse_usd
from billing.prices import PriceDraft, approve_price_version, draft_price
from billing.top_ups import grant_credit
from tests.faults.stage import Stage
from tests.support.world import MODEL

HOUR_SECONDS = 3600
REVOCATION_SECONDS = 0.05  # A request that was sent before the revocation may be admitted after it, by this much.


def price_changed(stage: Stage) -> None:
    """New prices become live under load: each request is priced by the version of its admission."""
    language_model = LanguageModel.objects.get(model_id=MODEL)
    offered = load_snapshot().find(MODEL)
    assert offered is not None
    for _ in range(3):
        now = datetime.now(UTC)
        price = offered.price_at(now)
        assert price is not None
        tiers = {
            component: tuple((start, picos + stage.chance.randint(0, 1000)) for start, picos in steps)
            for component, steps in price.tiers.items()
        }
        draft = PriceDraft(effective_from=now, source="a test", source_date=now.date(), tiers=tiers)
        approve_price_version(draft_price(language_model, draft, created_by="alice"), approved_by="bob")
        stage.pause(0.3, 0.8)


def key_revoked(stage: Stage) -> None:
    """After the revocation has reached Redis, nothing that is sent with the key is served."""
    caller = stage.callers[1]
    stage.pause()
    revoke_key(caller.key, revoked_by=None)
    publish_pending_changes()
    revoked_at = time.time()
    stage.load.wait_for_answers(30)
    late = [
        answer
        for answer in list(stage.load.answers)
        if answer.secret == caller.secret and answer.began_at > revoked_at + REVOCATION_SECONDS and answer.status == 200
    ]
    stage.notes += [f"I7 request {answer.request_id} was served with a revoked key" for answer in late]


def lot_expired(stage: Stage) -> None:
    """Credit expires while it is held and spent; what is in flight stays covered."""
    organization = stage.poor.organization
    grant_credit(
        organization,
        amount_nanos=parse_usd("0.2"),
        kind=CreditLot.Kind.PROMOTIONAL,
        reason="for a test",
        actor="test",
        idempotency_key=f"expiring:{organization.pk}",
        expires_at=timezone.now() + timedelta(seconds=stage.chance.uniform(1.5, 2.5)),
    )
    publish_pending_changes()
    stage.crowd_on(stage.poor)
    stage.pause(2.0, 3.0)
    stage.crowd_on(None)
    ends_at = time.monotonic() + 5
    while time.monotonic() < ends_at:
        figures = read_figures(organization.pk)
        available = 0 if figures is None else max(0, figures.available_nanos)
        if not expire_lots(organization, available_nanos=available).left_nanos:
            break
        publish_pending_changes()
        time.sleep(0.2)
    publish_pending_changes()


def clock_put_forward(stage: Stage) -> None:
    _move_clock(stage, HOUR_SECONDS)


def clock_put_back(stage: Stage) -> None:
    _move_clock(stage, -HOUR_SECONDS)


def _move_clock(stage: Stage, seconds: int) -> None:
    """The clock of Redis, gateway and worker jumps; a gateway dies in the new time; then the clock is right again."""
    assert stage.world.clock is not None
    stage.rate_states_lost += 2  # Each jump leaves behind what was taken by the other time.
    stage.pause()
    stage.world.clock.move(seconds)
    stage.load.wait_for_answers(20)
    stage.world.kill_gateway()
    stage.world.start_gateway()
    stage.load.wait_for_answers(20)
    stage.world.clock.move(0)
