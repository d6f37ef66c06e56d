"""The stage of one run: a world under load, tenants of its own, and what the fault excuses."""

import random
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from accounts.models import AdmissionChange
from billing.admission.topology import SENTINEL, SINGLE
from billing.models import UsageRecord
from tests.faults.invariants import Evidence, describe_answers, find_violations, is_quiet, spool_is_settled, summarize
from tests.faults.movements import Rerating, make_codes
from tests.faults.office import Office
from tests.support.durable_world import DurableWorld
from tests.support.load import CLIENTS, Load, Order
from tests.support.redis_topologies import RedisNode
from tests.support.world import Caller, body

WARM_UP_ANSWERS = 20
BACK_SECONDS = 60.0  # After the fault is healed, service is expected back within this.
QUIET_SECONDS = 60.0
QUIET_FOR_SECONDS = 0.6  # Longer than two pulses and two heartbeats: what is still under way shows by then.
POLL_SECONDS = 0.1
MAX_TOKENS = 400
POOR_USD = "0.03"
# A request reserves MAX_TOKENS of output and about half its bytes of input, and uses far less of both: each of these
# is reached within seconds, by a key and by an organization that has two of them.
KEY_LIMITS = {"input_tokens_per_minute": 400, "output_tokens_per_minute": 450}
ORGANIZATION_LIMITS: dict[str, Any] = {
    "requests_per_minute": 40,
    "input_tokens_per_minute": 700,
    "output_tokens_per_minute": 900,
}
LIMITED_REQUESTS_PER_MINUTE = 30
CONCURRENT_REQUESTS = 2
# How often each is acted for: rich, well off, poor, limited in requests, in tokens; the two keys of one organization.
WEIGHTS = (6, 4, 1, 2.5, 3, 1.5, 1.5)


@dataclass
class Stage:
    """A fault sets what it excuses: `rate_states_lost`, `holds_lost`, `keys_forgotten_at` and `poison_events`, of which
    Evidence tells, and `office.loses_movements`.
    """

    world: DurableWorld
    chance: random.Random
    callers: Sequence[Caller]
    load: Load
    office: Office
    poison_events: int = 0
    rate_states_lost: int = 0
    holds_lost: bool = False
    keys_forgotten_at: float | None = None
    troubles: Sequence[str] = ()
    trouble_share: float = 0.0
    wishes: str = ""
    crowded: Caller | None = None
    leaving_share: float = 0.0
    slow_share: float = 0.0
    notes: list[str] = field(default_factory=list)
    supervise: Callable[[], None] = lambda: None  # Called all the while until it is quiet.

    @property
    def rich(self) -> Caller:
        return self.callers[0]

    @property
    def poor(self) -> Caller:
        return self.callers[2]

    def crowd_on(self, caller: Caller | None, *, wishes: str = "") -> None:
        """Let all clients act as one caller, with these directives; as before for None."""
        self.crowded, self.wishes = caller, wishes

    def strike_redis(self) -> RedisNode:
        """Return the Redis that the fault is to strike. A Sentinel may make its replica, which may lag, master."""
        if self.world.redis.kind == SENTINEL:
            self.rate_states_lost += 1
        return self.chance.choice(self.world.redis.masters())

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
    commit: str = ""
    topology: str = SINGLE


def run_fault(
    world: DurableWorld, name: str, inflict: Callable[[Stage], None], *, seed: int, clients: int = CLIENTS
) -> Run:
    """Put the world under load, inflict the fault, wait until all is healed and quiet, and judge."""
    started = time.monotonic()
    stage = set_stage(world, name, seed=seed, clients=clients)
    first_call = len(world.sandbox.journal())
    stage.load.start()
    stage.office.open()
    try:
        stage.load.wait_for_answers(WARM_UP_ANSWERS)
        records = UsageRecord.objects.filter(organization_id=stage.rich.organization.pk)
        world.wait_until(records.exists, "the worker settles")
        inflict(stage)
        world.reconnect()
        stage.load.wait_for_answers(WARM_UP_ANSWERS, seconds=BACK_SECONDS)
    except AssertionError as error:
        stage.notes.append(f"P4 service did not come back: {str(error).splitlines()[0]}")
    finally:
        answers = stage.load.stop()
        stage.office.close()
        world.sandbox.clear()
    world.reconnect()
    violations = _attempt("repeating all movements", stage.office.repeat_all)
    violations += [*stage.notes, *wait_for_quiet(world, supervise=stage.supervise)]
    violations += _attempt("the re-rating", stage.office.price_again)
    violations += wait_for_quiet(world, 0.0)
    world.reconnect()
    evidence = Evidence.collect(stage.callers, answers, world.sandbox.journal()[first_call:])
    evidence.poison_events = stage.poison_events
    evidence.rate_states_lost = stage.rate_states_lost
    evidence.holds_lost = stage.holds_lost
    evidence.keys_forgotten_at = stage.keys_forgotten_at
    violations += [*stage.office.violations(), *find_violations(world, evidence)]
    figures = {**summarize(evidence), **stage.office.figures()}
    seconds = time.monotonic() - started
    return Run(name, seed, violations, figures, seconds, describe_answers(answers), topology=world.redis.kind)


