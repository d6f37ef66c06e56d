"""An operator calls an upstream well again: every gateway forgets, once, what it holds against it."""

from billing.catalog.snapshot import UsableRoute
from billing.upstream_health.sharing import RESET, UpstreamHealth
from gateway.upstreams.pool import UpstreamPool


class Told:
    """What Redis would answer."""

    def __init__(self, *items: UpstreamHealth) -> None:
        self.items = list(items)

    async def share(self, findings: object) -> list[UpstreamHealth]:
        return self.items


def route(name: str) -> UsableRoute:
    return UsableRoute(1, name, "messages", "http://x", "secret", False, False, {}, "m", 1, 100)


async def test_a_reset_opens_one_upstream_again_and_only_once() -> None:
    pool = UpstreamPool(failures_to_open=1)
    acme, other = route("acme"), route("other")
    for each in (acme, other):
        pool.note_unreachable(each)
        pool.note_unreachable(each)
        pool.suspend_credential(each, "secret")
        assert pool.begin(each, 1, most_at_once=10) is None
    reset = UpstreamHealth("acme", f"{RESET}word", 5_000)
    await pool.share(Told(reset))  # type: ignore[arg-type]
    assert pool.begin(acme, 1, most_at_once=10) is not None
    assert pool.begin(other, 1, most_at_once=10) is None
    pool.note_unreachable(acme)
    pool.note_unreachable(acme)
    await pool.share(Told(reset))  # type: ignore[arg-type]
    assert pool.begin(acme, 1, most_at_once=10) is None
