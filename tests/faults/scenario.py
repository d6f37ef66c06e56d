"""The scenario of one run: a stack under load, tenants of its own, and what the fault excuses."""

import random
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from accounts.models import AdmissionChange
from billing.admission.outbox import publish_pending_changes
from billing.admission.redis.topology import SENTINEL, SINGLE
from billing.budgets.amounts import Amounts
from billing.budgets.choices import set_end_user_budget
from billing.models import UsageRecord
from billing.money import NANOS_PER_USD
from tests.faults.invariants import Evidence, describe_answers, find_violations, is_quiet, spool_is_settled, summarize
from tests.faults.ledger_operations import Rerating, make_codes
from tests.faults.operators import Operators
from tests.support.durable_stack import DurableStack
from tests.support.live_stack import Tenant, body
from tests.support.load import CLIENTS, Load, Order
from tests.support.redis_topologies import RedisNode

WARM_UP_ANSWERS = 20
BACK_SECONDS = 60.0  # After the fault is healed, service is expected back within this.
QUIET_SECONDS = 60.0
QUIET_FOR_SECONDS = 0.6  # Longer than two runs of due work and two heartbeats: what is under way shows by then.
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
class Scenario:
    """A fault sets what it excuses: `rate_states_lost`, `holds_lost`, `keys_forgotten_at` and `poison_events`, of which
    Evidence tells, and `operators.loses_operations`.
    """

    stack: DurableStack
    chance: random.Random
    tenants: Sequence[Tenant]
    load: Load
    operators: Operators
    poison_events: int = 0
    rate_states_lost: int = 0
    holds_lost: bool = False
    keys_forgotten_at: float | None = None
    troubles: Sequence[str] = ()
    trouble_share: float = 0.0
    wishes: str = ""
    crowded: Tenant | None = None
    leaving_share: float = 0.0
    slow_share: float = 0.0
    notes: list[str] = field(default_factory=list)
    former_tenants: list[Tenant] = field(default_factory=list)
    at_the_end: list[Callable[[], Sequence[str]]] = field(default_factory=list)  # What to judge once it is quiet.
    supervise: Callable[[], None] = lambda: None  # Called all the while until it is quiet.

    @property
    def rich(self) -> Tenant:
        return self.tenants[0]

    @property
    def poor(self) -> Tenant:
        return self.tenants[2]

    def replace_tenant(self, number: int, tenant: Tenant) -> None:
        """Let clients act by another secret from now on."""
        self.former_tenants.append(self.tenants[number])
        self.tenants = [*self.tenants[:number], tenant, *self.tenants[number + 1 :]]

    def crowd_on(self, tenant: Tenant | None, *, wishes: str = "") -> None:
        """Let all clients act as one tenant, with these directives; as before for None."""
        self.crowded, self.wishes = tenant, wishes

    def strike_redis(self) -> RedisNode:
        """Return the Redis that the fault is to strike. A Sentinel may make its replica, which may lag, master."""
        if self.stack.redis.kind == SENTINEL:
            self.rate_states_lost += 1
        return self.chance.choice(self.stack.redis.masters())

    def pause(self, low_seconds: float = 0.1, high_seconds: float = 0.8) -> None:
        """Let a while pass that the seed chooses: this is what makes each seed hit another moment."""
        time.sleep(self.chance.uniform(low_seconds, high_seconds))


@dataclass(frozen=True)
class Run:
    fault: str
    seed: int
    violations: Sequence[str]
    counts: dict[str, int]
    seconds: float
    answers: str = ""
    commit: str = ""
    topology: str = SINGLE


def run_fault(
    stack: DurableStack, name: str, inflict: Callable[[Scenario], None], *, seed: int, clients: int = CLIENTS
) -> Run:
    """Put the stack under load, inflict the fault, wait until all is healed and quiet, and judge."""
    started = time.monotonic()
    scenario = set_scenario(stack, name, seed=seed, clients=clients)
    first_call = len(stack.sandbox.journal())
    scenario.load.start()
    scenario.operators.open()
    try:
        scenario.load.wait_for_answers(WARM_UP_ANSWERS)
        records = UsageRecord.objects.filter(organization_id=scenario.rich.organization.pk)
        stack.wait_until(records.exists, "the worker settles")
        inflict(scenario)
        stack.reconnect()
        scenario.load.wait_for_answers(WARM_UP_ANSWERS, seconds=BACK_SECONDS)
    except AssertionError as error:
        scenario.notes.append(f"P4 service did not come back: {str(error).splitlines()[0]}")
    finally:
        answers = scenario.load.stop()
        scenario.operators.close()
        stack.sandbox.clear()
    stack.reconnect()
    violations = _attempt("repeating all operations", scenario.operators.repeat_all)
    violations += [*scenario.notes, *wait_for_quiet(stack, supervise=scenario.supervise)]
    for judge in scenario.at_the_end:
        violations += judge()
    violations += _attempt("the re-rating", scenario.operators.price_again)
    violations += wait_for_quiet(stack, 0.0)
    stack.reconnect()
    evidence = Evidence.collect(
        [*scenario.tenants, *scenario.former_tenants], answers, stack.sandbox.journal()[first_call:]
    )
    evidence.poison_events = scenario.poison_events
    evidence.rate_states_lost = scenario.rate_states_lost
    evidence.holds_lost = scenario.holds_lost
    evidence.keys_forgotten_at = scenario.keys_forgotten_at
    violations += [*scenario.operators.violations(), *find_violations(stack, evidence)]
    counts = {**summarize(evidence), **scenario.operators.counts()}
    seconds = time.monotonic() - started
    return Run(name, seed, violations, counts, seconds, describe_answers(answers), topology=stack.redis.kind)


