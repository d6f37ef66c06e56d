"""What a gateway process knows of each upstream: whom it fails, which credentials rest, how many calls run there.

State that organizations share changes only on evidence that no single one of them can make; docs/upstreams.md has the
table. What carries nothing of a request, such as a connection that cannot be made, opens a breaker for everybody. What
a request may have brought about counts for the organization that made it: its own breaker opens, and nobody else is
refused anything. When several organizations are failed by an upstream it is suspected: then the first failure of
another one opens the breaker of that one.

Who is let through a half-open breaker is its probe until a connection stands or the call has an outcome, and at the
latest until the call ends: a client that leaves takes the probe with it from nobody.

What everybody shares is told to the other processes through Redis, about once a second and never on the request path.
"""

import hashlib
import logging
import math
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import NamedTuple

from billing.catalog.snapshot import UsableRoute
from billing.upstream_health.sharing import RESET, SharedUpstreamHealth, UpstreamHealth
from gateway.upstreams.breaker import WINDOW_SECONDS, Breaker

SUSPENSION_SECONDS = 300.0  # A credential that was refused is tried again after this long: it may have been repaired.
SUSPECTING_ORGANIZATIONS = 3  # So many are failed at once before an upstream is suspected.
SUSPICION_SECONDS = 60.0  # How long operators see a suspicion after it was last confirmed.
ACCOUNT_SECONDS = 300.0  # How long operators see that an account was refused, after it last was.
MAX_KNOWN_ORGANIZATIONS = 10_000  # Of an upstream; who has not called for the longest is forgotten.
# Of the calls that may run at once at an upstream, one organization leaves this part to others, and one at least.
SHARE_FOR_OTHERS = 4

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class UpstreamState:
    breaker: Breaker  # Of everybody: opened by what carries nothing of a request.
    running: int = 0
    running_by_organization: dict[int, int] = field(default_factory=dict)
    breakers: OrderedDict[int, Breaker] = field(
        default_factory=OrderedDict
    )  # By organization: opened by its own calls.
    # When the breaker of an organization that was not served since opened last; the latest at the end.
    failed_at: OrderedDict[int, float] = field(default_factory=OrderedDict)
    next_credential: int = 0
    suspended_until: dict[str, float] = field(default_factory=dict)  # By fingerprint of the credential.
    suspicion_told_at: float = -math.inf
    account_told_at: float = -math.inf


class RunningCall(NamedTuple):
    """A call that was let through, with the credential to make it with. End it with UpstreamPool.end(), once."""

    route: UsableRoute
    organization_id: int
    credential: str
    # The half-open breakers whose probe it is, each with the number of the probe.
    probes: tuple[tuple[Breaker, int], ...] = ()


