"""What a gateway process knows of each upstream: whom it fails, which credentials rest, how many calls run there.

State that organizations share changes only on evidence that no single one of them can make; docs/upstreams.md has the
table. What carries nothing of a request, such as a connection that cannot be made, opens a breaker for everybody. What
a request may have brought about counts for the organization that made it: its own breaker opens, and nobody else is
refused anything. When several organizations are failed by an upstream it is suspected: then the first failure of
another one opens the breaker of that one.

What everybody shares is told to the other processes through Redis, about once a second and never on the request path.
"""

import hashlib
import logging
import math
import time
from collections import OrderedDict
from dataclasses import dataclass, field

from billing.admission.client import AdmissionClient, UpstreamNews
from billing.catalog.snapshot import UsableRoute
from gateway.upstreams.breaker import Breaker

SUSPENSION_SECONDS = 300.0  # A credential that was refused is tried again after this long: it may have been repaired.
SUSPECTING_ORGANIZATIONS = 3  # So many are failed at once before an upstream is suspected.
SUSPICION_SECONDS = 60.0  # How long operators see a suspicion after it was last confirmed.
MAX_KNOWN_ORGANIZATIONS = 10_000  # Of an upstream; who has not called for the longest is forgotten.
# Of the calls that may run at once at an upstream, one organization leaves this part to others.
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
    next_credential: int = 0
    suspended_until: dict[str, float] = field(default_factory=dict)  # By fingerprint of the credential.
    suspicion_told_at: float = -math.inf