def _attempt(what: str, act: Callable[[], None]) -> list[str]:
    """Do what must work now that all is healed. That it does not is a finding, and must not hide the others."""
    try:
        act()
    except Exception as error:
        return [f"P4 {what} met {type(error).__name__}: {error}"]
    return []


def set_scenario(stack: DurableStack, name: str, *, seed: int, clients: int) -> Scenario:
    """Make tenants: two who can pay, one who soon cannot, and three whose limits the load passes."""
    tenants = [
        stack.make_tenant(credit_usd="100"),
        stack.make_tenant(credit_usd="50"),
        stack.make_tenant(credit_usd=POOR_USD),
        stack.make_tenant(
            credit_usd="50",
            key={"requests_per_minute": LIMITED_REQUESTS_PER_MINUTE},
            concurrent_requests=CONCURRENT_REQUESTS,
        ),
        stack.make_tenant(credit_usd="50", key=KEY_LIMITS),
        stack.make_tenant(credit_usd="50", **ORGANIZATION_LIMITS),
    ]
    tenants.append(stack.second_key(tenants[-1]))
    # Their end users are counted too, and have to be exactly so after all that happens.
    for tenant in tenants[:2]:
        budget = Amounts(monthly_nanos=NANOS_PER_USD)
        set_end_user_budget(tenant.organization, end_user="", amounts=budget, actor="a fault")
    publish_pending_changes()
    operators = Operators(tenants[:3], Rerating.prepare(), make_codes(), f"{name}/{seed}/{secrets.token_hex(4)}")
    load = Load(stack.base_url, _no_order, seed, clients)
    scenario = Scenario(stack, random.Random(f"{name}/{seed}"), tenants, load, operators)
    scenario.load.make_order = lambda chance: make_order(scenario, chance)
    return scenario


def make_order(scenario: Scenario, chance: random.Random) -> Order:
    """Return a request that runs for some 0.1 to 0.6 s, so that many are in flight when the fault comes."""
    [tenant] = [scenario.crowded] if scenario.crowded else chance.choices(scenario.tenants, WEIGHTS)
    is_streamed = bool(scenario.wishes) or chance.random() < 0.6
    pace = chance.randrange(5, 40) if is_streamed else 0
    delay = chance.randrange(0, 300)
    wishes = scenario.wishes or f"tokens={chance.randrange(5, 80)}; pace={pace}; delay={delay}"
    troubles = scenario.troubles
    if troubles and chance.random() < scenario.trouble_share:
        wishes += "; " + chance.choice(troubles)
    fields: dict[str, object] = {"stream": True} if is_streamed else {}
    # A sixth of the replies that are not streamed is asked for twice under one idempotency key, some with another body.
    key = f"{chance.random()}" if not is_streamed and chance.random() < 0.16 else ""
    fields["metadata"] = {"user_id": key or f"user {chance.randrange(4)}"}
    prompt = f"[[sandbox: {wishes}]]"
    return Order(
        tenant.secret,
        body(f"Tell me a story. {prompt}", max_tokens=MAX_TOKENS, **fields),
        idempotency_key=key,
        other_body=body(f"Tell me a joke. {prompt}", max_tokens=MAX_TOKENS, **fields)
        if key and chance.random() < 0.4
        else None,
        leave_after=chance.uniform(0.005, 0.5) if chance.random() < scenario.leaving_share else None,
        is_slow=chance.random() < scenario.slow_share,
    )


def _no_order(chance: random.Random) -> Order:
    raise AssertionError("The scenario has not said what to order.")


def wait_for_quiet(
    stack: DurableStack, for_seconds: float = QUIET_FOR_SECONDS, *, supervise: Callable[[], None] = lambda: None
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
            if time.monotonic() - quiet_since > for_seconds and not spool_is_settled(stack):
                return []
        else:
            quiet_since = None
        time.sleep(POLL_SECONDS)
    return [f"I8 it is not quiet after {QUIET_SECONDS:g} s"]