class UpstreamPool:
    def __init__(self, *, failures_to_open: int) -> None:
        self._failures_to_open = failures_to_open
        self._states: dict[str, UpstreamState] = {}
        self._resets_heard: set[str] = set()
        self._untold: dict[tuple[str, str], UpstreamHealth] = {}  # The last of each kind: Redis may be away for long.

    def begin(
        self, route: UsableRoute, organization_id: int, *, most_at_once: int, breaker_id: int = 0
    ) -> RunningCall | None:
        """Return a call that the organization may make now; None when it may make none.

        `most_at_once` of 0 is no bound; it counts this process only. `breaker_id` names the breaker of its own that
        counts, where that is not the one of its messages.
        """
        state, now = self._state(route.upstream_name), time.monotonic()
        if most_at_once and not _has_room(state, organization_id, most_at_once):
            return None
        credentials = self._usable_credentials(route, state)
        if route.credential and not credentials:
            return None
        own = state.breakers.get(breaker_id or organization_id)
        breakers = (state.breaker,) if own is None else (state.breaker, own)
        # Looked at first: who may not call anyway must not take the probe of all from others.
        if not all(breaker.would_let_through(now, organization_id) for breaker in breakers):
            return None
        for breaker in breakers:
            breaker.lets_through(now, organization_id)
        state.running += 1
        state.running_by_organization[organization_id] = state.running_by_organization.get(organization_id, 0) + 1
        probes = tuple((breaker, breaker.probe_number) for breaker in breakers if breaker.is_tripped)
        return RunningCall(route, organization_id, _next_credential(state, credentials), probes)

    def end(self, call: RunningCall) -> None:
        """Note that a call has ended, whether or not it told anything of its upstream."""
        for breaker, number in call.probes:
            breaker.end_probe(number)
        state = self._state(call.route.upstream_name)
        state.running -= 1
        left = state.running_by_organization.get(call.organization_id, 0) - 1
        if left > 0:
            state.running_by_organization[call.organization_id] = left
        else:
            state.running_by_organization.pop(call.organization_id, None)

    def seconds_until_usable(self, route: UsableRoute, organization_id: int) -> float:
        """Return how long the route stays closed to the organization, as far as is known; 0 when nothing closes it."""
        state, now = self._state(route.upstream_name), time.monotonic()
        waits = [state.breaker.seconds_left(now)]
        if own := state.breakers.get(organization_id):
            waits.append(own.seconds_left(now))
        if route.credential and not self._usable_credentials(route, state):
            waits.append(min(state.suspended_until.values(), default=now) - now)
        return max(waits)

    def choose_credential(self, route: UsableRoute) -> str:
        """Return the next of the upstream's credentials that is not suspended; "" where it needs none."""
        state = self._state(route.upstream_name)
        return _next_credential(state, self._usable_credentials(route, state))

    def note_success(self, route: UsableRoute, organization_id: int) -> None:
        """Note a call that the upstream answered, or refused for what was asked: it is alive."""
        state, now = self._state(route.upstream_name), time.monotonic()
        if own := state.breakers.get(organization_id):
            state.breakers.move_to_end(organization_id)
            own.note_success(now)
            state.failed_at.pop(organization_id, None)
        if state.breaker.note_success(now):
            self._tell_open(route)

    def note_connected(self, route: UsableRoute) -> None:
        """Note that a connection stands, before anything is known of the call that is to go over it."""
        if self._state(route.upstream_name).breaker.note_reached(time.monotonic()):
            self._tell_open(route)

    def note_unreachable(self, route: UsableRoute) -> None:
        """Note that no connection could be made. No request had been sent, so no request is to blame."""
        breaker = self._state(route.upstream_name).breaker
        if breaker.note_failure(time.monotonic()):
            logger.warning("Upstream %s gets no calls for %g s.", route.upstream_name, breaker.open_seconds)
            self._tell(route, "breaker", breaker.open_seconds)

    def note_failure(self, route: UsableRoute, organization_id: int) -> None:
        """Note that a call failed after it was sent: the upstream may be broken, or the request may have broken it."""
        self.note_connected(route)
        state, now = self._state(route.upstream_name), time.monotonic()
        own = self._own_breaker(state, organization_id)
        threshold = 1 if _is_suspected(state, now) else self._failures_to_open
        if not own.note_failure(now, failures_to_open=threshold):
            return
        if organization_id > 0:  # Whoever fails counts only says nothing of what is sold.
            state.failed_at[organization_id] = now
            state.failed_at.move_to_end(organization_id)
        logger.warning(
            "Upstream %s fails organization %s, which does not call it for %g s.",
            route.upstream_name,
            abs(organization_id),
            own.open_seconds,
        )
        if _is_suspected(state, now) and now - state.suspicion_told_at > SUSPICION_SECONDS / 2:
            state.suspicion_told_at = now
            self._tell(route, "suspected", SUSPICION_SECONDS)

    def suspend_credential(self, route: UsableRoute, credential: str) -> None:
        """Stop using a credential that the upstream has refused for itself; operators see its fingerprint, never it."""
        mark = fingerprint(credential)
        self._state(route.upstream_name).suspended_until[mark] = time.monotonic() + SUSPENSION_SECONDS
        logger.error("Upstream %s refuses the credential with fingerprint %s.", route.upstream_name, mark)
        self._tell(route, f"credential {mark}", SUSPENSION_SECONDS)

    def tell_of_account(self, route: UsableRoute) -> None:
        """Tell operators that our account there refuses calls, for want of money say. Nothing is closed by it.

        Every call may be refused so: it is told again only once half of what was told before is over.
        """
        state, now = self._state(route.upstream_name), time.monotonic()
        if now - state.account_told_at > ACCOUNT_SECONDS / 2:
            state.account_told_at = now
            logger.error("Upstream %s refuses calls because of the state of our account there.", route.upstream_name)
            self._tell(route, "account", ACCOUNT_SECONDS)

    async def share(self, others: SharedUpstreamHealth) -> None:
        """Tell Redis what this process found, and learn what the others found. Raises AdmissionUnavailableError."""
        untold, self._untold = self._untold, {}
        try:
            known = await others.share(list(untold.values()))
        except BaseException:
            self._untold = untold | self._untold
            raise
        now = time.monotonic()
        self._hear_resets(known)
        for item in known:
            state = self._state(item.upstream)
            seconds = item.lasts_ms / 1000
            if item.subject == "breaker":
                if not state.breaker.is_tripped:
                    state.breaker.open_for(seconds, now)
            elif item.subject.startswith("credential "):
                state.suspended_until.setdefault(item.subject.removeprefix("credential "), now + seconds)

    def _hear_resets(self, known: list[UpstreamHealth]) -> None:
        """Forget, once, what is held against an upstream that an operator has called well again."""
        resets = {item.subject: item.upstream for item in known if item.subject.startswith(RESET)}
        for subject in resets.keys() - self._resets_heard:
            state = self._state(resets[subject])
            state.breaker = Breaker(self._failures_to_open)
            state.breakers.clear()
            state.failed_at.clear()
            state.suspended_until.clear()
        self._resets_heard = set(resets)

    def _tell_open(self, route: UsableRoute) -> None:
        logger.warning("Upstream %s can be reached again.", route.upstream_name)
        self._tell(route, "breaker", 0.0)

    def _tell(self, route: UsableRoute, subject: str, seconds: float) -> None:
        """Let the other processes and operators know: it holds for so long from when they are told, 0: it is over."""
        news = UpstreamHealth(route.upstream_name, subject, int(seconds * 1000))
        self._untold[news.upstream, news.subject] = news

    def _state(self, upstream: str) -> UpstreamState:
        state = self._states.get(upstream)
        if state is None:
            state = self._states[upstream] = UpstreamState(Breaker(self._failures_to_open))
        return state

    def _own_breaker(self, state: UpstreamState, organization_id: int) -> Breaker:
        own = state.breakers.get(organization_id)
        if own is None:
            own = state.breakers[organization_id] = Breaker(self._failures_to_open)
            while len(state.breakers) > MAX_KNOWN_ORGANIZATIONS:
                state.breakers.popitem(last=False)
        state.breakers.move_to_end(organization_id)
        return own

    @staticmethod
    def _usable_credentials(route: UsableRoute, state: UpstreamState) -> list[str]:
        credentials = split_credentials(route.credential)
        if not state.suspended_until:
            return credentials
        now = time.monotonic()
        state.suspended_until = {mark: until for mark, until in state.suspended_until.items() if until > now}
        return [credential for credential in credentials if fingerprint(credential) not in state.suspended_until]