class UpstreamPool:
    def __init__(self, *, failures_to_open: int) -> None:
        self._failures_to_open = failures_to_open
        self._states: dict[str, UpstreamState] = {}
        self._news: list[UpstreamNews] = []

    def may_call(self, route: UsableRoute, organization_id: int, *, most_at_once: int) -> bool:
        """True when the organization may call now. `most_at_once` of 0 is no bound; it counts this process only."""
        state, now = self._state(route.upstream_name), time.monotonic()
        if most_at_once and not _has_room(state, organization_id, most_at_once):
            return False
        if route.credential and not self._usable_credentials(route, state):
            return False
        own = state.breakers.get(organization_id)
        if own is not None and not own.would_let_through(now):
            return False  # Asked first: who may not call anyway must not take the probe of all from others.
        return state.breaker.lets_through(now) and (own is None or own.lets_through(now))

    def seconds_until_usable(self, route: UsableRoute, organization_id: int) -> float:
        """Return how long the route stays closed to the organization, as far as is known; 0 when nothing closes it."""
        state, now = self._state(route.upstream_name), time.monotonic()
        waits = [state.breaker.seconds_left(now)]
        if own := state.breakers.get(organization_id):
            waits.append(own.seconds_left(now))
        if route.credential and not self._usable_credentials(route, state):
            waits.append(min(state.suspended_until.values()) - now)
        return max(waits)

    def choose_credential(self, route: UsableRoute) -> str:
        """Return the next of the upstream's credentials that is not suspended; "" where it needs none."""
        state = self._state(route.upstream_name)
        credentials = self._usable_credentials(route, state)
        if not credentials:
            return ""
        state.next_credential += 1
        return credentials[state.next_credential % len(credentials)]

    def begin(self, route: UsableRoute, organization_id: int) -> None:
        state = self._state(route.upstream_name)
        state.running += 1
        state.running_by_organization[organization_id] = state.running_by_organization.get(organization_id, 0) + 1

    def end(self, route: UsableRoute, organization_id: int) -> None:
        state = self._state(route.upstream_name)
        state.running -= 1
        left = state.running_by_organization.get(organization_id, 0) - 1
        if left > 0:
            state.running_by_organization[organization_id] = left
        else:
            state.running_by_organization.pop(organization_id, None)

    def note_success(self, route: UsableRoute, organization_id: int) -> None:
        """Note a call that the upstream answered, or refused for what was asked: it is alive."""
        state, now = self._state(route.upstream_name), time.monotonic()
        if own := state.breakers.get(organization_id):
            state.breakers.move_to_end(organization_id)
            own.note_success(now)
        if state.breaker.note_success(now):
            logger.warning("Upstream %s serves again.", route.upstream_name)
            self._news.append(UpstreamNews(route.upstream_name, "breaker", 0))

    def note_unreachable(self, route: UsableRoute) -> None:
        """Note that no connection could be made. No request had been sent, so no request is to blame."""
        breaker = self._state(route.upstream_name).breaker
        if breaker.note_failure(time.monotonic()):
            logger.warning("Upstream %s is left alone for %g s.", route.upstream_name, breaker.open_seconds)
            self._news.append(UpstreamNews(route.upstream_name, "breaker", int(breaker.open_seconds * 1000)))

    def note_failure(self, route: UsableRoute, organization_id: int) -> None:
        """Note that a call failed after it was sent: the upstream may be broken, or the request may have broken it."""
        state, now = self._state(route.upstream_name), time.monotonic()
        state.breaker.note_probe_reached(now)
        own = self._own_breaker(state, organization_id)
        threshold = 1 if self._is_suspected(state, now) else self._failures_to_open
        if own.note_failure(now, failures_to_open=threshold):
            logger.warning(
                "Upstream %s fails organization %s, which leaves it alone for %g s.",
                route.upstream_name,
                organization_id,
                own.open_seconds,
            )
            if self._is_suspected(state, now) and now - state.suspicion_told_at > SUSPICION_SECONDS / 2:
                state.suspicion_told_at = now
                self._news.append(UpstreamNews(route.upstream_name, "suspected", int(SUSPICION_SECONDS * 1000)))

    def suspend_credential(self, route: UsableRoute, credential: str) -> None:
        """Stop using a credential that the upstream has refused for itself; operators see its fingerprint, never it."""
        mark = fingerprint(credential)
        self._state(route.upstream_name).suspended_until[mark] = time.monotonic() + SUSPENSION_SECONDS
        logger.error("Upstream %s refuses the credential with fingerprint %s.", route.upstream_name, mark)
        self._news.append(UpstreamNews(route.upstream_name, f"credential {mark}", int(SUSPENSION_SECONDS * 1000)))

    def tell_of_account(self, route: UsableRoute) -> None:
        """Tell operators that our account there refuses calls, for want of money say. Nothing is closed by it."""
        logger.error("Upstream %s refuses calls for the state of our account there.", route.upstream_name)
        self._news.append(UpstreamNews(route.upstream_name, "account", int(SUSPENSION_SECONDS * 1000)))

    async def share(self, admission: AdmissionClient) -> None:
        """Tell Redis the news of this process and learn those of the others. Raises AdmissionUnavailableError."""
        news, self._news = self._news, []
        try:
            known = await admission.share_upstream_news(news)
        except BaseException:
            self._news = news + self._news
            raise
        now = time.monotonic()
        for item in known:
            state = self._state(item.upstream)
            seconds = item.lasts_ms / 1000
            if item.subject == "breaker":
                if not state.breaker.is_tripped:
                    state.breaker.open_for(seconds, now)
            elif item.subject.startswith("credential "):
                state.suspended_until.setdefault(item.subject.removeprefix("credential "), now + seconds)

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
    def _is_suspected(state: UpstreamState, now: float) -> bool:
        failed = 0
        for own in reversed(state.breakers.values()):
            failed += own.is_tripped and own.has_failed_lately(now)
            if failed >= SUSPECTING_ORGANIZATIONS:
                return True
        return False

    @staticmethod
    def _usable_credentials(route: UsableRoute, state: UpstreamState) -> list[str]:
        credentials = split_credentials(route.credential)
        if not state.suspended_until:
            return credentials
        now = time.monotonic()
        state.suspended_until = {mark: until for mark, until in state.suspended_until.items() if until > now}
        return [credential for credential in credentials if fingerprint(credential) not in state.suspended_until]


def _has_room(state: UpstreamState, organization_id: int, most_at_once: int) -> bool:
    """Say whether another call of the organization may run: it leaves the last places to others."""
    own = state.running_by_organization.get(organization_id, 0)
    return state.running < most_at_once and own < most_at_once - most_at_once // SHARE_FOR_OTHERS


def split_credentials(variable: str) -> list[str]:
    """Return the credentials in an upstream's variable: one, or several separated by commas."""
    if "," not in variable:
        return [variable] if variable else []
    return [credential.strip() for credential in variable.split(",") if credential.strip()]


def fingerprint(credential: str) -> str:
    """Return what operators may see of a provider's credential: enough to tell it from others."""
    return hashlib.sha256(credential.encode()).hexdigest()[:8]
