"""Notes the requests that were refused, so that their customers can see why. Written about once a second, off the path.

Whoever is refused in a loop fills neither memory nor disk: of one key, and of one organization, only so many a minute
are kept for themselves, and what is alike beyond that is counted in the last one that was kept. What Postgres does not
take within bounds is dropped; a refusal is information, and no money.
"""

import logging
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import UTC, datetime

from billing.usage.refusals import Refusal, write_refusals
from gateway.authentication import KeyIdentity
from gateway.database import DatabaseThreads, DatabaseUnavailableError
from gateway.errors import GatewayError
from gateway.protocol.messages.attribution import Attribution

KEPT_OF_KEY_PER_MINUTE = 60
KEPT_OF_ORGANIZATION_PER_MINUTE = 300
MAX_CODES_COUNTED = 50  # Of one key within a minute.
MAX_WAITING = 10_000
MAX_KNOWN = 20_000  # Keys and organizations that were refused in this minute.

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Minute:
    """What was kept of one key, or organization, in one minute; of a key also the last refusal of each code."""

    minute: int
    kept: int = 0
    last: dict[tuple[str, str], Refusal] = field(default_factory=dict)


class RefusalLog:
    def __init__(self, database: DatabaseThreads) -> None:
        self._database = database
        self._waiting: dict[str, Refusal] = {}
        self._minutes: OrderedDict[tuple[str, int], _Minute] = OrderedDict()
        self._dropped = 0

    @property
    def waiting_count(self) -> int:
        return len(self._waiting)

    def note(
        self,
        identity: KeyIdentity,
        error: GatewayError,
        *,
        request_id: str,
        endpoint: str,
        model: str,
        attribution: Attribution,
    ) -> None:
        """Note the refusal of one request that holds nothing."""
        now = datetime.now(UTC)
        minute = int(now.timestamp()) // 60
        of_key = self._minute("key", identity.key_id, minute)
        of_organization = self._minute("organization", identity.organization_id, minute)
        alike = of_key.last.get((error.code, endpoint))
        is_full = of_key.kept >= KEPT_OF_KEY_PER_MINUTE or of_organization.kept >= KEPT_OF_ORGANIZATION_PER_MINUTE
        if is_full and alike is not None:
            alike.repeats += 1
            if len(self._waiting) < MAX_WAITING:
                self._waiting[alike.request_id] = alike
            return
        # The first of its code is kept in any case, so that no reason is hidden behind another that comes more often.
        if (is_full and len(of_key.last) >= MAX_CODES_COUNTED) or len(self._waiting) >= MAX_WAITING:
            self._dropped += 1
            return
        refusal = Refusal(
            request_id=request_id,
            organization_id=identity.organization_id,
            key_id=identity.key_id,
            endpoint=endpoint,
            model_id=model,
            status=error.status,
            error_code=error.code,
            message=error.message,
            refused_at=now,
            end_user=attribution.end_user,
            tag=attribution.tag,
            session=attribution.session,
        )
        of_key.kept += 1
        of_organization.kept += 1
        of_key.last[(error.code, endpoint)] = refusal
        self._waiting[request_id] = refusal

    async def write(self) -> None:
        """Write what waits. What Postgres does not take now is tried again, within the bound."""
        if self._dropped:
            logger.warning("%d refused requests were not recorded: too many came at once.", self._dropped)
            self._dropped = 0
        if not self._waiting:
            return
        batch, self._waiting = self._waiting, {}
        try:
            await self._database.run(write_refusals, list(batch.values()))
        except DatabaseUnavailableError:
            room = MAX_WAITING - len(self._waiting)
            self._waiting = {**dict(list(batch.items())[-room:] if room else []), **self._waiting}

    def _minute(self, kind: str, holder_id: int, minute: int) -> _Minute:
        known = self._minutes.get((kind, holder_id))
        if known is None or known.minute != minute:
            known = self._minutes[(kind, holder_id)] = _Minute(minute)
            self._minutes.move_to_end((kind, holder_id))
            while len(self._minutes) > MAX_KNOWN:
                self._minutes.popitem(last=False)
        return known