def breaker_of_counts(organization_id: int) -> int:
    """Return what the pool knows the breaker by that counts of tokens open. They are free, at an address of their own,
    and some providers lack it: they must not keep an organization from what it pays for.
    """
    return -organization_id


def _has_room(state: UpstreamState, organization_id: int, most_at_once: int) -> bool:
    """Say whether another call of the organization may run: it leaves the last places to others, where it can."""
    own = state.running_by_organization.get(organization_id, 0)
    for_others = max(1, most_at_once // SHARE_FOR_OTHERS) if most_at_once > 1 else 0
    return state.running < most_at_once and own < most_at_once - for_others


def _next_credential(state: UpstreamState, usable: list[str]) -> str:
    if not usable:
        return ""
    state.next_credential += 1
    return usable[state.next_credential % len(usable)]


def _is_suspected(state: UpstreamState, now: float) -> bool:
    """Say whether several organizations are failed just now. Each is counted once, and forgotten once."""
    while state.failed_at and next(iter(state.failed_at.values())) <= now - WINDOW_SECONDS:
        state.failed_at.popitem(last=False)
    return len(state.failed_at) >= SUSPECTING_ORGANIZATIONS


def split_credentials(variable: str) -> list[str]:
    """Return the credentials in an upstream's variable: one, or several separated by commas."""
    if "," not in variable:
        return [variable] if variable else []
    return [credential.strip() for credential in variable.split(",") if credential.strip()]


def fingerprint(credential: str) -> str:
    """Return what operators may see of a provider's credential: enough to tell it from others."""
    return hashlib.sha256(credential.encode()).hexdigest()[:8]
