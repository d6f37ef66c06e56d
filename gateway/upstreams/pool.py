"""What a gateway process knows of each upstream: its breaker, its keys in rotation, how many calls run there.

Breakers and parked keys are shared with the other processes through Redis, about once a second and never on the request
path: a process that has not failed yet learns in time from one that has.
"""

import hashlib
import logging
import time
from dataclasses import dataclass, field

from billing.admission.client import AdmissionClient, UpstreamNews
from billing.catalog.snapshot import UsableRoute
from gateway.upstreams.breaker import Breaker

PARK_SECONDS = 300.0  # A key that was refused is tried again after this long: it may have been repaired.

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class UpstreamState:
    breaker: Breaker
    running: int = 0
    next_key: int = 0
    parked_until: dict[str, float] = field(default_factory=dict)  # By fingerprint of the key.


class UpstreamPool:
    def __init__(self, *, failures_to_open: int) -> None:
        self._failures_to_open = failures_to_open
        self._states: dict[str, UpstreamState] = {}
        self._news: list[UpstreamNews] = []

    def may_call(self, route: UsableRoute, *, most_at_once: int) -> bool:
        """True when a call may be made now. `most_at_once` of 0 is no bound; it counts this process only."""
        state = self._state(route.upstream_name)
        if most_at_once and state.running >= most_at_once:
            return False
        if route.credential and not self._usable_keys(route, state):
            return False
        return state.breaker.lets_through(time.monotonic())

    def choose_key(self, route: UsableRoute) -> str:
        """Return the next of the upstream's keys that is not parked; "" where it needs none."""
        state = self._state(route.upstream_name)
        keys = self._usable_keys(route, state)
        if not keys:
            return ""
        state.next_key += 1
        return keys[state.next_key % len(keys)]

    def begin(self, route: UsableRoute) -> None:
        self._state(route.upstream_name).running += 1

    def end(self, route: UsableRoute) -> None:
        self._state(route.upstream_name).running -= 1

    def note_success(self, route: UsableRoute) -> None:
        if self._state(route.upstream_name).breaker.note_success(time.monotonic()):
            logger.warning("Upstream %s serves again.", route.upstream_name)
            self._news.append(UpstreamNews(route.upstream_name, "breaker", 0))

    def note_failure(self, route: UsableRoute) -> None:
        breaker = self._state(route.upstream_name).breaker
        if breaker.note_failure(time.monotonic()):
            logger.warning("Upstream %s is left alone for %g s.", route.upstream_name, breaker.open_seconds)
            self._news.append(UpstreamNews(route.upstream_name, "breaker", int(breaker.open_seconds * 1000)))

    def park_key(self, route: UsableRoute, key: str) -> None:
        """Stop using a key that the upstream refused; operators see its fingerprint, never the key."""
        mark = fingerprint(key)
        self._state(route.upstream_name).parked_until[mark] = time.monotonic() + PARK_SECONDS
        logger.error("Upstream %s refused the key with fingerprint %s; it is parked.", route.upstream_name, mark)
        self._news.append(UpstreamNews(route.upstream_name, f"key {mark}", int(PARK_SECONDS * 1000)))

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
            else:
                state.parked_until.setdefault(item.subject.removeprefix("key "), now + seconds)

    def _state(self, upstream: str) -> UpstreamState:
        state = self._states.get(upstream)
        if state is None:
            state = self._states[upstream] = UpstreamState(Breaker(self._failures_to_open))
        return state

    @staticmethod
    def _usable_keys(route: UsableRoute, state: UpstreamState) -> list[str]:
        keys = split_keys(route.credential)
        if not state.parked_until:
            return keys
        now = time.monotonic()
        state.parked_until = {mark: until for mark, until in state.parked_until.items() if until > now}
        return [key for key in keys if fingerprint(key) not in state.parked_until]


def split_keys(credential: str) -> list[str]:
    """Return the keys in a credential variable: one, or several separated by commas."""
    if "," not in credential:
        return [credential] if credential else []
    return [key.strip() for key in credential.split(",") if key.strip()]


def fingerprint(key: str) -> str:
    """Return what operators may see of a provider's key: enough to tell it from others."""
    return hashlib.sha256(key.encode()).hexdigest()[:8]
