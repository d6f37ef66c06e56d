"""Admission as the gateway calls it: one round trip to admit a request, one to settle it.

Each method runs one script of `scripts/`, whose header says exactly what holds afterwards. All raise
AdmissionUnavailableError when Redis does not answer in time.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from billing.admission import scripts
from billing.admission.damage import MendingPace, tells_of_damage
from billing.admission.errors import AdmissionUnavailableError, InvalidAmountError, ShardRebuildingError
from billing.admission.names import CLOCK, SHARDS, UPSTREAM_NEWS, holder_names, names_of, prefix_of
from billing.admission.pipeline import ScriptRouter
from billing.admission.publishing import Publication, publish_arguments

TOMBSTONE_SECONDS = 86_400

logger = logging.getLogger(__name__)


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
    admitted_at_ms: int
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
    """Nothing was judged: `REBUILD` (try again soon), `STALE` (read the key again), `LOAD org` or `LOAD key`.

    What is loaded is published under `epoch`.
    """

    reason: str
    epoch: str = field(default="", compare=False)


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
    admitted_at_ms: int = 0  # By Redis' clock; 0 before it is admitted.
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
        self._mending = MendingPace()
        self._clock_ahead_ms = 0  # How far Redis' clock is ahead of ours.

    async def admit(self, hold: Hold, *, key_config_version: int) -> Admitted | Refused | NotReady:
        """Judge a request against every limit and write its hold, in one atomic step."""
        names = names_of(hold.organization_id)
        org, key = hold.organization_id, hold.key_id
        holder = holder_names(org, key)
        reply = await self._call(
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
                admitted_at_ms=int(reply[4]),
                rates=_read_rates(reply, 5),
            )
        if verdict == b"REFUSED":
            return Refused(
                code=reply[1].decode(),
                figure=int(reply[2]),
                limit=int(reply[3]),
                reset_us=int(reply[4]),
                rates=_read_rates(reply, 5),
            )
        if verdict == b"INVALID":
            raise InvalidAmountError(f"Request {hold.request_id} would hold {hold.amount_nanos} nanos.")
        return await self._not_ready(names.prefix, reply)

    async def admit_free(
        self, *, organization_id: int, key_id: int, key_config_version: int, kind: str, per_minute: int
    ) -> FreeAdmission | NotReady:
        """Judge a request that costs nothing: the key must live, and has a rate for each `kind` of them."""
        names = names_of(organization_id)
        reply = await self._call(
            names.prefix,
            scripts.ADMIT_FREE,
            (names.epoch, names.org(organization_id), names.key(key_id), names.rate("key", key_id, kind)),
            (organization_id, key_config_version, per_minute),
        )
        if reply[0] == b"ADMITTED":
            return FreeAdmission()
        if reply[0] == b"REFUSED":
            return FreeAdmission(refused_code=reply[1].decode(), reset_us=int(reply[2]))
        return await self._not_ready(names.prefix, reply)

    async def settle(
        self, hold: Hold, *, cost_nanos: int, event: bytes, input_tokens: int, output_tokens: int, release: bool = False
    ) -> Settled:
        """Close the hold and append its event, also when it was settled as an orphan before: settlement corrects that.

        May be called again with the same request id: a doubled event is told apart by Postgres' unique key.
        Raises InvalidAmountError; then nothing was written.
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
            hold.admitted_at_ms,
        )
        reply = await self._call_built(names.prefix, scripts.SETTLE, keys, args)
        if reply[0] == b"INVALID":
            raise InvalidAmountError(f"Request {hold.request_id} would cost {cost_nanos} nanos.")
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
                hold.admitted_at_ms,
            ),
        )
        if reply[0] == b"INVALID":
            raise InvalidAmountError(f"Request {hold.request_id} would hold {hold.amount_nanos} nanos.")
        return bool(reply[0] == b"HELD")

    async def share_upstream_news(self, news: Sequence[UpstreamNews]) -> list[UpstreamNews]:
        """Tell the other gateways what happened to upstreams; return what lasts of all that anyone told."""
        args = [word for item in news for word in (item.upstream, item.subject, item.lasts_ms)]
        reply = await self._router.call(UPSTREAM_NEWS, scripts.UPSTREAM_NEWS, [UPSTREAM_NEWS], args)
        words = [word.decode() for word in reply]
        return [UpstreamNews(words[at], words[at + 1], int(words[at + 2])) for at in range(0, len(words), 3)]

    async def publish(self, publication: Publication, *, epoch: str) -> bool:
        """Bring one organization or key into Redis, as read from Postgres while `epoch` stood.

        Returns False when the shard was built anew since: then it must be read again.
        """
        prefix = prefix_of(publication.organization_id)
        reply = await self._call_built(prefix, scripts.PUBLISH, *publish_arguments(publication, epoch=epoch))
        return bool(reply[0] == b"PUBLISHED")

    async def read_clock(self) -> None:
        """Compare our clock with Redis', by which everything is admitted. To be called with every heartbeat."""
        asked = time.time()
        reply = await self._router.call(CLOCK, scripts.CLOCK, [CLOCK], [])
        self._clock_ahead_ms = int(reply[0]) - int((asked + time.time()) * 500)

    def now(self) -> datetime:
        """Return the time by Redis' clock, as far as we know: prices begin for all gateways at the same moment."""
        return datetime.now(UTC) + timedelta(milliseconds=self._clock_ahead_ms)

    async def rebuild(self, prefix: str) -> str:
        """Take the shard over on the Redis process that runs now; nothing happens where that was done already.

        Returns the epoch.
        """
        return await self._build(prefix, "")

    async def _build(self, prefix: str, how: str, also: Sequence[str] = ()) -> str:
        keys = [prefix + name for name in ("epoch", "opens", "index", "deadlines", "usage")]
        reply = await self._router.call(prefix, scripts.REBUILD, [*keys, *also], (prefix, self._reopen_ms, how))
        return str(reply[1].decode())

    async def _not_ready(self, prefix: str, reply: Sequence[bytes]) -> NotReady:
        if reply[0] == b"REBUILD":
            await self.rebuild(prefix)
        epoch = reply[2].decode() if len(reply) > 2 else ""
        return NotReady(" ".join(part.decode() for part in reply[:2]), epoch)

    async def leave_former_master(self) -> None:
        """Go to the master that the Sentinels name, if that is another by now. To be called with every heartbeat."""
        await self._router.leave_former_master()

    async def aclose(self) -> None:
        await self._router.aclose()

    async def _call_built(
        self, prefix: str, script: scripts.Script, keys: Sequence[str], args: Sequence[bytes | str | int]
    ) -> Any:
        """Run a script that does not wait for admission to open; build the shard first where that is due."""
        reply = await self._call(prefix, script, keys, args)
        if reply[0] == b"REBUILD":
            await self.rebuild(prefix)
            reply = await self._call(prefix, script, keys, args)
        if reply[0] == b"REBUILD":
            # Redis was replaced twice within a moment; whoever called tries again later.
            raise ShardRebuildingError(prefix)
        return reply

    async def _call(
        self, prefix: str, script: scripts.Script, keys: Sequence[str], args: Sequence[bytes | str | int]
    ) -> Any:
        """Run a script; where it stumbles over what no script of ours has written, mend the shard and run it again."""
        try:
            return await self._router.call(prefix, script, keys, args)
        except AdmissionUnavailableError as error:
            if not tells_of_damage(error) or not self._mending.may_mend(prefix):
                raise
            logger.error("Shard %s is built anew, because somebody else has changed it: %s", prefix, error)
        await self._build(prefix, "mend", keys)
        return await self._router.call(prefix, script, keys, args)


def _read_rates(reply: Sequence[bytes], start: int) -> Rates:
    figures = [int(word) for word in reply[start : start + 9]]
    return Rates(RateFigures(*figures[0:3]), RateFigures(*figures[3:6]), RateFigures(*figures[6:9]))