def _attempt(what: str, act: Callable[[], None]) -> list[str]:
    """Do what must work now that all is healed. That it does not is a finding, and must not hide the others."""
    try:
        act()
    except Exception as error:
        return [f"P4 {what} met {type(error).__name__}: {error}"]
    return []


def set_stage(world: DurableWorld, name: str, *, seed: int, clients: int) -> Stage:
    """Make tenants: two who can pay, one who soon cannot, and three whose limits the load passes."""
    callers = [
        world.caller(credit_usd="100"),
        world.caller(credit_usd="50"),
        world.caller(credit_usd=POOR_USD),
        world.caller(
            credit_usd="50",
            key={"requests_per_minute": LIMITED_REQUESTS_PER_MINUTE},
            concurrent_requests=CONCURRENT_REQUESTS,
        ),
        world.caller(credit_usd="50", key=KEY_LIMITS),
        world.caller(credit_usd="50", **ORGANIZATION_LIMITS),
    ]
    callers.append(world.second_key(callers[-1]))
    office = Office(callers[:3], Rerating.prepare(), make_codes(), f"{name}/{seed}/{secrets.token_hex(4)}")
    load = Load(world.base_url, _no_order, seed, clients)
    stage = Stage(world, random.Random(f"{name}/{seed}"), callers, load, office)
    stage.load.make_order = lambda chance: make_order(stage, chance)
    return stage


def make_order(stage: Stage, chance: random.Random) -> Order:
    """Return a request that runs for some 0.1 to 0.6 s, so that many are in flight when the fault comes."""
    [caller] = [stage.crowded] if stage.crowded else chance.choices(stage.callers, WEIGHTS)
    is_streamed = bool(stage.wishes) or chance.random() < 0.6
    pace = chance.randrange(5, 40) if is_streamed else 0
    delay = chance.randrange(0, 300)
    wishes = stage.wishes or f"tokens={chance.randrange(5, 80)}; pace={pace}; delay={delay}"
    troubles = stage.troubles
    if troubles and chance.random() < stage.trouble_share:
        wishes += "; " + chance.choice(troubles)
    fields: dict[str, object] = {"stream": True} if is_streamed else {}
    # A sixth of the replies that are not streamed is asked for twice under one idempotency key, some with another body.
    key = f"{chance.random()}" if not is_streamed and chance.random() < 0.16 else ""
    if key:
        fields["metadata"] = {"user_id": key}
    prompt = f"[[sandbox: {wishes}]]"
    return Order(
        caller.secret,
        body(f"Tell me a story. {prompt}", max_tokens=MAX_TOKENS, **fields),
        idempotency_key=key,
        other_body=body(f"Tell me a joke. {prompt}", max_tokens=MAX_TOKENS, **fields)
        if key and chance.random() < 0.4
        else None,
        leave_after=chance.uniform(0.005, 0.5) if chance.random() < stage.leaving_share else None,
        is_slow=chance.random() < stage.slow_share,
    )


def _no_order(chance: random.Random) -> Order:
    raise AssertionError("The stage has not said what to order.")


def wait_for_quiet(
    world: DurableWorld, for_seconds: float = QUIET_FOR_SECONDS, *, supervise: Callable[[], None] = lambda: None
) -> list[str]:
    """Return once nothing is held, waits or is to be published for so long; a violation when that does not come.

    Redis may be quiet while a gateway that is about to find it again has still to send what it spooled meanwhile.
    """
    ends_at = time.monotonic() + QUIET_SECONDS
    quiet_since = None
    while time.monotonic() < ends_at:
        supervise()
        if is_quiet() and not AdmissionChange.objects.exists():
            quiet_since = quiet_since or time.monotonic()
            if time.monotonic() - quiet_since > for_seconds and not spool_is_settled(world):
                return []
        else:
            quiet_since = None
        time.sleep(POLL_SECONDS)
    return [f"I8 it is not quiet after {QUIET_SECONDS:g} s"]
