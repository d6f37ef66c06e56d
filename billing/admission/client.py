"""Admission as the gateway calls it: one round trip to admit a request, one to settle it.

Each method runs one script of `scripts/`, whose header says exactly what holds afterwards. All raise
AdmissionUnavailableError when Redis does not answer in time.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from billing.admission import scripts
from billing.admission.errors import ShardRebuildingError
from billing.admission.names import SHARDS, UPSTREAM_NEWS, holder_names, names_of, prefix_of
from billing.admission.pipeline import ScriptRouter
from billing.admission.publishing import Publication, publish_arguments

TOMBSTONE_SECONDS = 86_400


class RateFigures(NamedTuple):
    """`limit` and `remaining` are -1 where no limit is set; `reset_us` is microseconds until the rate is full again."""

    limit: int
    remaining: int
    reset_us: int


class Rates(NamedTuple):
    requests: RateFigures
    input_tokens: RateFigures
    output_tokens: RateFigures


class Admitted(NamedTuple):
    day: int
    available_nanos: int
    shows_cost: bool
    rates: Rates


@dataclass(frozen=True, slots=True)
class Refused:
    """`code` names the limit. `figure` is what is there, `limit` what was needed or allowed; units follow the code."""

    code: str
    figure: int
    limit: int
    reset_us: int
    rates: Rates


@dataclass(frozen=True, slots=True)
class FreeAdmission:
    """The answer to a request that costs nothing: admitted unless there is a `refused_code`."""

    refused_code: str = ""
    reset_us: int = 0


@dataclass(frozen=True, slots=True)
class NotReady:
    """Nothing was judged: `REBUILD` (try again soon), `STALE` (read the key again), `LOAD org` or `LOAD key`."""

    reason: str


@dataclass(slots=True)
class Hold:
    """A named hold as the gateway keeps it for as long as its request runs. Amounts in nano-dollars."""

    request_id: str
    organization_id: int
    key_id: int
    amount_nanos: int
    input_tokens: int
    output_tokens: int
    orphan_event: bytes
    day: int = 0
    cost_so_far_nanos: int = 0
    checkpoint: bytes = b""
    checkpoint_is_new: bool = False


class Settled(NamedTuple):
    stream_id: str
    epoch: str


@dataclass(frozen=True, slots=True)
class Beaten:
    """`states` by request id: ok, orphaned or missing. Events of `epoch` up to the bound are settled and confirmed."""

    epoch: str
    bound_is_inclusive: bool
    settled_bound: str
    states: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class UpstreamNews:
    """`subject` is "breaker" or "key <fingerprint>"; `lasts_ms` of 0 says that it is over."""

    upstream: str
    subject: str
    lasts_ms: int


class AdmissionClient:
    def __init__(
        self, router: ScriptRouter, *, lease_seconds: float, reopen_seconds: float, max_waiting_events: int
    ) -> None:
        self._router = router
        self._lease_ms = int(lease_seconds * 1000)
        self._reopen_ms = int(reopen_seconds * 1000)
        self._max_waiting_events = max_waiting_events

    async def admit(self, hold: Hold, *, key_config_version: int) -> Admitted | Refused | NotReady:
        """Judge a request against every limit and write its hold, in one atomic step."""
        names = names_of(hold.organization_id)
        org, key = hold.organization_id, hold.key_id
        holder = holder_names(org, key)
        reply = await self._router.call(
            names.prefix,
            scripts.ADMIT,
            (
                names.epoch,
                names.opens,
                holder.org,
                holder.key,
                names.hold(hold.request_id),
                names.deadlines,
                names.usage,
                names.orphaned(hold.request_id),
                holder.org_requests,
                holder.org_input,
                holder.org_output,
                holder.key_requests,
                holder.key_input,
                holder.key_output,
            ),
            (
                hold.request_id,
                org,
                key,
                hold.amount_nanos,
                self._lease_ms,
                hold.input_tokens,
                hold.output_tokens,
                key_config_version,
                self._max_waiting_events,
                hold.orphan_event,
            ),
        )
        verdict = reply[0]
        if verdict == b"ADMITTED":
            return Admitted(
                day=int(reply[1]),
                available_nanos=int(reply[2]),
                shows_cost=reply[3] == b"1",
                rates=_read_rates(reply, 4),
            )
        if verdict == b"REFUSED":
            return Refused(
                code=reply[1].decode(),
                figure=int(reply[2]),
                limit=int(reply[3]),
                reset_us=int(reply[4]),
                rates=_read_rates(reply, 5),
            )
        if verdict == b"REBUILD":
            await self.rebuild(names.prefix)
        return NotReady(" ".join(part.decode() for part in reply))

    async def admit_free(
        self, *, organization_id: int, key_id: int, key_config_version: int, kind: str, per_minute: int
    ) -> FreeAdmission | NotReady:
        """Judge a request that costs nothing: the key must live, and has a rate for each `kind` of them."""
        names = names_of(organization_id)
        reply = await self._router.call(
            names.prefix,
            scripts.ADMIT_FREE,
            (names.epoch, names.org(organization_id), names.key(key_id), names.rate("key", key_id, kind)),
            (organization_id, key_config_version, per_minute),
        )
        if reply[0] == b"ADMITTED":
            return FreeAdmission()
        if reply[0] == b"REFUSED":
            return FreeAdmission(refused_code=reply[1].decode(), reset_us=int(reply[2]))
        if reply[0] == b"REBUILD":
            await self.rebuild(names.prefix)
        return NotReady(" ".join(part.decode() for part in reply))

    async def settle(
        self, hold: Hold, *, cost_nanos: int, event: bytes, input_tokens: int, output_tokens: int, release: bool = False
    ) -> Settled | None:
        """Close the hold and append its event. Returns None when it was settled as an orphan before.

        May be called again with the same request id: a doubled event is told apart by Postgres' unique key.
        """
        names = names_of(hold.organization_id)
        org, key = hold.organization_id, hold.key_id
        holder = holder_names(org, key)
        keys = (
            names.epoch,
            holder.org,
            holder.key,
            names.hold(hold.request_id),
            names.deadlines,
            names.usage,
            names.orphaned(hold.request_id),
            names.index,
            holder.org_input,
            holder.org_output,
            holder.key_input,
            holder.key_output,
        )
        args = (
            hold.request_id,
            org,
            key,
            cost_nanos,
            event,
            input_tokens,
            output_tokens,
            hold.day,
            "release" if release else "",
            TOMBSTONE_SECONDS,
        )
        reply = await self._call_built(names.prefix, scripts.SETTLE, keys, args)
        if reply[0] == b"ORPHANED":
            return None
        return Settled(stream_id=reply[1].decode(), epoch=reply[2].decode())

    async def beat(self, shard: int, holds: Sequence[Hold]) -> Beaten:
        """Renew the leases of these holds of one shard and write their new checkpoints."""
        names = SHARDS[shard]
        keys = [names.epoch, names.deadlines, names.usage]
        args: list[bytes | str | int] = [self._lease_ms]
        for hold in holds:
            keys += (names.hold(hold.request_id), names.orphaned(hold.request_id))
            args += (hold.request_id, hold.cost_so_far_nanos, hold.checkpoint if hold.checkpoint_is_new else b"")
            hold.checkpoint_is_new = False
        reply = await self._call_built(names.prefix, scripts.BEAT, keys, args)
        states = {hold.request_id: state.decode() for hold, state in zip(holds, reply[4:], strict=True)}
        return Beaten(
            epoch=reply[1].decode(),
            bound_is_inclusive=reply[2] == b"through",
            settled_bound=reply[3].decode(),
            states=states,
        )

    async def readd(self, hold: Hold) -> bool:
        """Put back a hold that Redis has lost. Returns False when it was settled as an orphan."""
        names = names_of(hold.organization_id)
        reply = await self._call_built(
            names.prefix,
            scripts.READD,
            (
                names.epoch,
                names.org(hold.organization_id),
                names.key(hold.key_id),
                names.hold(hold.request_id),
                names.deadlines,
                names.orphaned(hold.request_id),
                names.index,
            ),
            (
                hold.request_id,
                hold.organization_id,
                hold.key_id,
                hold.amount_nanos,
                self._lease_ms,
                hold.input_tokens,
                hold.output_tokens,
                hold.day,
                hold.cost_so_far_nanos,
                hold.checkpoint or hold.orphan_event,
            ),
        )
        return bool(reply[0] == b"HELD")

    async def share_upstream_news(self, news: Sequence[UpstreamNews]) -> list[UpstreamNews]:
        """Tell the other gateways what happened to upstreams; return what lasts of all that anyone told."""
        args = [word for item in news for word in (item.upstream, item.subject, item.lasts_ms)]
        reply = await self._router.call(UPSTREAM_NEWS, scripts.UPSTREAM_NEWS, [UPSTREAM_NEWS], args)
        words = [word.decode() for word in reply]
        return [UpstreamNews(words[at], words[at + 1], int(words[at + 2])) for at in range(0, len(words), 3)]

    async def publish(self, publication: Publication) -> None:
        """Bring one organization or key, as read from Postgres, into Redis."""
        prefix = prefix_of(publication.organization_id)
        await self._call_built(prefix, scripts.PUBLISH, *publish_arguments(publication))

    async def rebuild(self, prefix: str) -> None:
        """Take the shard over on the Redis process that runs now; nothing happens where that was done already."""
        await self._router.call(
            prefix,
            scripts.REBUILD,
            [prefix + name for name in ("epoch", "opens", "index", "deadlines", "usage")],
            (prefix, self._reopen_ms, ""),
        )

    async def leave_former_master(self) -> None:
        """Go to the master that the Sentinels name, if that is another by now. To be called with every heartbeat."""
        await self._router.leave_former_master()

    async def aclose(self) -> None:
        await self._router.aclose()

    async def _call_built(
        self, prefix: str, script: scripts.Script, keys: Sequence[str], args: Sequence[bytes | str | int]
    ) -> Any:
        """Run a script that does not wait for admission to open; build the shard first where that is due."""
        reply = await self._router.call(prefix, script, keys, args)
        if reply[0] == b"REBUILD":
            await self.rebuild(prefix)
            reply = await self._router.call(prefix, script, keys, args)
        if reply[0] == b"REBUILD":
            # Redis was replaced twice within a moment; whoever called tries again later.
            raise ShardRebuildingError(prefix)
        return reply


def _read_rates(reply: Sequence[bytes], start: int) -> Rates:
    figures = [int(word) for word in reply[start : start + 9]]
    return Rates(RateFigures(*figures[0:3]), RateFigures(*figures[3:6]), RateFigures(*figures[6:9]))
