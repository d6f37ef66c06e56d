"""Admission as the gateway calls it: one round trip to admit a request, one to close it.

A transport: what a script is given and answers is said in `calls/`, what holds afterwards in the script's own header.
All methods raise AdmissionUnavailableError when Redis does not answer in time.
"""

import logging
import time
from collections.abc import Coroutine, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from billing.admission.calls import admit, admit_free, clock, close, publish, rebuild, renew, restore, state
from billing.admission.calls.admit import Admitted, Refused
from billing.admission.calls.admit_free import FreeAdmission
from billing.admission.calls.close import Closed
from billing.admission.calls.not_ready import NotReady
from billing.admission.calls.publish import Publication
from billing.admission.calls.renew import Renewed
from billing.admission.calls.script_call import REBUILD, Reply, ScriptCall
from billing.admission.calls.state import AdmissionState
from billing.admission.damage import MendingPace, tells_of_damage
from billing.admission.errors import AdmissionUnavailableError, ShardRebuildingError
from billing.admission.hold import Hold
from billing.admission.redis.pipeline import ScriptRouter

logger = logging.getLogger(__name__)


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
        """Judge a request against every limit and write its hold, in one atomic step. Raises InvalidAmountError."""
        call = admit.make_call(
            hold,
            key_config_version=key_config_version,
            lease_ms=self._lease_ms,
            max_waiting_events=self._max_waiting_events,
        )
        return admit.read_reply(await self._call_once(call), hold)

    async def admit_free(
        self, *, organization_id: int, key_id: int, key_config_version: int, kind: str, per_minute: int
    ) -> FreeAdmission | NotReady:
        """Judge a request that costs nothing: the key must live, and has a rate for each `kind` of them."""
        call = admit_free.make_call(
            organization_id=organization_id,
            key_id=key_id,
            key_config_version=key_config_version,
            kind=kind,
            per_minute=per_minute,
        )
        return admit_free.read_reply(await self._call_once(call))

    async def close_hold(
        self, hold: Hold, *, cost_nanos: int, event: bytes, input_tokens: int, output_tokens: int, release: bool = False
    ) -> Closed:
        """Close the hold and append its event, also when it was closed as an orphan before: settlement corrects that.

        May be called again with the same request id: a doubled event is told apart by Postgres' unique key.
        Raises InvalidAmountError; then nothing was written.
        """
        call = close.make_call(
            hold,
            cost_nanos=cost_nanos,
            event=event,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            release=release,
        )
        return close.read_reply(await self._call_built(call), hold, cost_nanos=cost_nanos)

    async def renew_leases(self, shard: int, holds: Sequence[Hold]) -> Renewed:
        """Renew the leases of these holds of one shard and write their new checkpoints."""
        call = renew.make_call(shard, holds, lease_ms=self._lease_ms)
        for hold in holds:
            hold.checkpoint_is_new = False
        return renew.read_reply(await self._call_built(call), holds)

    async def restore_hold(self, hold: Hold) -> bool:
        """Put back a hold that Redis has lost. Returns False when it was closed as an orphan."""
        return restore.read_reply(await self._call_built(restore.make_call(hold, lease_ms=self._lease_ms)), hold)

    async def publish(self, publication: Publication, *, epoch: str) -> bool:
        """Bring one organization or key into Redis, as read from Postgres while `epoch` stood.

        Returns False when the shard was rebuilt since: then it must be read again.
        """
        return publish.read_reply(await self._call_built(publish.make_call(publication, epoch=epoch)))

    async def read_state(self, organization_id: int) -> AdmissionState | None:
        """Return what admission enforces for an organization; None when Redis has not loaded it yet."""
        return state.read_reply(await self._call_built(state.make_call(organization_id)))

    async def read_clock(self) -> None:
        """Compare our clock with Redis', by which everything is admitted. To be called with every heartbeat."""
        asked = time.time()
        redis_ms = clock.read_reply(await self._send(clock.make_call()))
        self._clock_ahead_ms = redis_ms - int((asked + time.time()) * 500)

    def now(self) -> datetime:
        """Return the time by Redis' clock, as far as we know: prices begin for all gateways at the same moment."""
        return datetime.now(UTC) + timedelta(milliseconds=self._clock_ahead_ms)

    async def rebuild(self, prefix: str) -> str:
        """Take the shard over on the Redis process that runs now; nothing happens where that was done already.

        Returns the epoch.
        """
        return rebuild.read_reply(await self._send(rebuild.make_call(prefix, reopen_ms=self._reopen_ms))).epoch

    @property
    def waiting_calls(self) -> int:
        """Calls that Redis has not answered yet."""
        return self._router.waiting_count

    async def leave_former_master(self) -> None:
        """Go to the master that the Sentinels name, if that is another by now. To be called with every heartbeat."""
        await self._router.leave_former_master()

    async def aclose(self) -> None:
        await self._router.aclose()

    async def _call_once(self, call: ScriptCall) -> Reply:
        """Run a script that waits for admission to open; build the shard where that is due, for the next one."""
        reply = await self._call(call)
        if reply[0] == REBUILD:
            await self.rebuild(call.prefix)
        return reply

    async def _call_built(self, call: ScriptCall) -> Reply:
        """Run a script that does not wait for admission to open; build the shard first where that is due."""
        reply = await self._call(call)
        if reply[0] == REBUILD:
            await self.rebuild(call.prefix)
            reply = await self._call(call)
        if reply[0] == REBUILD:
            # Redis was replaced twice within a moment; whoever called tries again later.
            raise ShardRebuildingError(call.prefix)
        return reply

    async def _call(self, call: ScriptCall) -> Reply:
        """Run a script; where it stumbles over what no script of ours has written, mend the shard and run it again."""
        try:
            return await self._send(call)
        except AdmissionUnavailableError as error:
            if not tells_of_damage(error) or not self._mending.may_mend(call.prefix):
                raise
            logger.error("Shard %s is rebuilt, because another program has changed it: %s", call.prefix, error)
        await self._send(rebuild.make_call(call.prefix, reopen_ms=self._reopen_ms, how=rebuild.MEND, also=call.keys))
        return await self._send(call)

    def _send(self, call: ScriptCall) -> Coroutine[Any, Any, Reply]:
        return self._router.call(*call)
