"""The stage of one run: a world under load, tenants of its own, and what the fault excuses."""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from accounts.models import AdmissionChange
from billing.models import UsageRecord
from tests.faults.invariants import Evidence, describe_answers, find_violations, is_quiet, summarize
from tests.support.durable_world import DurableWorld
from tests.support.load import CLIENTS, Load, Order
from tests.support.world import Caller, body

WARM_UP_ANSWERS = 20
BACK_SECONDS = 60.0  # After the fault is healed, service is expected back within this.
QUIET_SECONDS = 60.0
QUIET_FOR_SECONDS = 0.6  # Longer than two pulses and two heartbeats: what is still under way shows by then.
POLL_SECONDS = 0.1
MAX_TOKENS = 400
LIMITED_REQUESTS_PER_MINUTE = 60
POOR_USD = "0.03"


@dataclass
class Stage:
    """`rate_states_lost`, `holds_lost` and `poison_events` are set by a fault that excuses them; see Evidence."""

    world: DurableWorld
    chance: random.Random
    callers: Sequence[Caller]
    load: Load
    poison_events: int = 0
    rate_states_lost: int = 0
    holds_lost: bool = False
    troubles: Sequence[str] = ()
    trouble_share: float = 0.0
    wishes: str = ""
    crowded: Caller | None = None
    leaving_share: float = 0.0
    slow_share: float = 0.0
    notes: list[str] = field(default_factory=list)

    @property
    def rich(self) -> Caller:
        return self.callers[0]

    @property
    def poor(self) -> Caller:
        return self.callers[2]

    def crowd_on(self, caller: Caller | None, *, wishes: str = "") -> None:
        """Let all clients act as one caller, with these directives; as before for None."""
        self.crowded, self.wishes = caller, wishes

    def pause(self, low_seconds: float = 0.1, high_seconds: float = 0.8) -> None:
        """Let a while pass that the seed chooses: this is what makes each seed hit another moment."""
        time.sleep(self.chance.uniform(low_seconds, high_seconds))


@dataclass(frozen=True)
class Run:
    fault: str
    seed: int
    violations: Sequence[str]
    figures: dict[str, int]
    seconds: float
    answers: str = ""


def run_fault(
    world: DurableWorld, name: str, inflict: Callable[[Stage], None], *, seed: int, clients: int = CLIENTS
) -> Run:
    """Put the world under load, inflict the fault, wait until all is healed and quiet, and judge."""
    started = time.monotonic()
    stage = set_stage(world, name, seed=seed, clients=clients)
    first_call = len(world.sandbox.journal())
    stage.load.start()
    try:
        stage.load.wait_for_answers(WARM_UP_ANSWERS)
        records = UsageRecord.objects.filter(organization_id=stage.rich.organization.pk)
        world.wait_until(records.exists, "the worker settles")
        inflict(stage)
        world.reconnect()
        stage.load.wait_for_answers(WARM_UP_ANSWERS, seconds=BACK_SECONDS)
    except AssertionError as error:
        stage.notes.append(f"P4 service did not come back: {error}")
    finally:
        answers = stage.load.stop()
        world.sandbox.clear()
    violations = [*stage.notes, *wait_for_quiet()]
    world.reconnect()
    evidence = Evidence.collect(stage.callers, answers, world.sandbox.journal()[first_call:])
    evidence.poison_events = stage.poison_events
    evidence.rate_states_lost = stage.rate_states_lost
    evidence.holds_lost = stage.holds_lost
    violations += find_violations(world, evidence)
    return Run(name, seed, violations, summarize(evidence), time.monotonic() - started, describe_answers(answers))


def set_stage(world: DurableWorld, name: str, *, seed: int, clients: int) -> Stage:
    """Make tenants: two who can pay, one who soon cannot, and one with a limit that the load exceeds."""
    callers = [
        world.caller(credit_usd="100"),
        world.caller(credit_usd="50"),
        world.caller(credit_usd=POOR_USD),
        world.caller(credit_usd="50", key={"requests_per_minute": LIMITED_REQUESTS_PER_MINUTE}),
    ]
    stage = Stage(world, random.Random(f"{name}/{seed}"), callers, Load(world.base_url, _no_order, seed, clients))
    stage.load.make_order = lambda chance: make_order(stage, chance)
    return stage


def make_order(stage: Stage, chance: random.Random) -> Order:
    """Return a request that runs for some 0.1 to 0.6 s, so that many are in flight when the fault comes."""
    [caller] = [stage.crowded] if stage.crowded else chance.choices(stage.callers, weights=(6, 4, 1, 1))
    is_streamed = bool(stage.wishes) or chance.random() < 0.6
    pace = chance.randrange(5, 40) if is_streamed else 0
    delay = chance.randrange(0, 300)
    wishes = stage.wishes or f"tokens={chance.randrange(5, 80)}; pace={pace}; delay={delay}"
    troubles = stage.troubles
    if troubles and chance.random() < stage.trouble_share:
        wishes += "; " + chance.choice(troubles)
    fields = {"stream": True} if is_streamed else {}
    return Order(
        caller.secret,
        body(f"Tell me a story. [[sandbox: {wishes}]]", max_tokens=MAX_TOKENS, **fields),
        # A sixth of the replies that are not streamed is asked for twice under one idempotency key.
        idempotency_key=f"{chance.random()}" if not is_streamed and chance.random() < 0.16 else "",
        leave_after=chance.uniform(0.005, 0.5) if chance.random() < stage.leaving_share else None,
        is_slow=chance.random() < stage.slow_share,
    )


def _no_order(chance: random.Random) -> Order:
    raise AssertionError("The stage has not said what to order.")


def wait_for_quiet() -> list[str]:
    """Return once nothing is held, waits or is to be published for a while; a violation when that does not come."""
    ends_at = time.monotonic() + QUIET_SECONDS
    quiet_since = None
    while time.monotonic() < ends_at:
        if is_quiet() and not AdmissionChange.objects.exists():
            quiet_since = quiet_since or time.monotonic()
            if time.monotonic() - quiet_since > QUIET_FOR_SECONDS:
                return []
        else:
            quiet_since = None
        time.sleep(POLL_SECONDS)
    return [f"I8 it is not quiet after {QUIET_SECONDS:g} s"]
