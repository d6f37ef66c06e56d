"""What the processes of CrossModel tell each other of upstreams, through Redis. It is no money, and may be lost.

Gateways tell and learn about once a second, never on the request path; operators read it. Everything here raises
AdmissionUnavailableError when Redis does not answer: then each process knows only what it saw itself.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from billing.admission.redis.blocking_client import run_script
from billing.admission.redis.pipeline import ScriptRouter
from billing.admission.redis.script import make_script

KEY = "upstream-health"
# An operator's word that an upstream is well again: "reset <a word of its own>". Each gateway hears it within so long.
RESET = "reset "
RESET_MS = 15_000
SCRIPT = make_script("upstream_health", (Path(__file__).parent / "upstream_health.lua").read_text())


@dataclass(frozen=True, slots=True)
class UpstreamHealth:
    """`subject` is "breaker", "suspected", "account", "credential <fingerprint>" or
    "reset <word>"; `lasts_ms` of 0: it is over."""

    upstream: str
    subject: str
    lasts_ms: int


class SharedUpstreamHealth:
    """A gateway's side of it, on the connection that the gateway has anyway."""

    def __init__(self, router: ScriptRouter) -> None:
        self._router = router

    async def share(self, findings: Sequence[UpstreamHealth]) -> list[UpstreamHealth]:
        """Tell the other gateways what happened to upstreams; return what lasts of all that anyone told."""
        return _read_reply(await self._router.call(KEY, SCRIPT, [KEY], _arguments(findings)))


def read_upstream_health() -> list[UpstreamHealth]:
    """Return what gateways told each other of upstreams that still lasts."""
    told = _read_reply(run_script(SCRIPT, [KEY], _arguments([])))
    return [item for item in told if not item.subject.startswith(RESET)]


def reset_upstream_health(upstream: str) -> None:
    """Forget what gateways told of an upstream, and tell each of them to forget what it knows by itself."""
    told = [item for item in read_upstream_health() if item.upstream == upstream]
    over = [UpstreamHealth(upstream, item.subject, 0) for item in told]
    over.append(UpstreamHealth(upstream, f"{RESET}{uuid.uuid4().hex}", RESET_MS))
    run_script(SCRIPT, [KEY], _arguments(over))


def _arguments(findings: Sequence[UpstreamHealth]) -> list[str | int]:
    return [word for item in findings for word in (item.upstream, item.subject, item.lasts_ms)]


def _read_reply(reply: Sequence[bytes]) -> list[UpstreamHealth]:
    words = [word.decode() for word in reply]
    return [UpstreamHealth(words[at], words[at + 1], int(words[at + 2])) for at in range(0, len(words), 3)]
